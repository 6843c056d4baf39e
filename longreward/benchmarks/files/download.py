"""One file over HTTP into a partial file that a later call goes on from; proxies are taken from the environment."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

from longreward.errors import StateError


class NotThere(Exception):
    """The address has no such file, or will not give it: asking again never helps."""


class OutOfReach(Exception):
    """The server cannot be reached, or broke off at every try."""


class Broken(OutOfReach):
    """Bytes came, but not all: the server is there."""


def download(
    address: str,
    part: Path,
    *,
    tell: Callable[[int], None] = lambda size: None,
    tries: int = 3,
    pause_s: float = 1.0,
    timeout_s: float = 30.0,
) -> None:
    """Puts the whole file at `part`, going on from what is there; `tell` gets the bytes so far.

    Raises NotThere, OutOfReach, or StateError where the disk refuses. What had come until then stays at `part`.
    """
    for left in range(tries - 1, -1, -1):
        try:
            _once(address, part, tell, timeout_s)
            return
        except OutOfReach:
            if not left:
                raise
            time.sleep(pause_s)


def host(address: str) -> str:
    """The server's name and port."""
    return urlsplit(address).netloc


def _once(address: str, part: Path, tell: Callable[[int], None], timeout_s: float) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "longreward", "Accept-Encoding": "identity"}
    request = Request(address, headers=headers | ({"Range": f"bytes={have}-"} if have else {}))
    try:
        with build_opener().open(request, timeout=timeout_s) as response:  # which reads the proxies anew
            resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            _receive(response, part, have if resumed else 0, tell)
    except HTTPError as error:
        if error.code == 416 and have:  # it was whole already, or is of another version: from the start
            part.unlink()
            _once(address, part, tell, timeout_s)
            return
        if error.code >= 500 or error.code in (408, 429):
            raise OutOfReach(f"{host(address)} answered {error.code}") from None
        raise NotThere(f"{host(address)} answered {error.code} ({error.reason})") from None
    except URLError as error:
        raise OutOfReach(f"{host(address)} cannot be reached: {error.reason}") from None
    except (HTTPException, OSError) as error:
        raise Broken(f"{host(address)} broke off: {error or type(error).__name__}") from None


def _receive(response: HTTPResponse, part: Path, have: int, tell: Callable[[int], None]) -> None:
    said = response.headers.get("Content-Length")
    whole = have + int(said) if said and said.isdigit() else None
    with writing_to(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        file = part.open("ab" if have else "wb", buffering=0)
    with file:
        while data := response.read(BLOCK):
            left = memoryview(data)
            while left:  # a disk that is nearly full takes a part
                with writing_to(part):
                    left = left[file.write(left) :]
            have += len(data)
            tell(have)
    if whole is not None and have < whole:
        raise Broken(f"the connection ended after {have:,} of {whole:,} bytes")


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """StateError, with what to do, where the disk or its permissions refuse."""
    try:
        yield
    except OSError as error:
        raise StateError(
            f"{path} cannot be written: {error.strerror or error}; make room, give write permission, or name another "
            "folder with --folder"
        ) from error


BLOCK = 2**18  # bytes
