"""Links from Prefect's UI to MLflow's."""

from pathlib import Path

import httpx
import pytest

from longreward.tasks import ui_links
from longreward.tasks.server_access import Message, Receive, Send
from longreward.tasks.state import STATE_VARIABLE, state_folder
from longreward.tasks.ui_links import PREFIX, MlflowRedirect, mlflow_links, publish_mlflow

RUN = "/experiments/1/runs/0123456789abcdef"


async def prefect_app(scope: Message, receive: Receive, send: Send) -> None:
    """Answer every path with a page, as Prefect's UI does."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<html>"})


async def get(path: str) -> httpx.Response:
    app = MlflowRedirect(prefect_app, state_folder())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:4200") as client:  # type: ignore[arg-type]
        return await client.get(path)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


async def test_link_leads_to_running_mlflow() -> None:
    with publish_mlflow("http://127.0.0.1:5012"):
        run = await get(f"{PREFIX}{RUN}?workflowType=machine_learning")
        report = await get(f"{PREFIX}{RUN}/artifacts/report.md")
    assert run.status_code == 307
    assert run.headers["location"] == f"http://127.0.0.1:5012/#{RUN}?workflowType=machine_learning"
    assert report.headers["location"] == f"http://127.0.0.1:5012/#{RUN}/artifacts/report.md"


async def test_link_without_mlflow_explains_how_to_start_it() -> None:
    answer = await get(f"{PREFIX}{RUN}")
    assert answer.status_code == 503
    assert "<code>longreward serve</code>" in answer.text


@pytest.mark.parametrize("path", ["/@evil.example", "//evil.example", "/experiments/1/runs/1/../../x", "/other"])
async def test_other_targets_are_refused(path: str) -> None:
    with publish_mlflow("http://127.0.0.1:5012"):
        assert (await get(f"{PREFIX}{path}")).status_code in (200, 404)  # 200: the client has resolved the dots


async def test_other_paths_reach_prefect() -> None:
    assert (await get("/dashboard")).text == "<html>"
    assert (await get("/longreward/mlflowx")).text == "<html>"


async def test_links_of_a_tracking_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org/")
    assert await mlflow_links("http://127.0.0.1:1/api") == "https://mlflow.example.org/#"


async def test_links_where_server_knows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await mlflow_links("http://127.0.0.1:1/api") is None  # no server

    def client(app: object) -> object:
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        return lambda **options: real_client(transport=transport, **options)

    real_client = httpx.AsyncClient
    monkeypatch.setattr(ui_links.httpx, "AsyncClient", client(prefect_app))
    assert await mlflow_links("http://127.0.0.1:4200/api") is None  # a Prefect server of the user's own
    monkeypatch.setattr(ui_links.httpx, "AsyncClient", client(MlflowRedirect(prefect_app, state_folder())))
    assert await mlflow_links("http://127.0.0.1:4200/api") == PREFIX
