"""`longreward reward-bench`: one table of all rewards, from the ledger where it can be."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from child_server import offline_judge_server

from longreward.flows.cli.main import main
from longreward.reward_bench.builtin_items import hard_lists, hard_pairs
from longreward.reward_bench.items import write_items

VARIANTS = [f"without {dimension}" for dimension in ("helpfulness", "logicality", "faithfulness", "completeness")]


@pytest.fixture
def items(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LONGREWARD_STATE", raising=False)
    write_items(Path("items.jsonl"), [*hard_pairs(1), *hard_lists(1)])
    return ["reward-bench", "--items", "items.jsonl"]


def rows(table):
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {first: rest for first, *rest in cells}


def test_table_has_row_per_reward_and_second_run_uses_ledger(items, capsys):
    assert main(items) == 0
    first = capsys.readouterr().out
    whole, groups = first.split("Share of pairs")
    assert list(rows(whole)) == ["reward", "---", "longreward", *VARIANTS, "pairwise judging", "length only"]
    assert rows(whole)["reward"] == [
        "pairs: accuracy",
        "lists: best of n",
        "all pairs in order",
        "Spearman",
        "unscored",
    ]
    # All six pairs, with the one whose right answer is bare.
    assert rows(whole)["longreward"][0].startswith("1.00 (")
    assert rows(whole)["longreward"][4] == "0 of 7"
    # The comparison of two responses does not see the question of a bare value.
    assert rows(groups)["bare"] == ["1", "1.00", "1.00", "1.00", "1.00", "1.00", "0.00", "0.00"]
    assert rows(groups)["padded, less"][-1] == "0.00"
    assert "Judge: 0 calls" not in first

    assert main(items) == 0
    again = capsys.readouterr().out
    assert again.splitlines()[:-1] == first.splitlines()[:-1]
    assert "Judge: 0 calls" in again


def test_columns_without_data_omitted(items, capsys):
    write_items(Path("items.jsonl"), [next(hard_pairs(1))])
    assert main([*items, "--no-pairwise"]) == 0
    output = capsys.readouterr().out
    assert list(rows(output)) == ["reward", "---", "longreward", *VARIANTS, "length only"]
    assert rows(output)["reward"] == ["pairs: accuracy", "all pairs in order", "unscored"]
    assert "comparisons" not in output


def test_json_output_with_any_score_strategy(items, capsys):
    assert main([*items, "--json", "-S", "score.strategy=adaptive"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["items"], result["judge"], result["srm"]) == (7, "offline-lexical-4", None)
    whole = result["agreements"][0]
    assert (whole["reward"], whole["group"]) == ("longreward", "all")
    assert whole["accuracy"]["value"] == 1.0
    spearman = whole["spearman"]
    assert (spearman["documents"], -1 <= spearman["low"] < -0.8) == (1, True)  # one document says nothing
    assert result["comparisons"] == 6 + 10


def test_reward_model_row(items, capsys, save_tiny_policy):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    save_tiny_policy(Path("model"))
    config = AutoConfig.from_pretrained("model", num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained("model")
    assert main([*items, "--srm", "model", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["srm"] == "model"
    agreement = next(row for row in result["agreements"] if (row["reward"], row["group"]) == ("srm", "all"))
    assert agreement["unscored"] == 0
    assert 0 <= agreement["pairwise"]["value"] <= 1


def test_long_rewardbench_reported_by_task(items, capsys, write_lines):
    prompt = [{"role": "user", "content": "Keld was founded by Ann Lee in 1905.\n\nWho founded Keld?"}]
    row = {"prompt_template": prompt, "chosen": "Ann Lee founded Keld.", "rejected": "Bo Ray founded Keld."}
    files = [str(write_lines(Path(f"{task}.jsonl"), [row])) for task in ("LongQA", "Summ")]
    assert main(["reward-bench", "--long-rewardbench", *files]) == 0
    output = rows(capsys.readouterr().out)
    assert (output["LongQA"][:2], output["Summ"][:2]) == (["1", "1.00"], ["1", "1.00"])


def test_empty_file_and_missing_model_are_errors(items, capsys):
    Path("no-model").mkdir()
    assert main([*items, "--srm", "no-model"]) == 1
    assert "no-model" in capsys.readouterr().err
    Path("items.jsonl").write_text("")
    assert main(items) == 1
    assert "longreward: error: items.jsonl" in capsys.readouterr().err


def test_replies_before_ctrl_c_stay_in_ledger(items, tmp_path):
    with offline_judge_server("--latency", "0.5") as url:
        judge = {"kind": "http", "base_url": url, "model": "m", "max_concurrency": "2"}
        settings = [part for name, value in judge.items() for part in ("-S", f"judge.{name}={value}")]
        command = [sys.executable, "-m", "longreward.flows.cli.main", *items, *settings]
        run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        while not exchange_count(tmp_path / ".longreward" / "ledger.sqlite"):
            assert run.poll() is None
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, output = run.communicate(timeout=20)
    assert (run.returncode, output.count("\n")) == (130, 1)
    assert output.startswith("longreward: stopped; ")
    assert 0 < exchange_count(tmp_path / ".longreward" / "ledger.sqlite") < 40  # of about 100


@pytest.mark.slow
def test_table_in_docs_is_current(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["reward-bench", "--ledger", "ledger.sqlite"]) == 0
    printed = capsys.readouterr().out.splitlines()
    page = (Path(__file__).parents[3] / "docs" / "reward-bench.md").read_text(encoding="utf-8").splitlines()
    assert len(printed) > 30
    assert [line for line in printed[1:-1] if line not in page] == []  # the last one counts calls
    assert printed[0].split()[1] == "373"


def exchange_count(ledger: Path) -> int:
    try:
        with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as store:
            return int(store.execute("select count(*) from exchanges").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # not there yet
