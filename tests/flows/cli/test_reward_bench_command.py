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

DIMENSIONS = ("helpfulness", "logicality", "faithfulness", "completeness")
VARIANTS = [f"without {dimension}" for dimension in DIMENSIONS] + [f"{dimension} only" for dimension in DIMENSIONS]


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
    assert rows(groups)["bare"][:6] == ["1", "1.00", "1.00", "1.00", "1.00", "1.00"]
    assert rows(groups)["bare"][-2:] == ["0.00", "0.00"]
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
    assert (result["items"], result["judge"], result["reward_model"]) == (7, "offline-lexical-5", None)
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
    assert main([*items, "--reward-model", "model", "--no-judge", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["reward_model"], result["judge"], result["comparisons"]) == ("model", None, 0)
    assert {row["reward"] for row in result["agreements"]} == {"reward model", "length only"}
    agreement = next(row for row in result["agreements"] if (row["reward"], row["group"]) == ("reward model", "all"))
    assert agreement["unscored"] == 0
    assert 0 <= agreement["pairwise"]["value"] <= 1


def test_long_rewardbench_reported_by_task(items, capsys, write_lines):
    prompt = [{"role": "user", "content": "Keld was founded by Ann Lee in 1905.\n\nWho founded Keld?"}]
    row = {"id": 1, "prompt_template": prompt, "chosen": "Ann Lee founded Keld.", "rejected": "Bo Ray founded Keld."}
    files = [str(write_lines(Path(f"{task}.jsonl"), [row])) for task in ("LongQA", "Summ")]
    assert main(["reward-bench", "--items", *files]) == 0
    whole, groups = capsys.readouterr().out.split("Share of pairs")
    assert "Measures of long-rewardbench" in whole
    assert rows(whole)["longreward"] == ["1.000", "1.000"]  # PairWise, all
    assert (rows(groups)["LongQA"][:2], rows(groups)["Summ"][:2]) == (["1", "1.00"], ["1", "1.00"])


def test_set_without_documents_with_bad_rows(items, capsys, write_lines):
    row = {"subset": "Factuality", "prompt": "What is the capital of France?", "num_correct": 1}
    answers = {"chosen": ["The capital of France is Paris."], "rejected": ["Rome.", "Oslo.", "Bern."]}
    write_lines(Path("rb2.jsonl"), [{"id": "0", **row, **answers}, {"id": "1", **row, "chosen": [], "rejected": ["a"]}])
    assert main(["reward-bench", "--items", "rb2.jsonl"]) == 0
    output = capsys.readouterr()
    assert "1 of 2 rows are left out (1 bad, 0 repeated). The first:\n  rb2.jsonl, line 2: chosen is []" in output.err
    assert "1 of 1 items have no context" in output.out
    assert "Measures of rewardbench-2:\n\n| reward | Factuality | mean |" in output.out
    assert list(rows(output.out))[2:] == [
        "longreward", "helpfulness only", "logicality only", "pairwise judging", "length only"
    ]  # fmt: skip

    assert main(["reward-bench", "--items", "rb2.jsonl", "--json", "--no-pairwise"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["without_context"], result["rejected"][0]["line"]) == (1, 2)
    assert result["published"]["rewardbench-2"].keys() == {
        "longreward", "helpfulness only", "logicality only", "length only"
    }  # fmt: skip


def test_limit_and_columns(items, capsys, write_lines):
    write_lines(Path("pairs.jsonl"), [{"q": f"What is {n}?", "good": "a", "bad": "b"} for n in range(9)])
    columns = ["--column", "prompt=q", "--column", "chosen=good", "--column", "rejected=bad"]
    assert main(["reward-bench", "--items", "pairs.jsonl", *columns, "--limit", "4", "--no-judge"]) == 0
    assert capsys.readouterr().out.startswith("# 4 labelled items: no judge and no reward model\n")


def test_plan_shown_before_paid_requests_and_alone_with_dry_run(items, capsys):
    settings = ["-S", "judge.kind=openai", "-S", "judge.model=gpt-x"]
    settings += ["-S", "prices.models={gpt-x: {prompt: 2, completion: 8}}"]
    assert main([*items, *settings, "--dry-run"]) == 0  # without a key: nothing is sent
    output = capsys.readouterr().out
    assert "score: 7 prompts, 17 responses" in " ".join(output.split())
    # 6 pairs and a list of five, whose first two texts differ: 2 × 6 + 5 × 4.
    assert "pairwise judging makes at most 32 further requests" in " ".join(output.split())
    with offline_judge_server() as url:
        judge = ["-S", "judge.kind=http", "-S", f"judge.base_url={url}", "-S", "judge.model=m"]
        assert main([*items, *judge, "--no-pairwise"]) == 0
    assert capsys.readouterr().err.startswith("scoring needs 54 (42–78) calls, ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "judgebnch"], "unknown --format value 'judgebnch'; did you mean judgebench?"),
        (["--column", "promt=q"], "unknown --column field 'promt'; did you mean prompt?"),
        (["--column", "prompt"], "--column is 'prompt', expected FIELD=COLUMN"),
    ],
)
def test_wrong_options_are_errors(items, capsys, arguments, message):
    assert main([*items, *arguments]) in (1, 2)
    assert message in capsys.readouterr().err
    assert main(["reward-bench", "--format", "pairs"]) in (1, 2)
    assert "name them with --items" in capsys.readouterr().err


def test_empty_file_and_missing_model_are_errors(items, capsys):
    Path("no-model").mkdir()
    assert main([*items, "--reward-model", "no-model"]) == 1
    assert "error: --reward-model: no-model" in capsys.readouterr().err
    assert main([*items, "--reward-model", "-S", "pair.srm.model=no-model"]) == 1
    assert "error: pair.srm.model: no-model" in capsys.readouterr().err
    Path("items.jsonl").write_text("")
    assert main(items) == 1
    assert "items.jsonl is empty" in capsys.readouterr().err


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
    plan, stopped = output.splitlines()
    assert (run.returncode, plan.startswith("scoring needs ")) == (130, True)
    assert stopped.startswith("longreward: stopped; ")
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
