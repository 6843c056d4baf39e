"""The strategy `adaptive`: pairs are those of the full strategy, for fewer questions."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longreward.chat_model import TokenUsage
from longreward.data.formats import scored_from_row, scored_to_row
from longreward.judge import ChatRequest, Judge, ParsedReply
from longreward.pairs.methods import PairConfig
from longreward.pairs.outcomes import NoPair
from longreward.pairs.selection import pair_by_scores
from longreward.records import Example, PreferencePair, Response, ScoredResponse
from longreward.reward import ScoreConfig, ScoredExample, open_scorer

EXAMPLE = Example(id="1", document_id="d", context="Keld was begun once by Ann Lee.", query="Who founded Keld?")
FULL, ADAPTIVE = ScoreConfig(), ScoreConfig(strategy="adaptive")
UNREADABLE = "I cannot say."
SUPPORT = {1.0: "[[Fully supported]]", 0.5: "[[Partially supported]]", 0.0: "[[No support]]", None: UNREADABLE}


@dataclass(frozen=True)
class Card:
    """The verdicts of the judge on one response; None: an unreadable reply."""

    helpfulness: float | None
    logicality: float | None
    completeness: float | None
    supports: tuple[float | None, ...] | None  # None: the list cannot be read; (): no factual statement


class TableJudge(Judge):
    """Replies about "response <n>" from card n, without a ledger."""

    def __init__(self, cards: Sequence[Card]) -> None:
        self.cards = cards
        self.requests: list[tuple[str, str]] = []
        self.reducer = "mean"

    @property
    def name(self) -> str:
        return "table"

    def name_for(self, template: str) -> str:
        return "table"

    async def query(self, question: ChatRequest, read: Callable[[str], Any], **_: Any) -> ParsedReply[Any]:
        about = question.slots.get("answer") or question.slots.get("statement") or ""
        self.requests.append((question.template, about))
        value = read(self._answer(question.template, [int(number) for number in about.split() if number.isdigit()]))
        return ParsedReply(value, None if value is not None else "no verdict", "", 1, 1, TokenUsage(), "table")

    async def query_panel(self, question: ChatRequest, read: Callable[[str], Any], **_: Any) -> list[ParsedReply[Any]]:
        return [await self.query(question, read)]

    def _answer(self, template: str, numbers: list[int]) -> str:
        if template == "extraction":
            return "1. Ann Lee"
        card = self.cards[numbers[0]]
        if template == "support":
            return SUPPORT[(card.supports or ())[numbers[1]]]
        if template == "statements":
            listed = "".join(f"<statement>fact {numbers[0]} {n}</statement>" for n in range(len(card.supports or ())))
            return UNREADABLE if card.supports is None else listed or "<no_statement/>"
        rating = getattr(card, template)
        return UNREADABLE if rating is None else f"[[{rating:g}]]"


def texts(*names: str) -> list[Response]:
    return [Response(id=f"1-{n}", example_id="1", query=EXAMPLE.query, text=name) for n, name in enumerate(names)]


def score(cards: Sequence[Card], config: ScoreConfig) -> tuple[ScoredExample, TableJudge]:
    judge = TableJudge(cards)
    responses = texts(*(f"response {n}" for n in range(len(cards))))
    return LOOP.run_until_complete(SCORERS[config.strategy].score(judge, EXAMPLE, responses)), judge


LOOP = asyncio.new_event_loop()
SCORERS = {config.strategy: open_scorer(config) for config in (FULL, ADAPTIVE)}


def read_back(scored: ScoredExample) -> list[ScoredResponse]:
    """As the stage `pair` gets them, out of the files and in any order."""
    return [scored_from_row(scored_to_row(response)) for response in reversed(scored.responses)]


few = st.sampled_from([0.0, 5.0, 5.3, 9.6, 10.0])  # many ties
any_rating = st.integers(0, 100).map(lambda n: n / 10)
supports = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0]), min_size=1, max_size=6).map(tuple)


def cards_of(rating: st.SearchStrategy[float]) -> st.SearchStrategy[list[Card]]:
    return st.lists(st.builds(Card, rating, rating, rating, supports), min_size=1, max_size=6)


def cards_with_unreadable(rating: st.SearchStrategy[float]) -> st.SearchStrategy[list[Card]]:
    unreadable_or_rating = st.one_of(rating, rating, rating, rating, st.none())
    listed = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.0, None]), max_size=4).map(tuple)
    return st.lists(
        st.builds(
            Card,
            unreadable_or_rating,
            unreadable_or_rating,
            unreadable_or_rating,
            st.one_of(supports, listed, st.none()),
        ),
        max_size=7,
    )


pairing = st.builds(PairConfig, min_scored=st.integers(2, 6), min_margin=st.sampled_from([0.0, 0.25, 1.0, 3.0]))
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


any_tables = st.one_of(cards_of(few), cards_of(any_rating))


@many
@given(cards=any_tables, config=pairing)
def test_adaptive_pairs_equal_full_pairs(cards: list[Card], config: PairConfig) -> None:
    assert_same_pair(cards, config)


@pytest.mark.slow
@settings(many, max_examples=500)
@given(cards=any_tables, config=pairing)
def test_adaptive_pairs_equal_full_pairs_over_many_examples(cards: list[Card], config: PairConfig) -> None:
    assert_same_pair(cards, config)


def assert_same_pair(cards: list[Card], config: PairConfig) -> None:
    full, full_requests = score(cards, FULL)
    adaptive, requests = score(cards, ADAPTIVE)
    assert pair_by_scores(config, EXAMPLE, read_back(adaptive)) == pair_by_scores(config, EXAMPLE, read_back(full))
    assert set(requests.requests) <= set(full_requests.requests)
    assert len(requests.requests) == len(set(requests.requests))
    for bounded, known in zip(adaptive.responses, full.responses, strict=True):
        low, high = bounded.reward_bounds() or (11.0, -1.0)
        assert known.reward is not None
        assert low <= known.reward <= high
        assert bounded.reward in (None, known.reward)
        assert all(v.bounds is None or v.score is None for v in bounded.verdicts.values())
    ranked = sorted(
        full.responses, key=lambda response: -(response.reward or 0)
    )  # stable: equal rewards keep their order
    outcome = pair_by_scores(config, EXAMPLE, list(full.responses))
    if isinstance(outcome, PreferencePair):
        assert (outcome.chosen, outcome.rejected) == (ranked[0].response, ranked[-1].response)


@many
@given(cards=cards_with_unreadable(few), config=pairing)
def test_unreadable_verdicts_change_only_number_of_scored_responses(cards: list[Card], config: PairConfig) -> None:
    full, adaptive = score(cards, FULL)[0], score(cards, ADAPTIVE)[0]
    expected, result = (
        pair_by_scores(config, EXAMPLE, list(full.responses)),
        pair_by_scores(config, EXAMPLE, read_back(adaptive)),
    )
    in_full = pair_by_scores(config.model_copy(update={"min_scored": 2}), EXAMPLE, list(full.responses))
    if isinstance(result, NoPair) and result.reason == "too few scored responses":
        assert result.reason == getattr(expected, "reason", None)  # whoever was not asked counts: never fewer
    elif isinstance(result, NoPair) and result.reason == "no responses":
        assert result == expected
    elif isinstance(in_full, PreferencePair):
        assert result == in_full
    else:
        assert isinstance(result, NoPair)
        assert (result.reason, result.margin) == (in_full.reason, in_full.margin)


@many
@given(
    cards=cards_of(few),
    weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=4, max_size=4).filter(any),
    first=st.sampled_from([None, 2, 3]),
)
def test_other_weights_give_full_pair_or_need_full_strategy(
    cards: list[Card], weights: list[float], first: int | None
) -> None:
    names = ("helpfulness", "logicality", "faithfulness", "completeness")
    config = PairConfig(min_scored=2, weights=dict(**dict(zip(names, weights, strict=True))), responses=first)
    result = pair_by_scores(config, EXAMPLE, read_back(score(cards, ADAPTIVE)[0]))
    if not (isinstance(result, NoPair) and result.reason == "needs the full strategy"):
        assert result == pair_by_scores(config, EXAMPLE, list(score(cards, FULL)[0].responses))


CLEAR = [
    Card(10, 10, 10, (1.0, 1.0, 1.0, 1.0)),  # 10
    Card(6, 6, 6, (1.0, 1.0, 0.0, 0.0)),  # 4.5 to 7 before its statements are known
    Card(1, 1, 1, (0.0, 0.0, 0.0, 0.0)),  # 0.75
]


def test_response_between_best_and_worst_stays_open() -> None:
    scored, judge = score(CLEAR, ADAPTIVE)
    best, middle, worst = scored.responses
    assert (best.reward, middle.reward, worst.reward) == (10.0, None, 0.75)
    assert middle.reward_bounds() == (3.0, 8.0)  # (6 + 6 + 0 + 0) / 4 to (6 + 6 + 10 + 10) / 4
    assert [about for _, about in judge.requests].count("response 1") == 2  # helpfulness, logicality
    completeness = middle.verdicts["completeness"]
    assert (completeness.score, completeness.bounds) == (None, (0.0, 10.0))
    assert completeness.reason == (
        "not needed: the reward lies within 3.00 to 8.00, between the worst, 0.75, and the best, 10.00"
    )


def test_row_of_open_response_has_bounds() -> None:
    row = scored_to_row(score(CLEAR, ADAPTIVE)[0].responses[1])
    assert row["scores"] == {
        "helpfulness": 6.0, "logicality": 6.0, "faithfulness": None, "completeness": None, "total": None
    }  # fmt: skip
    assert row["reward"] is None
    assert row["reward_bounds"] == (3.0, 8.0)
    assert row["bounds"] == {"faithfulness": (0.0, 10.0), "completeness": (0.0, 10.0)}
    assert set(row["unscored"]) == {"faithfulness", "completeness"}


def test_verified_statements_tighten_bounds() -> None:
    cards = [
        Card(9, 9, 9, (1.0, 1.0, 1.0, 1.0)),  # 9.25
        Card(9, 9, 9, (0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)),  # 6.75 to 9.25; one false statement: to 8.9375
        Card(1, 1, 1, (0.0,)),
    ]
    middle = score(cards, ADAPTIVE)[0].responses[1].verdicts["faithfulness"]
    # Of the two with 9.25 in reach the first is asked until it has reached that; then ties go to it.
    assert middle.score is None
    assert middle.bounds == (0.0, 10.0)
    cards[0] = Card(9, 9, 9, (1.0, 1.0, 1.0, 0.5))  # 8.9375: the second must lose a statement
    middle = score(cards, ADAPTIVE)[0].responses[1].verdicts["faithfulness"]
    assert middle.bounds == (0.0, 8.75)  # one statement of eight is unsupported
    assert [s.support for s in middle.statements] == [0.0, *[None] * 7]
    assert {s.reason for s in middle.statements[1:]} == {middle.reason}


def test_unscored_best_response_reopens_next() -> None:
    cards = [Card(10, 10, 10, (1.0, None)), *CLEAR[1:], Card(5, 5, 5, (0.0, 0.0))]
    first, second, third, fourth = score(cards, ADAPTIVE)[0].responses
    assert first.reward_bounds() is None
    assert second.reward == 5.75  # (6 + 6 + 6 + 5) / 4
    assert third.reward == 0.75
    assert fourth.reward is None
    outcome = pair_by_scores(PairConfig(min_scored=2), EXAMPLE, [first, second, third, fourth])
    assert isinstance(outcome, PreferencePair)
    assert (outcome.chosen.id, outcome.rejected.id) == ("1-1", "1-2")


def test_unscored_response_gets_no_more_requests() -> None:
    scored, judge = score([Card(None, 9, 9, (1.0,)), *CLEAR], ADAPTIVE)
    assert [template for template, about in judge.requests if about == "response 0"] == ["helpfulness", "logicality"]
    assert scored.responses[0].verdicts["faithfulness"].reason == "not needed: helpfulness is unscored"


def test_single_response_scored_in_full() -> None:
    assert score(CLEAR[:1], ADAPTIVE)[0].responses[0].reward == 10.0


async def test_equal_responses_share_requests(scripted: Callable[..., Any]) -> None:
    model = scripted(
        {
            "helpfulness": "[[8]]",
            "logicality": "[[8]]",
            "completeness": "[[8]]",
            "extraction": "1. Ann Lee",
            "statements": "<statement>Keld was begun by Ann Lee.</statement>",
            "support": "[[Fully supported]]",
        }
    )
    async with Judge.from_model(model) as judge:
        scored = await open_scorer(ADAPTIVE).score(judge, EXAMPLE, texts("Ann Lee.", "Ann Lee.", "Ann Lee."))
    assert [response.reward for response in scored.responses] == [8.5, 8.5, 8.5]
    assert set(model.counts().values()) == {1}


async def test_ties_are_broken_by_sample_number() -> None:
    judge = TableJudge([Card(9, 9, 9, (1.0,)), Card(9, 9, 9, (1.0,)), *CLEAR[1:]])
    responses = texts(*(f"response {n}" for n in range(4)))[::-1]
    scored = await open_scorer(ADAPTIVE).score(judge, EXAMPLE, responses)
    assert [scored_response.response.id for scored_response in scored.responses] == ["1-3", "1-2", "1-1", "1-0"]
    outcome = pair_by_scores(PairConfig(min_scored=2), EXAMPLE, list(scored.responses))
    assert isinstance(outcome, PreferencePair)
    assert (outcome.chosen.id, outcome.rejected.id) == ("1-0", "1-3")


async def test_judge_error_stops_scoring(scripted: Callable[..., Any]) -> None:
    from longreward.errors import JudgeUnavailable

    model = scripted({"extraction": JudgeUnavailable("it is down"), "helpfulness": "[[8]]", "logicality": "[[8]]"})
    async with Judge.from_model(model) as judge:
        with pytest.raises(JudgeUnavailable, match="it is down"):
            await open_scorer(ADAPTIVE).score(judge, EXAMPLE, texts("Ann Lee.", "Tom Ray."))
