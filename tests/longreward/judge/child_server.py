"""Run a server as a child process that prints its base URL."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def child_server(*command: str) -> Iterator[str]:
    """Run `python <command>` and yield the base URL that it prints; terminates the process at the end."""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def stats(url: str) -> dict[str, Any]:
    """Return the counts of the faulty server."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as reply:
        counts: dict[str, Any] = json.load(reply)
    return counts
