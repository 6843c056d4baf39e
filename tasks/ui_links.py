"""Links from Prefect's UI to runs in MLflow's UI that stay valid.

MLflow's UI has another port each time, or is not running: its address in a stored artifact would soon be wrong. The
links are therefore paths of the Prefect server, which redirects them to the MLflow that runs at that moment.
"""

import html
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from longreward.tasks.processes import ProcessRef, this_process
from longreward.tasks.server_access import App, Message, Receive, Send
from longreward.tasks.state import state_folder
from longreward.tasks.tracking.store import is_server, store_uri
from longreward.utils.redaction import redact

PREFIX = "/longreward/mlflow"
TIMEOUT_S = 5.0
_TARGET = re.compile(r"/experiments/\w+/runs/\w+(/artifacts/[\w./-]+)?")
_NOT_RUNNING = (
    "<!doctype html><title>MLflow is not running</title><p>MLflow is not running. Start it with "
    "<code>longreward serve</code> in {folder}, and open this link again."
)


@contextmanager
def publish_mlflow(url: str) -> Iterator[None]:
    """Let links lead to MLflow's UI at `url` while the context is open."""
    file = _address_file(state_folder())
    part = file.with_name(f".{file.name}.{this_process()}")
    part.write_text(json.dumps({"url": url, "process": str(this_process())}), encoding="utf-8")
    part.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


async def mlflow_links(prefect_api: str) -> str | None:
    """Return what precedes "/experiments/…" in links of the UI of this Prefect server.

    None if no link would stay valid: the server is not one of this project, and MLflow's store is no server.
    """
    if is_server(store_uri()):
        return f"{redact(store_uri()).rstrip('/')}/#"
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            answer = await client.get(f"{prefect_api.rstrip('/').removesuffix('/api')}{PREFIX}")
    except httpx.HTTPError:
        return None
    return PREFIX if answer.status_code == httpx.codes.NO_CONTENT else None  # Prefect answers unknown paths with a page


class MlflowRedirect:
    """ASGI middleware that redirects the links to the MLflow of the state folder `state`."""

    def __init__(self, app: App, state: Path) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a link, and pass every other request on."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == PREFIX or path.startswith(f"{PREFIX}/")):
            await self._app(scope, receive, send)
            return
        status, headers, body = self._answer(
            path.removeprefix(PREFIX), scope.get("query_string", b"").decode("latin-1")
        )
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, target: str, query: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        if not target:
            return 204, [], b""
        if not _TARGET.fullmatch(target):
            return 404, [(b"content-type", b"text/plain")], b"no such run\n"
        url = running_mlflow(self._state)
        if url is None:
            page = _NOT_RUNNING.format(folder=html.escape(str(self._state.parent)))
            return 503, [(b"content-type", b"text/html; charset=utf-8")], page.encode()
        suffix = f"?{query}" if re.fullmatch(r"[\w=&-]+", query) else ""
        return 307, [(b"location", f"{url}/#{target}{suffix}".encode())], b""


def running_mlflow(state: Path) -> str | None:
    """Return the address of the MLflow UI that `longreward serve` shows; None if there is none."""
    try:
        content = json.loads(_address_file(state).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return str(content["url"]) if ProcessRef.parse(content["process"]).alive else None


def _address_file(state: Path) -> Path:
    return state / "mlflow-ui.json"
