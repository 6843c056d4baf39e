"""The Python examples of each page run, in order and in one namespace, with a tiny policy and the offline judge."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import PAGES, ROOT, code_blocks, page_name

from longreward.benchmarks.mt_bench.judge import SLOTS
from longreward.benchmarks.types import TOY_DATA

PYTHON = {page_name(page): [b.text for b in code_blocks(page) if b.language == "python"] for page in PAGES}
PYTHON = {name: blocks for name, blocks in PYTHON.items() if blocks}
REPORT = "The new harbour opened in 1931. It cost 40 million. The council paid for it."
# What the test replaces in an example: a judge that needs a key, and settings for a GPU.
REPLACED = {
    "SampleConfig(n=8)": "SampleConfig(n=8, max_new_tokens=8)",
    'JudgeConfig(kind="openai", model="gpt-4o-2024-05-13")': "JudgeConfig()",
    'GRPOConfig(output_dir="models/grpo",': (
        'GRPOConfig(output_dir="models/grpo", max_completion_length=8, max_steps=1, bf16=False,'
    ),
    'DPOConfig(output_dir="models/dpo",': 'DPOConfig(output_dir="models/dpo", max_steps=1, bf16=False,',
}


def write_rows(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def run_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_classifier: Callable[..., Path]
) -> Callable[[str], dict[str, Any]]:
    """Return a function that runs the examples of a page, where a report and models exist, and returns the names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.txt").write_text(REPORT, encoding="utf-8")
    for name in ("sft", "dpo"):
        shutil.copytree(ROOT / "models" / "tiny-base", tmp_path / "models" / name)
    save_classifier(tmp_path / "models" / "reward")

    def run(name: str) -> dict[str, Any]:
        names: dict[str, Any] = {}
        for text in PYTHON[name]:
            for original, replacement in REPLACED.items():
                text = text.replace(original, replacement)
            exec(compile(text, name, "exec"), names)
        return names

    return run


def test_every_page_with_python_is_tested() -> None:
    tested = {"README.md", "docs/reward.md", "docs/online.md", "docs/training.md", "docs/mt-bench.md"}
    assert set(PYTHON) == tested | {"docs/reference/longreward.md", "docs/integrations.md"}


def test_readme(run_page: Callable[[str], dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    run_page("README.md")
    reward, support = map(float, capsys.readouterr().out.split())
    assert 0 < reward < 10
    assert support < 1  # the year is wrong


def test_imports_of_reference(run_page: Callable[[str], dict[str, Any]]) -> None:
    assert {"LongReward", "OnlineReward", "abest_of_n", "best_of_n"} <= set(run_page("docs/reference/longreward.md"))


def test_reward(run_page: Callable[[str], dict[str, Any]]) -> None:
    scored = run_page("docs/reward.md")["scored"]
    assert [statement.support for statement in scored.verdicts["faithfulness"].statements] == [1.0]


def test_best_of_n_and_grpo(run_page: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    write_rows(
        tmp_path / "data" / "prepared" / "preference.jsonl",
        *({"idx": n, "query": "What did it cost?", "context": REPORT} for n in range(2)),
    )
    names = run_page("docs/online.md")
    assert names["best"].response.number in range(8)  # of the eight samples of the second example
    assert names["trainer"].state.global_step == 1
    assert (tmp_path / ".longreward" / "ledger.sqlite").is_file()


def test_genai_evaluate(
    run_page: Callable[[str], dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow  # late: the other pages do not need it

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    mlflow.set_experiment("examples")
    try:
        names = run_page("docs/integrations.md")
    finally:
        mlflow.set_tracking_uri(before)
    assert names["result"].metrics["faithfulness/mean"] == 0.0  # the year is wrong
    assert "\n0.0\n" in capsys.readouterr().out


def test_shared_prefix(run_page: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    pair = {"prompt": f"{REPORT} What did it cost?", "chosen": " It cost 40 million.", "rejected": " Nobody knows."}
    write_rows(tmp_path / "pairs.jsonl", pair, pair)
    trainer = run_page("docs/training.md")["trainer"]
    assert trainer.state.global_step == 1


def test_mt_bench(
    run_page: Callable[[str], dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data" / "mt_bench"
    builtin = TOY_DATA / "mt_bench"
    (data / "model_answer").mkdir(parents=True)
    (data / "reference_answer").mkdir()
    shutil.copy(builtin / "question.jsonl", data)
    shutil.copy(builtin / "reference_answer" / "reference.jsonl", data / "reference_answer" / "gpt-4.jsonl")
    for name in ("gpt-3.5-turbo", "vicuna-13b-v1.3"):
        shutil.copy(builtin / "model_answer" / "plain.jsonl", data / "model_answer" / f"{name}.jsonl")
    prompts = [
        {
            "name": name,
            "output_format": "[[rating]]" if name.startswith("single") else "[[A]]",
            "system_prompt": "",
            "prompt_template": " ".join(f"{{{slot}}}" for slot in slots),
        }
        for name, slots in SLOTS.items()
    ]
    write_rows(tmp_path / "data" / "judge_prompts.jsonl", *prompts)
    row = {"question_id": 1, "model": "vicuna-13b-v1.3", "judge": ["gpt-4", "single-v1"], "user_prompt": "?"}
    ratings = ((1, 8), (2, 5))
    rows = [row | {"judgment": f"[[{score}]]", "score": score, "turn": turn, "tstamp": 1.0} for turn, score in ratings]
    write_rows(data / "model_judgment" / "gpt-4_single.jsonl", *rows)
    run_page("docs/mt-bench.md")
    assert "6.5" in capsys.readouterr().out
