"""Replies that continue the examples of the prompt are cut after their verdict or their list."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from longreward.chat_model import ChatReply, ChatRequest, ReplyFormat
from longreward.judge import Judge
from longreward.judge.continuation import close_verdict, cut_continuation, reply_format
from longreward.judge.prompts import load_prompts
from longreward.judge.truncation import truncated_verdict
from longreward.reward import published_parsers
from longreward.reward.parsers import parse_rating, parse_support

PROMPTS = load_prompts()

CASES = [
    # (template, language, what counts of the reply, what it continues with)
    ("helpfulness", "en", "Short but right.\n\nRating: [[5]]", "\n\n[Question]\nWho dug it?\n\n[Answer]\nA. [[9]]"),
    ("helpfulness", "en", "**Rating:** 5/10", "\n[Question]\nWho dug it?\n\nRating: [[9]]"),
    ("helpfulness", "en", "[Analysis]\nRight.\n\n[[5]]\n\nThat is all.", "\n\n**[Question]**\nWho?\nRating: [[9]]"),
    ("helpfulness", "zh", "简短。\n\n评分：[[5]]", "\n\n[问题]\n谁挖的？\n\n评分：[[9]]"),
    (
        "completeness",
        "en",
        "Both.\nRating: [[8]]",
        "\n\n[Relevant information from 5% - 7% of the document]\n1. No. [[2]]",
    ),
    (
        "support",
        "en",
        "It is there.\n\nSupport: [[No support]]",
        "\n\n[Passage 3]\nThe mill.\n\nSupport: [[Fully supported]]",
    ),
    ("support", "zh", "没有。\n\n支持程度：[[No support]]", "\n\n[段落1]\n磨坊。\n\n支持程度：[[Fully supported]]"),
    ("statements", "en", "<statement>Keld is old.</statement>", "\n\n[Question]\nQ\n<statement>No.</statement>"),
    ("extraction", "en", "No relevant information", "\n\n[Part of the document]\nThe mill.\n[End of part]"),
    ("extraction", "zh", "1. 磨坊。", "\n\n[文档部分]\n桥。\n[部分结束]"),
]


@pytest.mark.parametrize(("template", "language", "reply", "continuation"), CASES)
def test_cut_continuation_before_next_example(template: str, language: str, reply: str, continuation: str) -> None:
    form = PROMPTS.template(template, language).reply_format
    assert cut_continuation(reply + continuation, form) == reply
    assert cut_continuation(reply, form) == reply


REAL_REPLIES = yaml.safe_load(Path(__file__).with_name("small_judge_replies.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("recorded", REAL_REPLIES)
async def test_recorded_replies_of_small_judge(recorded: dict[str, Any]) -> None:
    template = recorded["template"]
    parse = parse_support if template == "support" else parse_rating
    model = OneReply(ChatReply(recorded["text"], recorded["finish_reason"]))
    slots = dict.fromkeys(("question", "answer", "context", "statement"), "Keld.")
    async with Judge.from_model(model) as judge:
        request = PROMPTS.template(template, "en").request(slots)
        reply = await judge.query(request, parse, parse_truncated=truncated_verdict(parse))
    assert (reply.value, model.calls) == (recorded["value"], 1)


@pytest.mark.parametrize(
    ("template", "reply"),
    [
        # The judge arranges its own analysis under the headings of the prompt.
        ("helpfulness", "[Question]\nIt asks for a year.\n[Answer]\nIt has one.\n[Analysis]\nRight. Rating: [[10]]"),
        (
            "support",
            "In turn:\n\n[Passage 1]\nNothing.\n\n[Passage 2]\nAll of it.\n\nSupport: [[Fully supported]]",
        ),
        # Mentioned, not on a line of their own; or no heading of this prompt.
        ("support", "[Passage 1] says [[Fully supported]]\n[Passage 2] agrees."),
        ("helpfulness", "Rating: [[5]]\n\n[Second thoughts]\nNo. Rating: [[7]]"),
        ("statements", "[Statements]\n<statement>A.</statement>\n[Statements]\n<statement>B.</statement>"),
        ("extraction", "[Question]\nWho?\n\n[Relevant information]\n1. Ann Lee."),
        ("helpfulness", ""),
    ],
)
def test_cut_continuation_keeps_analysis_with_headings(template: str, reply: str) -> None:
    assert cut_continuation(reply, PROMPTS.template(template, "en").reply_format) == reply


async def test_first_verdict_counts_in_complete_and_truncated_replies() -> None:
    text = "Right.\n\nRating: [[5]]\n\n[Question]\nWho dug it?\n\n[Analysis]\nRating: [[9]]\n\n[Question]\nWhen"
    for finish_reason in ("stop", "length"):
        model = OneReply(ChatReply(text, finish_reason))
        async with Judge.from_model(model) as judge:
            request = PROMPTS.template("helpfulness", "en").request({"question": "Q", "answer": "A"})
            reply = await judge.query(request, parse_rating, parse_truncated=truncated_verdict(parse_rating))
        assert (reply.value, reply.text, reply.truncated, model.calls) == (5.0, "Right.\n\nRating: [[5]]", False, 1)


async def test_published_parsing_reads_last_bracket_after_continuation() -> None:
    text = "Right.\n\nRating: [[5]]\n\n[Question]\nWho dug it?\n\nRating: [[9]]"
    request = load_prompts(parsing="published").template("helpfulness", "en").request({"question": "Q", "answer": "A"})
    async with Judge.from_model(OneReply(ChatReply(text))) as judge:
        reply = await judge.query(request, published_parsers.parse_rating)
    assert (reply.value, reply.text) == (9.0, text)


@pytest.mark.parametrize(
    ("template", "stop"),
    [
        ("helpfulness", ("]]\n\n[Question]", "]]\n[Question]")),
        ("completeness", ("]]\n\n[Question]", "]]\n[Question]")),
        ("support", ("]]\n\n[Passage 1]", "]]\n[Passage 1]")),
        ("statements", ("\n[Question]",)),
        ("extraction", ("\n[Part of the document]",)),
    ],
)
def test_stop_sequences_by_template(template: str, stop: tuple[str, ...]) -> None:
    assert PROMPTS.template(template, "en").reply_format.stop == stop


def test_template_without_examples_has_no_stop_sequence() -> None:
    form = reply_format("Rate it.\n\n[Question]\n\n[Answer]\n\n[Analysis]\n", is_list=False)
    assert form == ReplyFormat(headings=("[Question]", "[Answer]", "[Analysis]"))


@pytest.mark.skipif("LONGREWARD_REFERENCE" not in os.environ, reason="LONGREWARD_REFERENCE is not set")
def test_stop_sequences_of_published_prompts() -> None:
    prompts = load_prompts(Path(os.environ["LONGREWARD_REFERENCE"]) / "longreward" / "prompts")
    form = prompts.template("helpfulness", "en").reply_format
    assert form.stop == ("]]\n\n[问题]", "]]\n[问题]")


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("Right.\n\nRating: [[5", "Right.\n\nRating: [[5]]"),
        ("Support: [[No support", "Support: [[No support]]"),
        ("Rating: [[5]]", "Rating: [[5]]"),
        ("It calls itself [[10]], but", "It calls itself [[10]], but"),
        ("A list: [[1, 2], [3", "A list: [[1, 2], [3"),
        ("", ""),
    ],
)
def test_close_verdict(text: str, closed: str) -> None:
    assert close_verdict(text) == closed


class OneReply:
    name = "m"

    def __init__(self, reply: ChatReply) -> None:
        self.reply = reply
        self.calls = 0

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.calls += 1
        return self.reply

    async def close(self) -> None:
        pass
