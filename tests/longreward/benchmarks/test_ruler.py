"""RULER: generated cases, their lengths, scores, and the effective length."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from benchmark_doubles import FAST_INTERVALS, make_answer

from longreward.benchmarks.chat_clients import PromptFitter
from longreward.benchmarks.plots import length_points, score_points
from longreward.benchmarks.report import BenchmarkReport, BenchmarkResult
from longreward.benchmarks.ruler.benchmark import Ruler, effective_length
from longreward.benchmarks.ruler.generator import CaseGenerator
from longreward.benchmarks.ruler.tasks import TaskName, match_score
from longreward.benchmarks.ruler.texts import read_texts
from longreward.benchmarks.suite import open_benchmark
from longreward.benchmarks.types import Completion, GenerationRequest, Summary
from longreward.errors import ConfigError, DataError
from longreward.evaluation.statistics import Estimate
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_tokenizer
from longreward.params import read_params

SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": f"Article {article}, paragraph {number}. It was built in 18{article}{number}.",
                    "qas": [
                        {
                            "question": f"When was {article}.{number} built?",
                            "answers": [{"text": f"18{article}{number}"}, {"text": f"in 18{article}{number}"}],
                            "is_impossible": number == 0,
                        }
                    ],
                }
                for number in range(4)
            ]
        }
        for article in range(5)
    ]
}
HOTPOTQA = [
    {
        "question": f"Who built tower {number}?",
        "answer": f"Ann {number}",
        "context": [[f"Tower {number}", ["It is tall.", f" Ann {number} built it."]], ["Mill", ["It is old."]]],
    }
    for number in range(3)
]


class CountingClient:
    """A ChatClient with the tokenizer of the tiny base that returns a constant answer."""

    name = "tiny"

    def __init__(self, folder: Path, window: int = 4096) -> None:
        encoder = load_tokenizer(PolicyConfig(base_model=str(folder)), folder)
        self.window = window
        self.requests: list[GenerationRequest] = []
        self._fit = PromptFitter(encoder, window)

    def count_tokens(self, request: GenerationRequest) -> int:
        return self._fit.count_tokens(request)

    async def generate(self, requests: Sequence[GenerationRequest], **_: object) -> list[Completion]:
        self.requests += requests
        return [Completion("none", 1, "stop", self.count_tokens(request)) for request in requests]


@pytest.fixture(scope="module")
def qa_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ruler")
    files = {"squad": folder / "squad.json", "hotpotqa": folder / "hotpotqa.json"}
    files["squad"].write_text(json.dumps(SQUAD))
    files["hotpotqa"].write_text(json.dumps(HOTPOTQA))
    return files


@pytest.fixture(scope="module")
def generator(qa_files: dict[str, Path]) -> CaseGenerator:
    return CaseGenerator(read_texts(qa_files), seed=42)


async def test_prompts_are_as_long_as_their_length_allows(tiny_policy: Path, qa_files: dict[str, Path]) -> None:
    client = CountingClient(tiny_policy)
    benchmark = Ruler(lengths=[1024, 2048], cases=2, **qa_files)
    answers = await benchmark.answer(client, benchmark.cases)
    assert len(answers) == 13 * 2 * 2
    for case, request, answer in zip(benchmark.cases, client.requests, answers, strict=True):
        unused = case.length - answer.prompt_tokens[0] - request.max_new_tokens
        # The largest unit is one document, or one repetition of the noise sentences.
        assert 0 <= unused < 60, case.id


def test_references_do_not_depend_on_size(generator: CaseGenerator) -> None:
    for task in get_args(TaskName):
        case = generator.build_case(task, 1024, 1)
        small = generator.minimum_size(case)
        assert {generator.sample(case, size).references for size in (small, small + 7, 10 * small)} == {case.references}
        assert generator.build_case(task, 1024, 2).references != case.references


@pytest.mark.parametrize(
    ("task", "references", "needles"),
    [
        ("niah_single_1", 1, 1),
        ("niah_single_2", 1, 1),
        ("niah_single_3", 1, 1),
        ("niah_multikey_1", 1, 4),
        ("niah_multikey_2", 1, 41),
        ("niah_multikey_3", 1, 41),
        ("niah_multivalue", 4, 4),
        ("niah_multiquery", 4, 4),
    ],
)
def test_needles(generator: CaseGenerator, task: TaskName, references: int, needles: int) -> None:
    case = generator.build_case(task, 1024, 1)
    prompt = generator.sample(case, 40).prompt
    values = re.findall(r"One of the secret (\w+) of (\S+) is (\S+)\.", prompt)
    assert len(case.references) == references
    assert len(values) == needles
    kind = "uuids" if task in ("niah_single_3", "niah_multikey_3") else "numbers"
    assert {row[0] for row in values} == {kind}
    # The question names exactly the keys whose values are the references.
    question = prompt.rsplit("\n", 1)[1]
    keys = {key: [value for _, other, value in values if other == key] for _, key, _ in values}
    asked = [value for key in keys if key in question for value in keys[key]]
    assert sorted(asked) == sorted(case.references)
    assert ("What are all the secret numbers of" in question) == (references > 1)


def test_chain_of_assignments_leads_to_all_references(generator: CaseGenerator) -> None:
    case = generator.build_case("vt", 1024, 1)
    sample = generator.sample(case, 30)
    example, question = sample.prompt.split("\n\nThe text below")
    for text, references in ((question, case.references), (example, re.findall(r"[A-Z]{3}\b", example)[-5:])):
        value = re.search(r"have the value (\d{5})", text)[1]
        assigned = dict(re.findall(r"VAR ([A-Z]+) = (?:VAR )?(\w+)", text))
        assert len(assigned) == 5
        chain = [next(name for name, source in assigned.items() if source == value)]
        while following := [name for name, source in assigned.items() if source == chain[-1]]:
            chain += following
        assert chain == [*references]
    assert sample.answer_prefix.endswith("5 variables have the value " + value_of(question) + ": ")


def value_of(question: str) -> str:
    return re.search(r"have the value (\d{5})", question)[1]


@pytest.mark.parametrize(("length", "common", "uncommon"), [(2048, 6, 1), (4096, 30, 3)])
def test_common_words_are_repeated_more_often(
    generator: CaseGenerator, length: int, common: int, uncommon: int
) -> None:
    case = generator.build_case("cwe", length, 1)
    question = generator.sample(case, 50).prompt.split("This numbered list")[2]
    counts = Counter(re.findall(r"\d+\. ([\w-]+)", question))
    assert counts == {**dict.fromkeys(counts, uncommon), **dict.fromkeys(case.references, common)}
    assert len(counts) == 50


def test_list_of_more_words_than_first_vocabulary_uses_second(generator: CaseGenerator) -> None:
    case = generator.build_case("cwe", 4096, 1)
    words = len(generator.texts.words)
    assert len(set(re.findall(r"\d+\. (\w+)", generator.sample(case, words + 5).prompt))) > words


def test_most_frequent_coded_words(generator: CaseGenerator) -> None:
    case = generator.build_case("fwe", 2048, 1)
    counts = Counter(re.findall(r"\b[a-z]{6}\b", generator.sample(case, 400).prompt.split("\n")[0]))
    # 400 / rank ** 2 / zeta(2), rounded down; the most frequent is noise.
    assert counts.most_common(3) == [(word, count) for word, count in zip(case.references, (60, 27, 15), strict=True)]


def test_documents_of_question_come_with_distractors(generator: CaseGenerator) -> None:
    case = generator.build_case("qa_1", 1024, 1)
    assert case.references == ("1801", "in 1801")  # the first question can not be answered
    few = re.findall(r"Article (\d)", generator.sample(case, 3).prompt)
    assert few == ["0", "0", "0"]  # other paragraphs of the same article come first
    many = re.findall(r"Article (\d), paragraph (\d)", generator.sample(case, 20).prompt)
    assert len({*many}) == 20
    assert "Document 25:" in generator.sample(case, 25).prompt  # repeated, since there are 20
    hotpot = generator.build_case("qa_2", 1024, 2)
    assert hotpot.references == ("Ann 1",)
    assert {"Tower 1\nIt is tall. Ann 1 built it.", "Mill\nIt is old."} == {
        *re.findall(r"Document \d:\n(.*\n.*)", generator.sample(hotpot, 2).prompt)
    }


@pytest.mark.parametrize(
    ("task", "answer", "references", "score"),
    [
        ("niah_single_1", "It is 1234567.", ["1234567"], 1.0),
        ("niah_multivalue", "1234567 and 7654321", ["1234567", "2222222", "7654321", "1111111"], 0.5),
        ("vt", "abcde", ["ABCDE", "FGHIJ"], 0.5),
        ("cwe", "", ["one"] * 10, 0.0),
        ("qa_1", "in March 1861", ["1861", "the year 1861"], 1.0),
        ("qa_2", "never", ["yes"], 0.0),
    ],
)
def test_match_score(task: TaskName, answer: str, references: list[str], score: float) -> None:
    assert match_score(task, answer, references) == score


def summarize(scores: dict[int, float]) -> Summary:
    """Return the summary of one task whose answers contain this share of four references at each length."""
    benchmark = Ruler(tasks=["niah_multivalue"], lengths=[*scores], cases=2)
    answers = [
        make_answer(case.id, " ".join(case.references[: round(4 * scores[case.length])])) for case in benchmark.cases
    ]
    return benchmark.summarize(answers, [], FAST_INTERVALS)


def test_scores_by_length_and_effective_length() -> None:
    summary = summarize({512: 1.0, 1024: 1.0, 2048: 0.5, 4096: 1.0})
    values = {name: value for name, value in summary.to_dict().items() if not name.endswith("/unscored")}
    assert values == {
        "ruler/score": 87.5,
        "ruler/effective_length": 1024.0,  # 4,096 tokens do not count after a failure at 2,048
        "ruler/length/512": 100.0,
        "ruler/length/1024": 100.0,
        "ruler/length/2048": 50.0,
        "ruler/length/4096": 100.0,
        "ruler/task/niah_multivalue": 87.5,
    }
    assert summary.curve == ((512, 100.0), (1024, 100.0), (2048, 50.0), (4096, 100.0))


def test_effective_length_needs_threshold_at_every_shorter_length() -> None:
    curve = [(4096, Estimate(90.0, 85.0, 95.0, 3)), (8192, Estimate(85.6, 80.0, 90.0, 3))]
    assert effective_length(curve, 85.6) == Estimate(8192.0, 0.0, 8192.0, 2)
    assert effective_length(curve, 90.1).value == 0.0


def test_plots_show_curve_without_effective_length() -> None:
    summary = summarize({512: 1.0, 1024: 0.5})
    report = BenchmarkReport([BenchmarkResult("ruler", {"sft": summary}, 100.0, official=False)], FAST_INTERVALS)
    assert length_points(report) == [
        {"benchmark": "ruler", "model": "SFT", "tokens": 512, "score": 100.0},
        {"benchmark": "ruler", "model": "SFT", "tokens": 1024, "score": 50.0},
    ]
    assert [point["bar"] for point in score_points(report)] == [
        "ruler score SFT",
        "ruler length/512 SFT",
        "ruler length/1024 SFT",
        "ruler task/niah_multivalue SFT",
    ]


async def test_length_beyond_window_or_too_short_for_task(tiny_policy: Path) -> None:
    client = CountingClient(tiny_policy, window=512)
    benchmark = Ruler(tasks=["niah_single_2"], lengths=[1024], cases=1)
    with pytest.raises(ConfigError, match="1,024 tokens are more than the model's window of 512"):
        await benchmark.answer(client, benchmark.cases)
    benchmark = Ruler(tasks=["vt"], lengths=[256], cases=1)
    with pytest.raises(DataError, match=r"256 tokens are \d+ too few for the shortest context of vt/256/1"):
        await benchmark.answer(client, benchmark.cases)


def test_questions_only_with_their_files(qa_files: dict[str, Path]) -> None:
    assert len(Ruler(lengths=[1024], cases=1).cases) == 11
    assert len(Ruler(lengths=[1024], cases=1, squad=qa_files["squad"]).cases) == 12
    with pytest.raises(DataError, match=r"qa_2 needs .*longreward benchmarks fetch --only ruler"):
        Ruler(tasks=["qa_2"], lengths=[1024], cases=1, squad=qa_files["squad"])
    with pytest.raises(DataError, match="qa_2 has only 3 questions"):
        Ruler(tasks=["qa_2"], lengths=[1024], cases=4, hotpotqa=qa_files["hotpotqa"])


def test_published_texts_replace_builtin_ones(tmp_path: Path) -> None:
    folder = tmp_path / "ruler"
    folder.mkdir()
    tasks = {
        "niah": "Some {type_needle_v}: {context} What are all {type_needle_v} for {query}?",
        "variable_tracking": "Track {context} {query}",
        "common_words_extraction": "Words {context}",
        "freq_words_extraction": "Coded {context}",
        "qa": "{context} {query}",
    }
    templates = {name: {"template": text, "answer_prefix": " It is"} for name, text in tasks.items()}
    (folder / "constants.py").write_text(f"import os\nTASKS = {templates!r}\n")
    noise = 'if x == 1:\n    haystack = open(y)\nelif x == 2:\n    haystack = "Noise."\n'
    code = 'needle = "A {type_needle_v}: {key} {value}."\n' + noise
    (folder / "niah.py").write_text(code)
    for name, word in (("nounlist", "mill\nbarn\n"), ("adjectivelist", "old\n"), ("verblist", "go\n\nsee\n")):
        (folder / f"{name}.txt").write_text(word)
    (folder / "PaulGrahamEssays.json").write_text('{"text": "One. Two.\\nThree."}')
    params = read_params(
        None, [f"benchmark.files={tmp_path}", "benchmark.ruler.tasks=[niah_single_1]", "benchmark.ruler.cases=1"]
    )
    benchmark = open_benchmark("ruler", params.benchmark)
    case = benchmark.cases[0]
    prompt = benchmark.case_text(case)
    key = re.search(r"for (old-(?:mill|barn))\?", prompt)[1]
    assert prompt == f"A number: A numbers: {key} {case.references[0]}.\nNoise. What is number for {key}?"
    assert not benchmark.official  # english_words.json and others are missing
    (folder / "constants.py").write_text("TASKS = {}\n")
    with pytest.raises(DataError, match=r"constants\.py does not have the published format \(KeyError: 'niah'\)"):
        open_benchmark("ruler", params.benchmark)
