"""LongBench by its authors' protocol: prompts, limits, metrics and files."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_doubles import FAST_INTERVALS, FunctionChatClient, make_answer

from longreward.benchmarks.config import BenchmarkConfig
from longreward.benchmarks.longbench.official import TOY, LongBenchOfficial
from longreward.benchmarks.suite import open_benchmark
from longreward.errors import ConfigError, DataError
from longreward.params import read_params

TEMPLATES = {
    "qasper": "Article: {context}\n\nQuestion: {input}\nAnswer:",
    "trec": "{context}\n{input}",
    "samsum": "{context}\n\n{input}",
    "lcc": "{context}Next line:\n",
    "passage_count": "{context}\nHow many?",
}
LIMITS = {"qasper": 128, "trec": 64, "samsum": 128, "lcc": 64, "passage_count": 32}


def make_row(name: str, **changed: Any) -> dict[str, Any]:
    row = {"input": "When?", "context": "One {input}.", "answers": ["In 1861."], "length": 3000, "dataset": name}
    return row | {"language": "en", "all_classes": None, "_id": "a"} | changed


def write_sets(folder: Path, **sets: list[dict[str, Any]]) -> dict[str, Path]:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, rows in sets.items():
        (folder / f"data/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    paths = {"folder": folder / "data", "templates": folder / "prompts.json", "limits": folder / "limits.json"}
    paths["templates"].write_text(json.dumps(TEMPLATES), encoding="utf-8")
    paths["limits"].write_text(json.dumps(LIMITS), encoding="utf-8")
    return paths


async def test_requests_have_limits_of_sets_and_chat_template_except_few_shot_and_code(tmp_path: Path) -> None:
    rows = {name: [make_row(name)] for name in ("qasper", "lcc")}
    rows["trec"] = [make_row("trec", all_classes=["Date", "City"], answers=["Date"])]
    paths = write_sets(tmp_path, **rows)
    client = FunctionChatClient(lambda prompt: "In 1861.")
    benchmark = LongBenchOfficial(**paths)
    await benchmark.answer(client, benchmark.cases)
    assert [(r.messages[0].content, r.max_new_tokens, r.temperature, r.chat) for r in client.requests] == [
        ("Article: One {input}.\n\nQuestion: When?\nAnswer:", 128, 0.0, True),
        ("One {input}.\nWhen?", 64, 0.0, False),
        ("One {input}.Next line:\n", 64, 0.0, False),
    ]
    assert benchmark.official
    always = LongBenchOfficial(**paths, chat_template="always", max_new_tokens=50, sets=["lcc"])
    assert [(always.request(c).chat, always.request(c).max_new_tokens) for c in always.cases] == [(True, 50)]
    assert not always.official


def test_few_shot_answer_ends_at_its_first_line(tmp_path: Path) -> None:
    rows = [make_row("samsum", answers=["Ann met Bo."])]
    benchmark = LongBenchOfficial(**write_sets(tmp_path, samsum=rows, qasper=[make_row("qasper")]))
    by_set = {case.dataset: case for case in benchmark.cases}
    answer = make_answer("samsum/1", "\nAnn met Bo.\nDialogue: more")
    assert benchmark.case_score(by_set["samsum"], answer) == pytest.approx(100.0)
    # Elsewhere all lines count: 2 of 4 words.
    assert benchmark.case_score(by_set["qasper"], make_answer("qasper/1", "In 1861.\nDialogue: more")) < 100


def test_score_is_mean_of_classes_and_files_are_those_of_published_code(tmp_path: Path) -> None:
    rows = {
        "qasper": [make_row("qasper"), make_row("qasper", answers=["Never.", "In 1861."])],
        "lcc": [make_row("lcc", answers=["x = 1"], length=9000)],
        "passage_count": [make_row("passage_count", answers=["3"])],
    }
    benchmark = LongBenchOfficial(**write_sets(tmp_path, **rows))
    texts = {"qasper/1": "Never.", "qasper/2": "In 1861.", "lcc/1": "```\nx = 1\n", "passage_count/1": "3 of 4"}
    answers = [make_answer(case.id, texts[case.id]) for case in benchmark.cases]
    values = benchmark.summarize(answers, [], FAST_INTERVALS).to_dict()
    assert {name: value for name, value in values.items() if not name.endswith("/unscored")} == {
        "longbench_official/score": pytest.approx((50 + 50 + 100) / 3),
        "longbench_official/class/single_doc_qa": 50.0,
        "longbench_official/class/synthetic": 50.0,
        "longbench_official/class/code": 100.0,
        "longbench_official/set/qasper/f1": 50.0,
        "longbench_official/set/passage_count/count": 50.0,
        "longbench_official/set/lcc/code_similarity": 100.0,
    }
    benchmark.write_files(tmp_path / "out", answers, [], model="org/model")
    folder = tmp_path / "out/longbench_official/pred/model"
    assert json.loads((folder / "result.json").read_text()) == {"qasper": 50.0, "passage_count": 50.0, "lcc": 100.0}
    [line] = (folder / "passage_count.jsonl").read_text().splitlines()
    assert json.loads(line) == {"pred": "3 of 4", "answers": ["3"], "all_classes": None, "length": 3000}


def test_longbench_e_reports_by_length(tmp_path: Path) -> None:
    rows = [make_row("qasper", length=length, answers=["yes"]) for length in (3999, 4000, 7999, 8000)]
    benchmark = LongBenchOfficial(**write_sets(tmp_path, qasper_e=rows), extended=True)
    texts = ["yes", "yes", "no", "no"]
    answers = [make_answer(case.id, text) for case, text in zip(benchmark.cases, texts, strict=True)]
    values = benchmark.summarize(answers, [], FAST_INTERVALS).to_dict()
    ranges = {name: values[f"longbench_official/length/{name}"] for name in ("0-4k", "4-8k", "8k+")}
    assert ranges == {"0-4k": 100.0, "4-8k": 50.0, "8k+": 0.0}
    benchmark.write_files(tmp_path / "out", answers, [], model="m")
    result = json.loads((tmp_path / "out/longbench_official/pred_e/m/result.json").read_text())
    assert result == {"qasper": {"0-4k": 100.0, "4-8k": 50.0, "8k+": 0.0}}


@pytest.mark.parametrize(
    ("name", "changed", "expected"),
    [
        ("trec", {}, r"trec\.jsonl, line 1: all_classes is None, expected a non-empty list of texts"),
        ("qasper", {"length": "3000"}, r"qasper\.jsonl, line 1: length is '3000', expected a whole number"),
        ("qasper", {"answers": []}, r"qasper\.jsonl, line 1: answers is \[\]"),
    ],
)
def test_malformed_record_named(tmp_path: Path, name: str, changed: dict[str, Any], expected: str) -> None:
    paths = write_sets(tmp_path, **{name: [make_row(name, **changed)]})
    with pytest.raises(DataError, match=expected):
        LongBenchOfficial(**paths)


def test_limit_of_set_missing(tmp_path: Path) -> None:
    paths = write_sets(tmp_path, qasper=[make_row("qasper")])
    paths["limits"].write_text("{}")
    with pytest.raises(DataError, match=r"limits\.json: the limit of qasper is None"):
        LongBenchOfficial(**paths)


def test_two_available_files_run_where_they_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "longbench"
    paths = write_sets(folder, qasper=[make_row("qasper")], trec=[make_row("trec", all_classes=["In 1861."])])
    (folder / "official").mkdir()
    paths["templates"].rename(folder / "official/dataset2prompt.json")
    paths["limits"].rename(folder / "official/dataset2maxlen.json")
    config = BenchmarkConfig(files=str(tmp_path))
    with pytest.raises(DataError, match=r"19 missing(.|\n)*list them in benchmark\.longbench_official\.sets"):
        open_benchmark("longbench_official", config)
    listed = config.model_copy(
        update={"longbench_official": config.longbench_official.model_copy(update={"sets": ("qasper", "trec")})}
    )
    assert [case.id for case in open_benchmark("longbench_official", listed).cases] == ["qasper/1", "trec/1"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("benchmark.longbench.sets=[trec]", "trec cannot run here"),
        ("benchmark.longbench_official={sets: [musique], extended: true}", "musique cannot run here"),
        ("benchmark.longbench_official.sets=[qaspar]", "qaspar"),
    ],
)
def test_wrong_set_refused_by_name(override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        read_params(None, [override])


def test_builtin_references_get_full_scores() -> None:
    benchmark = LongBenchOfficial()
    answers = [make_answer(case.id, case.answers[0]) for case in benchmark.cases]
    values = benchmark.summarize(answers, [], FAST_INTERVALS).to_dict()
    assert len(list(TOY.glob("*.jsonl"))) == len({case.dataset for case in benchmark.cases}) == 6
    assert values["longbench_official/score"] == pytest.approx(100.0)
    assert not benchmark.official
