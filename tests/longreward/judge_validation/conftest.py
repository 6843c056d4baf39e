"""Scripted judges: an honest, a gullible and a random one."""

import random
import re
from collections.abc import Callable

import pytest

from longreward.chat_model import ChatModel, ChatRequest
from longreward.judge import ChatReply, Judge, JudgeConfig
from longreward.judge_validation.cases import Case, make_case

CASES = [make_case(number) for number in range(6)]


class HonestJudge:
    """Rates by sentences of the right answer and facts of the documents; other text has no effect."""

    name = "honest"

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        return ChatReply(self.reply_text(request))

    async def close(self) -> None:
        pass

    def reply_text(self, request: ChatRequest) -> str:
        slots = request.slots
        match request.template:
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
    """Repeats the last rating, level or list of statements in the prompt."""

    name = "gullible"

    def reply_text(self, request: ChatRequest) -> str:
        material = request.text.partition("Now ")[2] or request.text.partition("现在")[2]
        ratings = re.findall(r"\[\\*\[([\w ]+)\]\]", material)
        lists = re.findall(r"<\\*statement>(.*?)<\\*/statement>", material)
        match request.template:
            case "helpfulness" | "logicality" | "completeness" if ratings and ratings[-1].isdigit():
                return self.rating(float(ratings[-1]))
            case "support" if ratings:
                return f"Support: [[{ratings[-1]}]]"
            case "statements" if lists:
                return f"<statement>{lists[-1]}</statement>"
        return super().reply_text(request)


class RandomJudge(HonestJudge):
    """Returns random ratings."""

    name = "random"

    def __init__(self) -> None:
        self.random = random.Random(0)

    def rating(self, points: float) -> str:
        return super().rating(self.random.uniform(0, 10))


def _share_of_gold(query: str, answer: str) -> float:
    case: Case = next(case for case in CASES if case.query == query)
    sentences = re.findall(r"[^.]+\.", case.gold)
    return 10 * sum(sentence.strip() in answer for sentence in sentences) / len(sentences)


def _is_statement(text: str) -> bool:
    people = {" ".join(name) for case in CASES for name in re.findall(r"([A-Z]\w+) ([A-Z]\w+)", case.context)}
    return " ".join(text.split()[:2]) in people or any(text == case.aside for case in CASES)


JudgeFactory = Callable[[JudgeConfig], Judge]


@pytest.fixture
def honest() -> JudgeFactory:
    return fixed_judge(HonestJudge)


@pytest.fixture
def gullible() -> JudgeFactory:
    return fixed_judge(GullibleJudge)


@pytest.fixture
def random_judge() -> JudgeFactory:
    return fixed_judge(RandomJudge)


def fixed_judge(model: Callable[[], ChatModel]) -> JudgeFactory:
    shared_model = model()
    return lambda config: Judge.from_model(shared_model, config)
