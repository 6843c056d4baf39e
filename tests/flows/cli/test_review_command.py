"""`longreward review` on files, without MLflow. tests/flows/test_review_server.py uses its queues."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from longreward.builtin.offline_judge.judge import NAME
from longreward.data.formats import scored_to_row
from longreward.flows.cli.main import main
from longreward.records import DIMENSIONS, Evidence, Response, ScoredResponse, Statement, Verdict
from longreward.tasks import review_queues
from longreward.tasks.review_queues import QueueLink
from longreward.tasks.ui_links import publish_mlflow

CONTEXT = "Keld was founded in 1905 by Ann Lee. The market opened in 1931."
TEXTS = ("Ann Lee founded Keld.", "Bo Ray founded Keld in 1700.", "Cy Low founded Keld in 1931.")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with the files of a score stage."""
    examples = [{"idx": n, "query": "Who founded Keld?", "context": CONTEXT, "document": f"d{n}"} for n in range(6)]
    rows = []
    for example in range(6):
        for number, text in enumerate(TEXTS):
            score, support = (9.0, 1.0) if number == 0 else (3.0, 0.0)
            statement = Statement(text=text, support=support, evidence=(Evidence(start=0, end=36, text=CONTEXT[:36]),))
            verdicts = {
                name: Verdict(score=score, judge="j", statements=(statement,) if name == "faithfulness" else ())
                for name in DIMENSIONS
            }
            response = Response(id=f"{example}-{number}", example_id=str(example), query="Who founded Keld?", text=text)
            rows.append(scored_to_row(ScoredResponse(response=response, verdicts=verdicts)))
    for path, content in (("data/prepared/preference.jsonl", examples), ("data/scored/scored_responses.jsonl", rows)):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("".join(json.dumps(row) + "\n" for row in content))
    return tmp_path


def read_items(project: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (project / "data/labels/items.jsonl").read_text().splitlines()]


def test_labels_from_a_spreadsheet(cli: Callable, project: Path) -> None:
    result = cli(project, "review", "create", "--items", "18", "--no-queues")
    assert result.returncode == 0, result.stderr
    assert "data/labels: 18 items, 18 of them new\n  this is no DVC repository" in result.stdout
    items = read_items(project)
    again = cli(project, "review", "create", "--items", "18", "--no-queues")
    assert "18 items, 0 of them new" in again.stdout
    assert read_items(project) == items

    words = {"support": {1.0: "full", 0.0: "none"}, "preference": {1.0: "A", 0.0: "tie", -1.0: "B"}}
    values = [words.get(item["kind"], {}).get(item["verdict"], item["verdict"]) for item in items]
    rows = [f"{item['id']},{value}\n" for item, value in zip(items, values, strict=True)]
    (project / "labels.csv").write_text("item,rating\n" + "".join(rows))
    result = cli(project, "review", "import", "labels.csv", "--reviewer", "anna", "--column", "rating=value")
    assert "data/labels: 18 labels of 18 items, 18 new or changed" in result.stdout

    report = cli(project, "review", "report")
    assert report.returncode == 0, report.stderr
    assert report.stdout.startswith("# j: agreement with human labels\n\n18 labels of 18 items by 1 reviewer: anna.")
    assert "| support, faithfulness | judge | 6 | 1.00 (" in report.stdout
    data = json.loads(cli(project, "review", "report", "--json", "--repeat", "1").stdout)
    assert data["judge"] == NAME
    itself = [row for row in data["agreement"] if row["rater"] == "judge against itself"]
    assert itself
    assert all(row["exact"]["value"] == 1.0 for row in itself)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("collect",), "data/labels/items.jsonl does not exist: run `longreward review create` first"),
        (("report",), "data/labels/items.jsonl does not exist"),
        (("import", "x.csv", "--column", "rating"), "--column 'rating' is not of the form THEIRS=OURS"),
        (
            ("create", "--scored", "nothing.jsonl"),
            "nothing.jsonl does not exist: run the stages up to score first, or name a file with --scored",
        ),
    ],
)
def test_errors(cli: Callable, project: Path, arguments: tuple[str, ...], message: str) -> None:
    result = cli(project, "review", *arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_report_without_labels(cli: Callable, project: Path) -> None:
    cli(project, "review", "create", "--items", "3", "--no-queues", "--kind", "support")
    assert {item["kind"] for item in read_items(project)} == {"support"}
    result = cli(project, "review", "report")
    assert result.returncode == 1
    assert "there are no labels yet: label items, then run `longreward review collect`" in result.stderr


def test_addresses_of_queues_have_the_port_of_serve(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(review_queues, "create_queues", lambda *_: [QueueLink("support", "/#/queue/1", 3, 3)])
    (project / ".longreward").mkdir()
    with publish_mlflow("http://127.0.0.1:5012"):
        assert main(["review", "create", "--items", "3"]) == 0
    served = capsys.readouterr().out
    assert "  http://127.0.0.1:5012/#/queue/1\n" in served
    assert "another port" not in served
    assert main(["review", "create", "--items", "3"]) == 0
    later = capsys.readouterr().out
    assert "  http://127.0.0.1:5000/#/queue/1\n`longreward serve` opens MLflow; with another port" in later


def test_address_of_a_queue_on_a_tracking_server_is_kept(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    link = QueueLink("support", "https://mlflow.example/team/#/queue/1", 3, 3)
    monkeypatch.setattr(review_queues, "create_queues", lambda *_: [link])
    assert main(["review", "create", "--items", "3"]) == 0
    output = capsys.readouterr().out
    assert "  https://mlflow.example/team/#/queue/1\n" in output
    assert "another port" not in output
