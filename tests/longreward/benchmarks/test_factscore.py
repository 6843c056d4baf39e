"""FactScore: parsing of facts and verdicts, and the mean over answers."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from longreward.benchmarks.factscore import (
    FactScore,
    PassageRetriever,
    parse_facts,
    parse_published_verdict,
    parse_strict_verdict,
)
from longreward.benchmarks.types import (
    Answer,
    Completion,
    GenerationRequest,
    OnProgress,
    ignore_progress,
)
from longreward.errors import DataError
from longreward.evaluation.statistics import IntervalOptions
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig, open_judge
from longreward.judge.prompts import Parsing

FAST_INTERVALS = IntervalOptions(resamples=10)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("- Keld is a village.\n- Keld lies on the Tarn.", ("Keld is a village.", "Keld lies on the Tarn.")),
        ("Here they are:\n* One - and two.\n2. Three.", ("One - and two.", "Three.")),
        ("- Same.\n- Same.", ("Same.",)),
        ("No fact.", ()),
        ("- No facts", ()),
        ("- ---\n- Keld.", ("Keld.",)),
        ("Keld is a village.", None),
        ("", None),
    ],
)
def test_parse_facts(text: str, facts: tuple[str, ...] | None) -> None:
    assert parse_facts(text) == facts


@pytest.mark.parametrize(
    ("text", "exact", "strict"),
    [
        ("True", 1.0, 1.0),
        ("false.", 0.0, 0.0),
        ("**True** as passage 2 says", 1.0, 1.0),
        ("True, though one might say False", 0.0, 1.0),  # the published code prefers the last one
        ("It is true.", 1.0, None),
        ("The passages agree.", 1.0, None),  # neither, and none of its four words
        ("There is no information on it.", 0.0, None),
        ("That can not be known.", 0.0, None),
        ("It is unknowable.", 1.0, None),  # whole words only
    ],
)
def test_parse_exact_and_strict_verdict(text: str, exact: float, strict: float | None) -> None:
    assert parse_published_verdict(text) == exact
    assert parse_strict_verdict(text) == strict


async def test_passages_numbered_in_text_order() -> None:
    text = "Keld has a mill. Tarn has a bridge. Solby has a tower. Marwick has a port. "
    knowledge = PassageRetriever(text, passage_tokens=5, top_k=2)
    (passages,) = await knowledge.search(["The tower of Solby and the mill of Keld."])
    assert passages == "Passage 1:\nKeld has a mill.\n\nPassage 2:\nSolby has a tower."


class TableModel:
    """A ChatModel with a reply for each sentence and each fact."""

    name = "scripted"

    def __init__(self, facts: dict[str, str], verdicts: dict[str, str]) -> None:
        self.facts, self.verdicts = facts, verdicts
        self.requests: list[ChatRequest] = []

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.requests.append(request)
        if request.template == "factscore/facts":
            return ChatReply(self.facts[request.slots["sentence"]])
        return ChatReply(self.verdicts[request.slots["fact"]])

    async def close(self) -> None:
        pass


def make_answer(case: str, text: str) -> Answer:
    return Answer(case, (text,), (5,), ("stop",), (100,), prompt_truncated=False, created=0.0)


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    context = "Mara Voss was born in Kelden in 1871. She built the mill of Tarn. Ivo Lang was her friend."
    rows = [f'{{"idx": {n}, "context": "{context}", "query": "Who was Mara Voss?"}}\n' for n in (1, 2, 3)]
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(rows))
    return path


@pytest.mark.parametrize(("parsing", "unclear", "first_score"), [("strict", None, 1 / 2), ("published", 1.0, 2 / 3)])
async def test_score_is_mean_supported_share_of_answers(
    cases: Path, parsing: Parsing, unclear: float | None, first_score: float
) -> None:
    benchmark = FactScore(cases=cases, parsing=parsing)
    model = TableModel(
        {
            "Mara Voss was born in Kelden in 1871.": "- Mara Voss was born in Kelden.\n- Mara Voss was born in 1871.",
            "She built a bridge.": "- Mara Voss built a bridge.",
            "Ivo Lang was her friend.": "- Ivo Lang was a friend of Mara Voss.",
            "I do not know.": "No fact.",
        },
        {
            "Mara Voss was born in Kelden.": "True",
            "Mara Voss was born in 1871.": "Perhaps: the passages agree.",
            "Mara Voss built a bridge.": "False",
            "Ivo Lang was a friend of Mara Voss.": "True",
        },
    )
    answers = [
        make_answer("1", "Mara Voss was born in Kelden in 1871. She built a bridge."),
        make_answer("2", "Ivo Lang was her friend."),
        make_answer("3", "I do not know."),
    ]
    judge = Judge.from_model(model, JudgeConfig(max_attempts=1))
    verdicts = await benchmark.judge(
        judge, list(zip(benchmark.cases, answers, strict=True)), on_progress=lambda count: None
    )
    assert [(v.part, v.value) for v in verdicts[0]] == [
        ("sentence 1, fact 1", 1.0),
        ("sentence 1, fact 2", unclear),
        ("sentence 2, fact 1", 0.0),
    ]
    reason = "the reply starts with neither True nor False" if unclear is None else None
    assert verdicts[0][1].reason == reason
    assert verdicts[2] == ()
    (pronoun,) = [request for request in model.requests if request.slots.get("sentence") == "She built a bridge."]
    assert pronoun.slots["before"] == "Mara Voss was born in Kelden in 1871."

    flat = [verdict for of_answer in verdicts for verdict in of_answer]
    metrics = benchmark.summarize(answers, flat, FAST_INTERVALS).to_dict()
    assert metrics["factscore/init_score"] == pytest.approx(100 * (first_score + 1) / 2)
    # FactScore's penalty, exp(1 - 10 / facts), of answers with 3 facts and 1 fact.
    penalized = first_score * math.exp(1 - 10 / 3) + math.exp(1 - 10)
    assert metrics["factscore/score"] == pytest.approx(100 * penalized / 2)
    assert metrics["factscore/score/unscored"] == (unclear is None)
    assert metrics["factscore/facts"] == 2  # (3 + 1) / 2: the third answer has no facts and is excluded
    assert metrics["factscore/respond_ratio"] == pytest.approx(200 / 3)


async def test_abstention_has_no_facts_and_costs_no_request(cases: Path) -> None:
    benchmark = FactScore(cases=cases, abstention="generic")
    model = TableModel({"Mara built it.": "- Mara built it."}, {"Mara built it.": "True"})
    answers = [
        make_answer("1", "I'm sorry, but I cannot tell."),
        make_answer("2", "Please provide more of the text."),
        make_answer("3", "Mara built it."),
    ]
    judge = Judge.from_model(model, JudgeConfig(max_attempts=1))
    verdicts = await benchmark.judge(judge, list(zip(benchmark.cases, answers, strict=True)))
    assert [len(of_answer) for of_answer in verdicts] == [0, 0, 1]
    assert len(model.requests) == 2
    metrics = benchmark.summarize(answers, [*verdicts[2]], FAST_INTERVALS).to_dict()
    assert metrics["factscore/init_score"] == 100.0
    assert metrics["factscore/respond_ratio"] == pytest.approx(100 / 3)


async def test_sentences_with_unreadable_facts_counted(cases: Path) -> None:
    benchmark = FactScore(cases=cases)
    judge = Judge.from_model(TableModel({"Mara built it.": "I would rather not."}, {}), JudgeConfig(max_attempts=2))
    answers = [make_answer("1", "Mara built it.")]
    ((verdict,),) = await benchmark.judge(judge, [(benchmark.cases[0], answers[0])], on_progress=lambda count: None)
    assert (verdict.part, verdict.value) == ("sentence 1", None)
    assert verdict.reason is not None
    assert verdict.reason.startswith("no readable answer in 2 attempts")
    metrics = benchmark.summarize(answers, [verdict], FAST_INTERVALS).to_dict()
    assert metrics["factscore/score/unscored"] == 1
    assert "factscore/score" not in metrics


async def test_offline_judge_separates_true_from_false_answers() -> None:
    benchmark = FactScore()
    wrong = [f"{case.query.split()[0]} Mara Voss was born in Nowhere in 1700." for case in benchmark.cases]
    golds = gold_answers()
    scores = []
    async with open_judge(JudgeConfig(), ledger=None) as judge:
        for texts in (golds, wrong):
            answers = [make_answer(case.id, text) for case, text in zip(benchmark.cases, texts, strict=True)]
            verdicts = await benchmark.judge(
                judge, list(zip(benchmark.cases, answers, strict=True)), on_progress=lambda count: None
            )
            summary = benchmark.summarize(
                answers, [verdict for of_answer in verdicts for verdict in of_answer], FAST_INTERVALS
            )
            scores.append(summary.to_dict()["factscore/init_score"])
    assert scores[0] > 80
    assert scores[1] < 20


def gold_answers() -> list[str]:
    folder = Path(__file__).parents[3] / "longreward/builtin/benchmarks/factscore/cases.jsonl"
    return [json.loads(line)["answer"] for line in folder.read_text().splitlines()]


async def test_model_request_equals_longbench_chat() -> None:
    class Saying:
        name = "tiny"
        asks: Sequence[GenerationRequest] = ()

        async def generate(
            self, asks: Sequence[GenerationRequest], *, on_progress: OnProgress = ignore_progress
        ) -> list[Completion]:
            self.asks = asks
            return [Completion("x", 1, "stop", 7) for _ in asks]

    client, benchmark = Saying(), FactScore()
    answers = await benchmark.answer(client, benchmark.cases[:2], on_progress=lambda count: None)
    assert [answer.case_id for answer in answers] == ["1", "2"]
    first, case = client.asks[0], benchmark.cases[0]
    assert first.messages[0].content == f"{case.context}\n\n{case.query}"
    assert (first.temperature, first.max_new_tokens, first.max_prompt_tokens, first.seed) == (1.0, 1024, 64_000, 42)


def test_malformed_rows_reported_with_line(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    for row, reason in (
        ('{"idx": 1, "context": "c"}', "line 1: query is None"),
        ('{"context": "c", "query": "q"}', "line 1: idx is None"),
        ('{"idx": 1, "context": "c", "query": "q"}\n' * 2, "duplicate idx '1'"),
    ):
        path.write_text(row)
        with pytest.raises(DataError, match=reason):
            FactScore(cases=path)
