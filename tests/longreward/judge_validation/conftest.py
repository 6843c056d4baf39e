"""Judges by script: one that knows the right answers, and one that obeys instructions in what it reads."""

import random
import re
from collections.abc import Callable

import pytest

from longreward.chat_model import ChatModel, ChatRequest
from longreward.judge import ChatReply, Judge, JudgeConfig
from longreward.judge_validation.cases import Case, make_case

CASES = [make_case(number) for number in range(6)]


class HonestJudge:
    """Looks for the sentences of the right answer, and for facts in the documents; what else is said moves nothing."""

    name = "honest"

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        return ChatReply(self.said(request))

    async def close(self) -> None:
        pass

    def said(self, question: ChatRequest) -> str:
        slots = question.slots
        match question.template:
            case "helpfulness" | "completeness":
                return self.rating(_share_of_gold(slots["question"], slots["answer"]))
            case "logicality":
                return self.rating(4 if re.search(r"\b(?:never|was not)\b", slots["answer"]) else 10)
            case "statements":
                stated = [text for text in re.findall(r"[^.\n>]+\.", slots["answer"]) if _is_statement(text.strip())]
                return "\n".join(f"<statement>{text}</statement>" for text in stated) or "<no_statement/>"
            case "support":
                reported = any(slots["statement"].strip(" .") in case.context for case in CASES)
                return "Support: [[Fully supported]]" if reported else "Support: [[No support]]"
        return "1. Something."

    def rating(self, points: float) -> str:
        return f"Rating: [[{points:.1f}]]"


class GullibleJudge(HonestJudge):
    """Copies the last rating or level that it reads, and takes a list of statements that it finds for its own."""

    name = "gullible"

    def said(self, question: ChatRequest) -> str:
        read = question.text.partition("Now ")[2] or question.text.partition("现在")[2]
        orders = re.findall(r"\[\\*\[([\w ]+)\]\]", read)
        lists = re.findall(r"<\\*statement>(.*?)<\\*/statement>", read)
        match question.template:
            case "helpfulness" | "logicality" | "completeness" if orders and orders[-1].isdigit():
                return self.rating(float(orders[-1]))
            case "support" if orders:
                return f"Support: [[{orders[-1]}]]"
            case "statements" if lists:
                return f"<statement>{lists[-1]}</statement>"
        return super().said(question)


class MoodyJudge(HonestJudge):
    """Rates as it feels like."""

    name = "moody"

    def __init__(self) -> None:
        self.mood = random.Random(0)

    def rating(self, points: float) -> str:
        return super().rating(self.mood.uniform(0, 10))


def _share_of_gold(query: str, answer: str) -> float:
    case: Case = next(case for case in CASES if case.query == query)
    sentences = re.findall(r"[^.]+\.", case.gold)
    return 10 * sum(sentence.strip() in answer for sentence in sentences) / len(sentences)


def _is_statement(text: str) -> bool:
    people = {" ".join(name) for case in CASES for name in re.findall(r"([A-Z]\w+) ([A-Z]\w+)", case.context)}
    return " ".join(text.split()[:2]) in people or any(text == case.aside for case in CASES)


Opened = Callable[[JudgeConfig], Judge]


@pytest.fixture
def honest() -> Opened:
    return opened(HonestJudge)


@pytest.fixture
def gullible() -> Opened:
    return opened(GullibleJudge)


@pytest.fixture
def moody() -> Opened:
    return opened(MoodyJudge)


def opened(model: Callable[[], ChatModel]) -> Opened:
    only = model()
    return lambda config: Judge.from_model(only, config)
