"""`longreward score` and properties of the command line: output, errors, imports, interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from chat_server import chat_server
from child_server import offline_judge_server, server_stats

from longreward.flows.cli.score import without_verdict
from longreward.judge.ledger import Ledger

CONTEXT = "Keld was founded in 1905 by Ann Lee. It has a stone bridge. The market opened in 1931."


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "LONGREWARD_STATE"}
    command = [sys.executable, "-m", "longreward.flows.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    example = {"idx": 1, "query": "Who founded Keld, and when?", "answer": "Ann Lee.", "context": CONTEXT}
    (tmp_path / "sft.jsonl").write_text(json.dumps(example) + "\n")
    texts = ["Keld was founded by Ann Lee in 1905.", "Keld was founded by Tom Ray in 1777.", "I cannot say."]
    rows = [{"idx": f"1-{n}", "query": example["query"], "answer": text} for n, text in enumerate(texts)]
    (tmp_path / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "utf16.txt").write_text(CONTEXT, encoding="utf-16")
    return tmp_path


FILES = ("score", "--data", "sft.jsonl", "--responses", "responses.jsonl", "--out", "out/scored.jsonl")


def test_score_writes_published_format(cli: Any, files: Path) -> None:
    result = cli(files, *FILES)
    assert result.returncode == 0, result.stderr
    scored = [json.loads(line) for line in (files / "out" / "scored.jsonl").read_text().splitlines()]
    assert [row["idx"] for row in scored] == ["1-0", "1-1"]
    assert scored[0]["scores"]["total"] > scored[1]["scores"]["total"]
    assert scored[0]["scores"]["faithfulness"] == 10
    assert scored[0]["settings"]["evidence_chunk_tokens"] == 128
    (unscored,) = [json.loads(line) for line in (files / "out" / "scored.unscored.jsonl").read_text().splitlines()]
    assert (unscored["idx"], unscored["scores"]["total"], list(unscored["unscored"])) == ("1-2", None, ["faithfulness"])
    (info,) = [json.loads(line) for line in (files / "out" / "scored.chunk_info.jsonl").read_text().splitlines()]
    assert list(info["info_list"]) == ["0% - 100%"]


def test_second_score_sends_no_request_and_writes_same_file(cli: Any, files: Path) -> None:
    first = cli(files, *FILES)
    before = (files / "out" / "scored.jsonl").read_bytes()
    again = cli(files, *FILES)
    assert ": 0 calls" not in first.stdout
    assert ": 0 calls" in again.stdout
    assert (files / "out" / "scored.jsonl").read_bytes() == before


def test_score_prints_four_dimensions_of_one_response(cli: Any, files: Path) -> None:
    (files / "doc.txt").write_text(CONTEXT)
    arguments = ("score", "--context", "doc.txt", "--query", "Who founded Keld?", "--response", "Ann Lee founded Keld.")
    result = cli(files, *arguments)
    assert result.returncode == 0, result.stderr
    assert "supported: Ann Lee founded Keld" in result.stdout
    for dimension in ("reward", "helpfulness", "logicality", "faithfulness", "completeness"):
        assert dimension in result.stdout


@pytest.mark.parametrize(
    ("analysis", "expected"),
    [
        ("Short, but clear.\n[[7]]\n", "Short, but clear."),
        ("[[3]] at first. Rating: [[7]]", "[[3]] at first. Rating:"),
        ("[[7]] is fair. ", "[[7]] is fair. "),
        ("[[7] ]", "[[7] ]"),
        ("7]]", "7]]"),
    ],
)
def test_without_verdict_removes_final_verdict(analysis: str, expected: str) -> None:
    assert without_verdict(analysis) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score",), "got neither"),
        (("score", "--data", "sft.jsonl"), "got --data"),
        ((*FILES[:-1], "sft.jsonl"), "would overwrite the input"),
        ((*FILES[:-1], "."), "--out . is a folder"),
        ((*FILES[:-1], "sft.jsonl/scored.jsonl"), "cannot be written"),
        ((*FILES, "-S", "score.evidence_chunk_token=3"), "did you mean score.evidence_chunk_tokens?"),
        ((*FILES, "-S", "scoer.evidence_chunks=3"), "did you mean score?"),
        ((*FILES, "-S", "nonsense"), "section.key=value"),
        ((*FILES, "-S", "judge.kind=http"), "must name the model"),
        (("score", "--data", "none.jsonl", *FILES[3:]), "No such file"),
        (("score", "--context", "none.txt", "--query", "q", "--response", "r"), "No such file"),
        (("score", "--context", "sft.jsonl", "--query", " ", "--response", "r"), "--query is empty"),
        (("score", "--context", "empty.txt", "--query", "q", "--response", "r"), "empty.txt is empty"),
        (("score", "--context", "utf16.txt", "--query", "q", "--response", "r"), "utf16.txt is not UTF-8"),
    ],
)
def test_wrong_usage_prints_one_line_and_writes_nothing(
    cli: Any, files: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = cli(files, *arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (files / "out").exists()
    assert list(files.glob(".*.part")) == []


def read_only(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command while a read-only file system is mounted at `folder`."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    mounted = f'mount -t tmpfs -o ro tmpfs "{folder}" && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", *user, "sh", "-c", mounted, "sh", *command],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        ("longreward.flows.cli.main", *FILES),
        ("longreward.flows.cli.main", "ledger", "export", "ledger.sqlite", "--out", "out/exchanges.jsonl"),
        ("longreward.flows.cli.main", "ledger", "merge", "ledger.sqlite", "--into", "out/all.sqlite"),
        ("longreward.builtin.corpus", "--out", "out/corpus"),
        ("longreward.builtin.natural_corpus", "--out", "out/corpus", "--train", "1", "--heldout", "0"),
    ],
    ids=["score", "ledger export", "ledger merge", "corpus", "natural corpus"],
)
def test_read_only_output_folder_prints_one_line(files: Path, command: tuple[str, ...]) -> None:
    (files / "out").mkdir()
    if read_only(files / "out", "true").returncode:
        pytest.skip("takes the right to mount a file system")
    with Ledger(files / "ledger.sqlite"):
        pass
    result = read_only(files / "out", sys.executable, "-m", *command)
    assert result.returncode == 1
    assert "out/" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1


def test_secondary_output_cannot_replace_input(cli: Any, files: Path) -> None:
    (files / "responses.jsonl").rename(files / "scored.unscored.jsonl")
    before = (files / "scored.unscored.jsonl").read_bytes()
    result = cli(files, "score", "--data", "sft.jsonl", "--responses", "scored.unscored.jsonl", "--out", "scored.jsonl")
    assert (result.returncode, "would overwrite the input" in result.stderr) == (1, True)
    assert (files / "scored.unscored.jsonl").read_bytes() == before


def test_duplicate_examples_rejected(cli: Any, files: Path) -> None:
    row = json.loads((files / "sft.jsonl").read_text())
    with (files / "sft.jsonl").open("a") as data:
        data.write(json.dumps({**row, "context": "Keld was founded in 1777 by Tom Ray."}) + "\n")
    result = cli(files, *FILES)
    assert (result.returncode, "idx 1" in result.stderr) == (1, True)


def test_summary_counts_scored_responses_and_gives_reasons(cli: Any, files: Path) -> None:
    lines = cli(files, *FILES).stdout.splitlines()
    assert lines[0] == "out/scored.jsonl: 2 of 3 responses have all scores (queries: 1)"
    assert "  faithfulness is unscored for 1; the first: the response holds no factual statement" in lines
    assert lines[-1] == "out/scored.unscored.jsonl: the other 1, with the reasons"


CARD = ("score", "--context", "sft.jsonl", "--query", "Who founded Keld?", "--response")


@pytest.mark.parametrize("arguments", [FILES, ("params",), (*CARD, "Ann Lee.")])
def test_closed_pipe_causes_no_traceback_and_loses_no_result(files: Path, arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "longreward.flows.cli.main", *arguments]
    result = subprocess.run(command, cwd=files, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, "")
    assert (files / "out" / "scored.jsonl").exists() == (arguments == FILES)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is always full")
def test_full_disk_prints_one_line(files: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "longreward.flows.cli.main", "params"]
        result = subprocess.run(command, cwd=files, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr == "longreward: error: the output cannot be written: the disk is full\n"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8:strict"])
def test_characters_outside_terminal_encoding_escaped(
    files: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    result = run(files, *CARD, os.fsdecode(b"Keld was founded by Ann Lee \xff."))
    assert (result.returncode, result.stderr) == (0, "")
    assert "\\udcff" in result.stdout


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_interrupted_score_leaves_no_partial_file(files: Path, name: str) -> None:
    with offline_judge_server("--latency", "30") as url:
        http = ("-S", "judge.kind=http", "-S", f"judge.base_url={url}", "-S", "judge.model=m")
        command = [sys.executable, "-m", "longreward.flows.cli.main", *FILES, *http]
        # A shell that starts the tests in the background has them ignore SIGINT, and children inherit that.
        default = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
        run = subprocess.Popen(command, cwd=files, stderr=subprocess.PIPE, text=True, preexec_fn=default)
        while server_stats(url)["requests"] == 0:  # it waits for the judge, which takes 30 s
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.Signals[name])
        _, stderr = run.communicate(timeout=20)
    assert stderr == "longreward: stopped; run the same command again to continue from the judge's replies\n"
    assert (run.returncode, list((files / "out").iterdir())) == (130, [])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"idx": "2-0", "query": "q", "answer": "a"}], "not in sft.jsonl, such as '2'"),
        ([{"idx": "1-0", "query": "Another?", "answer": "a"}], "1-0"),
        ([{"idx": "1-0", "query": "Who founded Keld, and when?", "answer": "a"}] * 2, "idx 1-0"),
        ([], "is empty"),
    ],
)
def test_responses_without_matching_example_rejected(
    cli: Any, files: Path, rows: list[dict[str, str]], message: str
) -> None:
    (files / "responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = cli(files, *FILES)
    assert result.returncode == 1
    assert message in result.stderr
    assert list((files / "out").glob("*") if (files / "out").exists() else []) == []


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys; from longreward.flows.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ('mlflow', 'prefect', 'pydantic', 'rich', 'torch', 'transformers', 'yaml')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_params_import_no_model_library() -> None:
    code = (
        "import sys, longreward.params\n"
        "print([m for m in ('torch', 'transformers', 'trl', 'datasets', 'openai', 'bm25s') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("stops", "message"),
    [("null", "none of 3 responses got a score from the judge m"), ("3", "last reply:      What a good answer!")],
)
def test_unreadable_replies_are_error_and_requested_again(cli: Any, files: Path, stops: str, message: str) -> None:
    with chat_server("What a good answer!") as server:
        settings = ("judge.kind=http", f"judge.base_url={server.url}", "judge.model=m")
        settings += (f"judge.stop_after_unreadable={stops}", "judge.max_attempts=2")
        options = [argument for setting in settings for argument in ("-S", setting)]
        results = [cli(files, *FILES, *options) for _ in range(2)]
        (files / "doc.txt").write_text(CONTEXT)
        card = cli(files, "score", "--context", "doc.txt", "--query", "Who?", "--response", "Ann Lee.", *options)
    for result in results:
        assert (result.returncode, message in result.stderr) == (1, True), result.stderr
        assert ": 0 calls" not in result.stdout
    assert card.returncode == 1
    assert "reward none" in card.stdout
