"""`longreward review` with a tracking server and a DVC repository: create, label over HTTP, collect, report."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from tracking_servers import PASSWORD, USER, mlflow_server

from longreward.data.formats import scored_to_row
from longreward.records import DIMENSIONS, Evidence, Response, ScoredResponse, Statement, Verdict

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CONTEXT = "Keld was founded in 1905 by Ann Lee. The market opened in 1931."


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    evidence = (Evidence(start=0, end=36, text=CONTEXT[:36]),)
    rows = []
    for number in range(9):
        support = (1.0, 0.5, 0.0)[number % 3]
        statement = Statement(text=f"Statement {number}.", support=support, evidence=evidence)
        verdicts = {
            name: Verdict(score=10 * support, judge="j", statements=(statement,) if name == "faithfulness" else ())
            for name in DIMENSIONS
        }
        response = Response(id=f"{number}-0", example_id=str(number), query="Who?", text=f"Statement {number}.")
        rows.append(scored_to_row(ScoredResponse(response=response, verdicts=verdicts)))
    examples = [{"idx": number, "query": "Who?", "context": CONTEXT, "document": f"d{number}"} for number in range(9)]
    for path, content in (("data/scored/scored_responses.jsonl", rows), ("data/prepared/preference.jsonl", examples)):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text("".join(json.dumps(row) + "\n" for row in content))
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def test_label_over_http(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mlflow_server(tmp_path / "mlflow", logins=True) as (uri, _):
        for name, value in (("URI", uri), ("USERNAME", USER), ("PASSWORD", PASSWORD)):
            monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)

        def review(*arguments: str) -> str:
            command = [sys.executable, "-m", "longreward.flows.cli.main", "review", *arguments]
            result = subprocess.run(command, cwd=project, capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
            assert PASSWORD not in result.stdout + result.stderr
            return result.stdout

        def call(method: str, path: str, **body: Any) -> Any:
            """Call the API as the review page of the UI does."""
            kwargs: Any = {"params": body} if method == "GET" else {"json": body}
            reply = requests.request(method, f"{uri}/ajax-api/3.0/mlflow/{path}", auth=(USER, PASSWORD), **kwargs)
            assert reply.ok, reply.text
            return reply.json()

        created = review("create", "--items", "9", "--kind", "support")
        assert "data/labels: 9 items, 9 of them new\n  DVC tracks it: commit data/labels.dvc" in created
        address = next(line.strip() for line in created.splitlines() if "review-queue" in line)
        assert address.startswith(f"{uri}/#/experiments/")
        queue = address.partition("selectedQueueId=")[2]

        items = {row["id"]: row for row in map(json.loads, (project / "data/labels/items.jsonl").open())}
        attached = call("GET", "review-queues/items/list", queue_id=queue, max_results=100)["items"]
        assert len(attached) == 9
        for entry in attached:
            trace = call("GET", f"traces/{entry['item_id']}")["trace"]["trace_info"]
            verdict = items[trace["tags"]["longreward.item"]]["verdict"]
            call(
                "POST",
                f"traces/{entry['item_id']}/assessments",
                assessment={
                    "assessment_name": "support",
                    "trace_id": entry["item_id"],
                    "source": {"source_type": "HUMAN", "source_id": "cara"},
                    "feedback": {"value": {1.0: "full", 0.5: "partial", 0.0: "none"}[verdict]},
                },
            )

        assert "data/labels: 9 labels of 9 items, 9 new or changed" in review("collect")
        assert "data/labels: 9 labels of 9 items, 0 new or changed" in review("collect")
    # The report needs no server.
    report = review("report")
    assert "9 labels of 9 items by 1 reviewer: cara." in report
    assert "| support, faithfulness | judge | 9 | 1.00 (" in report
    status = subprocess.run([sys.executable, "-m", "dvc", "status", "--json"], cwd=project, capture_output=True)
    assert json.loads(status.stdout) == {}
