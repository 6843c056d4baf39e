"""Run a server as a child process that prints its base URL."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def child_server(*command: str, **environment: str) -> Iterator[str]:
    """Run `python <command>` and yield the base URL that it prints; kill the process at the end."""
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=os.environ | environment
    ) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.kill()


@contextmanager
def offline_judge_server(*options: str, **environment: str) -> Iterator[str]:
    """Run the offline judge behind HTTP and yield its base URL."""
    with child_server("-m", "longreward.offline_judge_server", *options, **environment) as url:
        yield url


def server_stats(url: str) -> dict[str, Any]:
    """Return the counts of requests of the offline judge or the faulty server."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as reply:
        counts: dict[str, Any] = json.load(reply)
    return counts
