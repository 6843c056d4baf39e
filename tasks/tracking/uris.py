"""Where MLflow keeps runs and artifacts, as addresses that hold in every folder.

Stages work in private copies of the checkout, which are deleted after the run. A relative address would lead into the
copy, and so would MLflow's default for artifacts, `./mlruns`.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from longreward.errors import ConfigError
from longreward.tasks.state import made, state_folder

TRACKING_URI = "MLFLOW_TRACKING_URI"
ARTIFACT_ROOT = "MLFLOW_DEFAULT_ARTIFACT_ROOT"  # the variable of `mlflow server` for the same purpose
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
NO_SCHEME = ("databricks", "databricks-uc", "uc")  # of MLflow's addresses without one, these alone are no paths


def store_uri() -> str:
    """Return the absolute address of the store: `MLFLOW_TRACKING_URI`, else a SQLite file in the state folder."""
    configured = os.environ.get(TRACKING_URI)
    return absolute_uri(configured, _project()) if configured else f"sqlite:///{state_folder() / 'mlflow.db'}"


def artifact_location(experiment: str) -> str | None:
    """Return where a new experiment keeps its artifacts; None where the store itself decides (a tracking server).

    For databases it is `MLFLOW_DEFAULT_ARTIFACT_ROOT`, else the state folder of this checkout.
    """
    if not is_database(store_uri()):
        return None  # a file store takes a folder beside its runs, a server what it was started with
    root = os.environ.get(ARTIFACT_ROOT)
    if not root:
        return made(state_folder() / "mlartifacts").as_uri()
    return f"{absolute_uri(root, _project()).rstrip('/')}/{quote(experiment.strip('/'))}"


def pin_locations() -> None:
    """Make both variables absolute, for this process and those that it starts, before the working folder changes."""
    for name in (TRACKING_URI, ARTIFACT_ROOT):
        if value := os.environ.get(name):
            os.environ[name] = absolute_uri(value, _project())


def absolute_uri(uri: str, base: Path) -> str:
    """Resolve an address that names a local file or folder relative to `base`; others are returned as they are.

    Raises ConfigError for a database in memory, which the processes of a run cannot share.
    """
    scheme, separator, rest = uri.partition("://")
    if separator and scheme.partition("+")[0] == "sqlite":
        return f"{scheme}:///{_sqlite_path(uri, rest, base)}"
    if not separator and not uri.startswith("file:"):
        return uri if uri in NO_SCHEME else _absolute(base, uri).as_uri()
    if uri.startswith("file:"):
        parts = urlsplit(uri)
        return _absolute(base, url2pathname(parts.path)).as_uri()
    return uri


def is_database(uri: str) -> bool:
    """Whether MLflow opens this address as a database, without a server between."""
    return uri.partition("://")[0].partition("+")[0] in DATABASES


def is_server(uri: str) -> bool:
    """Whether this is the address of a tracking server."""
    return uri.startswith(("http://", "https://"))


def _sqlite_path(uri: str, rest: str, base: Path) -> str:
    path, question, query = rest.removeprefix("/").partition("?")
    inner, prefix = (path.removeprefix("file:"), "file:") if path.startswith("file:") else (path, "")
    if inner in ("", ":memory:") or "mode=memory" in query:
        raise ConfigError(
            f"{TRACKING_URI}={uri} is a database in memory, which the stages of a run cannot share: name a file, as in "
            "sqlite:///mlflow.db, or unset it to keep runs in this project"
        )
    return f"{prefix}{_absolute(base, inner)}{question}{query}"


def _absolute(base: Path, path: str) -> Path:
    return Path(os.path.abspath(base / path))


def _project() -> Path:
    """The folder that relative addresses start from; DVC names it in `DVC_ROOT` where it runs a stage in a copy."""
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()
