"""Access to the Prefect server from its UI, from other web pages and from other programs."""

import base64
import http.client
import json
import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from longreward.tasks.prefect_server import PrefectServer
from longreward.tasks.server_access import RequestGuard, allowed_hosts, auth_file, is_loopback, read_auth_string


def login() -> dict[str, str]:
    token = base64.b64encode(str(PREFECT_API_AUTH_STRING.value()).encode()).decode()
    return {"Authorization": f"Basic {token}"}


def request(url: str, path: str, method: str = "POST", **headers: str) -> tuple[int, str]:
    """The status and the body; an empty JSON object is sent with a POST, as a page can without asking first."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    connection.putrequest(method, path, skip_host="Host" in headers)
    if method == "POST":
        headers = {"Content-Length": "2", **headers}
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(b"{}" if method == "POST" else None)
    reply = connection.getresponse()
    body = reply.read().decode(errors="replace")
    connection.close()
    return reply.status, body


def test_api_requires_login(prefect_server: str) -> None:
    for path in ("/api/flow_runs/filter", "/api/deployments/filter", "/api/flows/"):
        assert request(prefect_server, path)[0] == 401
    wrong = base64.b64encode(b"longreward:guess").decode()
    assert request(prefect_server, "/api/flow_runs/filter", Authorization=f"Basic {wrong}")[0] == 401
    status, body = request(prefect_server, "/api/flow_runs/filter", **login())
    assert (status, isinstance(json.loads(body), list)) == (200, True)


def test_foreign_origin_refused_with_login(prefect_server: str) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil.example"):
        status, body = request(prefect_server, "/api/flow_runs/filter", Origin=origin, **login())
        assert (status, "does not answer to web pages of" in body) == (403, True), origin
        # The question that a browser asks before it sends headers of a page's own.
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert request(prefect_server, "/api/flow_runs/filter", "OPTIONS", **headers)[0] == 403, origin


def test_own_origin_allowed_under_each_name(prefect_server: str) -> None:
    port = urlsplit(prefect_server).port
    for name in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost:9000", "[::1]:80"):  # 9000: through a tunnel
        headers = {"Host": name, "Origin": f"http://{name}", **login()}
        assert request(prefect_server, "/api/flow_runs/filter", **headers)[0] == 200, name


def test_foreign_host_name_refused(prefect_server: str) -> None:
    for name in ("evil.example", "evil.example:4200", "127.0.0.1.evil.example", "localhost.evil.example"):
        for path in ("/api/health", "/", "/ui-settings"):
            status, body = request(prefect_server, path, "GET", Host=name)
            assert (status, "does not answer to the host name" in body) == (403, True), (name, path)
    assert request(prefect_server, "/api/health", "GET", Host="localhost")[0] == 200


def test_ui_asks_for_login_and_uses_relative_api_url(
    prefect_server: str,
) -> None:
    status, body = request(prefect_server, "/ui-settings", "GET")
    assert status == 200
    assert {"auth": "BASIC", "api_url": "/api"}.items() <= json.loads(body).items()


async def test_websocket_foreign_origin_or_no_login(
    prefect_server: str,
) -> None:
    url = f"{prefect_server.replace('http', 'ws')}/events/out"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, origin="https://evil.example", subprotocols=["prefect"]):  # type: ignore[arg-type,list-item]
            pass
    assert refused.value.response.status_code == 403
    for token, closed in ((None, True), ("longreward:guess", True), (PREFECT_API_AUTH_STRING.value(), False)):
        async with connect(url, subprotocols=["prefect"]) as socket:  # type: ignore[list-item]
            await socket.send(json.dumps({"type": "auth", "token": token}))
            if closed:
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
            else:
                assert json.loads(await socket.recv())["type"] == "auth_success"


def test_login_is_private(prefect_server: str) -> None:
    (server,) = [process for process in psutil.Process().children(recursive=True) if _serves(process, prefect_server)]
    home = Path(server.environ()["PREFECT_HOME"])
    secret = auth_file(home).read_text()
    assert secret == PREFECT_API_AUTH_STRING.value()
    assert len(secret) > len("longreward:") + 20
    assert stat.S_IMODE(auth_file(home).stat().st_mode) == 0o600
    for process in psutil.process_iter(["cmdline"]):
        assert secret not in " ".join(process.info["cmdline"] or [])
    assert secret not in (home / "server.log").read_text()
    assert secret.partition(":")[2] not in repr(PrefectServer(prefect_server, secret))


def _serves(process: psutil.Process, url: str) -> bool:
    if process.status() == psutil.STATUS_ZOMBIE:
        return False
    if process.cmdline()[1:3] != ["-m", "longreward.tasks.prefect_server"]:
        return False
    return urlsplit(url).port in {one.laddr.port for one in process.net_connections() if one.status == "LISTEN"}


def test_login_kept_unless_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    first = read_auth_string(tmp_path)
    assert read_auth_string(tmp_path) == first
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "anna:secret")
    assert read_auth_string(tmp_path) == "anna:secret"
    assert auth_file(tmp_path).read_text() == "anna:secret"


def test_allowed_hosts_beyond_loopback() -> None:
    assert allowed_hosts("127.0.0.1") == {"localhost", "127.0.0.1", "::1"}
    wide = allowed_hosts("0.0.0.0", ("Proxy.Example",))
    own = {one.address for all_ in psutil.net_if_addrs().values() for one in all_ if one.family.name == "AF_INET"}
    assert own | {"proxy.example", "localhost"} <= wide
    assert "evil.example" not in wide


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("hosts", [[], [b"localhost", b"evil.example"]])
async def test_request_without_single_host_refused(hosts: list[bytes]) -> None:
    sent: list[Any] = []

    async def application(*_: Any) -> None:
        sent.append("reached")

    async def send(message: Any) -> None:
        sent.append(message.get("status"))

    guard = RequestGuard(application, frozenset({"localhost"}))
    await guard({"type": "http", "headers": [(b"host", host) for host in hosts]}, application, send)
    assert sent == [403, None]
