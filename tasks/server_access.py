"""Access control of the Prefect server: its login, and the host names and web pages that it answers.

Prefect's own server answers every web page by default. A page that a user visits could start runs and read
documents: from its own origin, or through a name that resolves to 127.0.0.1 (DNS rebinding). See
docs/decisions/2026-11-26-prefect-login.md.
"""

import ipaddress
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

LOCALHOST = "127.0.0.1"
USER = "longreward"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def auth_file(home: Path) -> Path:
    """Return the file that holds the login of the server, "user:password"."""
    return home / "auth-string"


def read_auth_string(home: Path) -> str:
    """Return PREFECT_SERVER_API_AUTH_STRING, else the login of this state folder, which is created once."""
    file = auth_file(home)
    configured = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    existing = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    if existing and not configured:
        return existing
    login = configured or f"{USER}:{secrets.token_urlsafe(24)}"
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    # The mode is set when the file is created: a later chmod leaves a moment in which others can open it.
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as output:
        output.write(login)
    part.replace(file)
    return login


def is_loopback(host: str) -> bool:
    """Whether a server that listens on this address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed_hosts(host: str, allow: tuple[str, ...] = ()) -> frozenset[str]:
    """Return the names and addresses under which clients may call a server that listens on `host`.

    Beyond the loopback interface these include the machine's own names and addresses. `allow` adds others, such as
    the name of a proxy.
    """
    names = {"localhost", "127.0.0.1", "::1", host, *allow}
    if not is_loopback(host):
        import psutil

        names |= {socket.gethostname(), socket.getfqdn()}
        for addresses in psutil.net_if_addrs().values():
            internet = (address for address in addresses if address.family in (socket.AF_INET, socket.AF_INET6))
            names |= {address.address.partition("%")[0] for address in internet}
    return frozenset(name.lower() for name in names if name)


class RequestGuard:
    """ASGI middleware that refuses requests for a foreign host name, and requests of other web pages.

    CORS headers do not replace it: they keep a page from reading a reply after the request was carried out, and they
    do not apply to WebSockets.
    """

    def __init__(self, app: App, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass the request on or answer it with 403."""
        if scope["type"] not in ("http", "websocket") or not (reason := self._refusal(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason[:100]})
        else:
            content_type = (b"content-type", b"text/plain; charset=utf-8")
            await send({"type": "http.response.start", "status": 403, "headers": [content_type]})
            await send({"type": "http.response.body", "body": f"{reason}\n".encode()})

    def _refusal(self, scope: Message) -> str | None:
        headers = [(name.lower(), value.decode("latin-1").lower()) for name, value in scope["headers"]]
        hosts = [value for name, value in headers if name == b"host"]
        # The name without the port and the brackets of IPv6.
        names = [host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0] for host in hosts]
        if len(names) != 1 or names[0] not in self._hosts:
            return f"this server does not answer to the host name {', '.join(hosts) or '(none)'}"
        for name, origin in headers:
            # UI and API have one origin, so a page of any other one, or of "null", is foreign.
            if name == b"origin" and origin.partition("://")[2] != hosts[0]:
                return f"this server does not answer to web pages of {origin}"
        return None
