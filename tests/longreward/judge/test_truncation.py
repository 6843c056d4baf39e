"""Replies that were cut at their token limit: more room first, then what the settings say; never half a list unseen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longreward.errors import JudgeRefused, RequestRefused
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig, ParsedReply
from longreward.judge.ledger import Ledger
from longreward.judge.truncation import TruncatedReply, truncated_list, truncated_tags, truncated_verdict
from longreward.reward.parsers import parse_extraction, parse_rating, parse_statements, parse_support
from longreward.reward.published_parsers import ExtractedText

WHOLE = "".join(f"<statement>Fact {n} of the answer.</statement>\n" for n in range(1, 41))  # about 45 characters a line


def read(text: str) -> tuple[str, ...] | None:
    return parse_statements(text, "<no_statement/>")


class Limited:
    """Says `reply`, cut after so many characters as the request allows tokens; refuses what `refuse` says."""

    name = "limited"

    def __init__(self, reply: str, refuse: Callable[[int], Exception | None] = lambda limit: None) -> None:
        self.reply, self.refuse = reply, refuse
        self.asked: list[tuple[int, float]] = []

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.asked.append((request.max_tokens, temperature))
        if (refusal := self.refuse(request.max_tokens)) is not None:
            raise refusal
        cut = len(self.reply) > request.max_tokens
        return ChatReply(self.reply[: request.max_tokens], "length" if cut else "stop")

    async def close(self) -> None:
        pass


async def ask(
    model: Limited, ledger: Path | None = None, *, limit: int = 300, **settings: Any
) -> ParsedReply[tuple[str, ...]]:
    async with Judge.from_model(model, JudgeConfig(**settings), Ledger(ledger)) as judge:
        question = ChatRequest("statements", {}, "q", "h", limit)
        return await judge.query(question, read, parse_truncated=truncated_list(read, end_tag="statement"))


async def test_a_cut_list_is_asked_for_again_with_twice_the_room_until_it_is_whole(tmp_path: Path) -> None:
    model = Limited(WHOLE)
    reading = await ask(model, tmp_path / "l")
    assert reading.value == tuple(f"Fact {n} of the answer." for n in range(1, 41))
    assert (reading.truncated, reading.reason, reading.calls) == (False, None, 4)
    # the first time more room alone may help; after that another temperature may end a loop
    assert model.asked == [(300, 0.01), (600, 0.01), (1200, 0.95), (2400, 0.95)]
    again = await ask(model, tmp_path / "l")
    assert (again.value, again.calls, len(model.asked)) == (reading.value, 0, 4)


@pytest.mark.parametrize("setting", ["unscored", "complete_part"])
async def test_what_is_cut_at_the_largest_limit_is_unscored_or_flagged_and_never_passes_for_whole(
    tmp_path: Path, setting: str
) -> None:
    model = Limited(WHOLE)
    settings = {"max_reply_tokens": 500, "truncated_replies": setting, "max_attempts": 4}
    for run in (1, 2):
        reading = await ask(model, tmp_path / "l", **settings)
        if setting == "complete_part":
            assert reading.value == tuple(f"Fact {n} of the answer." for n in range(1, 12))  # the 12th is cut
            assert (reading.truncated, reading.calls) == (True, 2 if run == 1 else 0)
        else:
            assert (reading.value, reading.truncated, reading.calls) == (None, False, 4)
            assert "cut at the token limit (500 tokens; judge.max_reply_tokens" in (reading.reason or "")
    rounds = [(300, 0.01), (500, 0.01), (500, 0.95), (500, 0.95)]
    new_round = [(500, 0.01), (500, 0.95), (500, 0.95), (500, 0.95)]
    assert model.asked == (rounds[:2] if setting == "complete_part" else rounds + new_round)


async def test_a_partial_value_of_one_run_does_not_serve_one_that_wants_whole_replies(tmp_path: Path) -> None:
    model = Limited(WHOLE)
    kept = await ask(model, tmp_path / "l", max_reply_tokens=500, truncated_replies="complete_part")
    assert kept.truncated
    whole = await ask(model, tmp_path / "l", max_reply_tokens=4096)
    assert (len(whole.value or ()), whole.truncated) == (40, False)
    assert [limit for limit, _ in model.asked] == [300, 500, 600, 1200, 2400]


async def test_a_cut_reply_that_an_older_version_kept_as_readable_is_not_served_as_whole(tmp_path: Path) -> None:
    model = Limited(WHOLE)
    await ask(model, tmp_path / "l", truncated_replies="as_complete")  # as every version before did
    assert [limit for limit, _ in model.asked] == [300]
    reading = await ask(model, tmp_path / "l")
    assert len(reading.value or ()) == 40
    assert [limit for limit, _ in model.asked] == [300, 600, 1200, 2400]


async def test_a_run_that_was_stopped_on_the_way_up_goes_on_there(tmp_path: Path) -> None:
    class Stopping(Limited):
        stopped = False

        async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
            if len(self.asked) == 2 and not self.stopped:
                self.stopped = True
                raise KeyError("stopped")
            return await super().complete(request, temperature=temperature)

    model = Stopping(WHOLE)
    with pytest.raises(KeyError):
        await ask(model, tmp_path / "l")
    reading = await ask(model, tmp_path / "l")
    assert (len(reading.value or ()), reading.attempts, reading.calls) == (40, 4, 2)
    assert model.asked == [(300, 0.01), (600, 0.01), (1200, 0.95), (2400, 0.95)]


@pytest.mark.parametrize(
    "refusal", [RequestRefused("context length exceeded"), JudgeRefused("max_tokens is too large")]
)
async def test_a_server_that_takes_no_larger_limit_ends_neither_the_run_nor_the_question_for_good(
    tmp_path: Path, refusal: Exception
) -> None:
    model = Limited(WHOLE, refuse=lambda limit: refusal if limit > 300 else None)
    reading = await ask(model, tmp_path / "l", max_attempts=3)
    assert reading.value is None
    assert "cut at the token limit (300 tokens" in (reading.reason or "")
    assert [limit for limit, _ in model.asked] == [300, 600, 300, 300]
    partial = await ask(model, tmp_path / "l", max_attempts=3, truncated_replies="complete_part")
    assert (len(partial.value or ()), partial.truncated) == (6, True)


async def test_a_limit_that_extra_body_sets_is_not_raised() -> None:
    model = Limited(WHOLE)
    await ask(model, extra_body={"max_tokens": 300}, max_attempts=2)
    assert [limit for limit, _ in model.asked] == [300, 300]


async def test_without_a_reader_of_cut_replies_they_are_read_as_published_benchmarks_read_them() -> None:
    model = Limited(WHOLE)
    async with Judge.from_model(model, JudgeConfig()) as judge:
        reading = await judge.query(ChatRequest("t", {}, "q", "h", 300), read)
        assert judge.metrics()["truncated"] == 1
    assert (len(reading.value or ()), reading.calls) == (6, 1)


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("It is good.\nRating: [[7]]", 7.0),  # the cut fell right behind it
        ("It is good.\n**Rating: [[7]]**\n\n[Question]\nWho founded Osten, and", 7.0),
        ("It is good.\nRating: [[7]]\n\n[Question]\nWho?\n\nRating: [[7]]\n\n[Ques", 7.0),
        ("It is good.\nRating: [[7]]\n\n[Question]\nWho?\n\nRating: [[3]]\n\n[Ques", None),  # which of them?
        ("The answer calls itself [[10]], which is not", None),  # quoted; its own verdict is cut off
        ("The answer says that it deserves the rating [[10]] for its wealth of detail.\nHowever, it", None),
        ("It is good. So I would say [[7", None),
        ("It is good.\nRating: 8\n\n[Question]\nWho", 8.0),
        ("It lacks a point:\n1.\nand th", None),  # the number of a point
        ("It is good.\nRating: 1", None),  # of 10, perhaps
        ("", None),
    ],
)
def test_a_rating_counts_where_it_stands_whole_before_the_cut(text: str, rating: float | None) -> None:
    found = truncated_verdict(parse_rating)(text)
    assert found == (None if rating is None else TruncatedReply(rating, is_complete=True))


def test_a_support_label_counts_in_the_same_way() -> None:
    assert truncated_verdict(parse_support)("Passage 2 has it.\nSupport: [[No support]]\n\n[Stat") == TruncatedReply(
        0.0, is_complete=True
    )
    assert truncated_verdict(parse_support)("Were it [[Fully supported]], passage 2 would name") is None


def test_only_whole_statements_and_whole_points_are_taken() -> None:
    statements = truncated_list(read, end_tag="statement")
    assert statements("<statement>One.</statement><Statement>Two.</Statement >\n<statement>Three is cu") == (
        TruncatedReply(("One.", "Two."), is_complete=False)
    )
    assert statements("<statement>One is cu") is None

    def points(text: str) -> TruncatedReply[ExtractedText] | None:
        return truncated_list(lambda part: parse_extraction(part, "No relevant information"))(text)

    assert points("1. Ann founded Keld.\n2. Bo owned it.\n3. The mill bur") == TruncatedReply(
        ExtractedText("1. Ann founded Keld.\n2. Bo owned it."), is_complete=False
    )
    assert points("1. Ann founded Keld and") is None


def test_a_reader_of_whole_tags_takes_what_is_closed() -> None:
    reader = truncated_tags(read)
    assert reader("<statement>One.</statement> and then") == TruncatedReply(("One.",), is_complete=True)
    assert reader("<statement>One") is None
