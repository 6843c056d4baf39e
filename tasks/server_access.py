"""Who may use the Prefect server of a state folder: the login, and the host names and web pages that it answers to.

Prefect's own server answers every web page by default. A page that a user visits could then start runs, and read
documents: from its own origin, or as a name that resolves to 127.0.0.1 (DNS rebinding).
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
    """The file that holds the login of the server, "user:password"."""
    return home / "auth-string"


def read_auth_string(home: Path) -> str:
    """The login of the server: PREFECT_SERVER_API_AUTH_STRING, else one that is made once for each state folder.

    Imports nothing of Prefect's: that would read its settings before the server's are in the environment.
    """
    file = auth_file(home)
    if configured := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        write_private(file, configured)
        return configured
    try:
        if kept := file.read_text(encoding="utf-8").strip():
            return kept
    except FileNotFoundError:
        pass
    made = f"{USER}:{secrets.token_urlsafe(24)}"
    write_private(file, made)
    return made


def write_private(path: Path, text: str) -> None:
    """Replace the file by one that only this user can read."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    # The mode is set when the file is created: a later chmod leaves a moment in which others can open it.
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)


def is_loopback(host: str) -> bool:
    """Whether a server that listens on this address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed_hosts(host: str, more: tuple[str, ...] = ()) -> frozenset[str]:
    """The names and addresses under which clients may call a server that listens on `host`.

    Beyond this machine these are its own names and addresses, and `more`: those of a proxy, for instance.
    """
    names = {"localhost", "127.0.0.1", "::1", host, *more}
    if not is_loopback(host):
        import psutil

        names |= {socket.gethostname(), socket.getfqdn()}
        for addresses in psutil.net_if_addrs().values():
            names |= {one.address.partition("%")[0] for one in addresses if one.family in _INTERNET}
    return frozenset(name.lower() for name in names if name)


class RequestGuard:
    """ASGI middleware that refuses requests under a foreign host name, and those that another web page sends.

    CORS headers alone do not do this: they keep a page from reading a reply, while the request has been carried out.
    Of WebSockets they say nothing at all.
    """

    def __init__(self, app: App, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass the request on or answer it with 403."""
        if scope["type"] in ("http", "websocket") and (reason := self._refusal(scope)):
            await _refuse(scope, send, reason)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Message) -> str | None:
        headers = [(name.lower(), value.decode("latin-1").lower()) for name, value in scope["headers"]]
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or _host_name(hosts[0]) not in self._hosts:
            return f"this server does not answer to the host name {', '.join(hosts) or '(none)'}"
        for name, origin in headers:
            # The UI and the API are one origin, so a page of another one, and "null", has no business here.
            if name == b"origin" and origin.partition("://")[2] != hosts[0]:
                return f"this server does not answer to web pages of {origin}"
        return None


def _host_name(header: str) -> str:
    """The name in a Host header, without the port and the brackets of IPv6."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


async def _refuse(scope: Message, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": reason[:100]})
        return
    await send(
        {"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain; charset=utf-8")]}
    )
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})


_INTERNET = (socket.AF_INET, socket.AF_INET6)
