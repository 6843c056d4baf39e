"""Where MLflow keeps runs and artifacts, as addresses that hold in every folder.

Stages work in private copies of the checkout, which are deleted after the run. A relative address would lead into the
copy, and so would MLflow's default for artifacts, `./mlruns`.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from longreward.errors import ConfigError, StateError
from longreward.tasks.state import experiment_copies, make_folder, state_folder, state_lock
from longreward.utils.redaction import redact

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
        return make_folder(state_folder() / "mlartifacts").as_uri()
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


# A quick look at MLflow's store before it is used.
#
# MLflow itself repeats a failed request for five minutes, and a failed connection to a database for two; a store that
# is not there, or refuses the login, is told from a busy one here within seconds.


TIMEOUT_S = 5.0
PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433}
# Module of a database driver -> what to install.
DRIVERS = {
    "psycopg": "'longreward[postgres]'",  # what postgresql:// means to SQLAlchemy 2.1
    "psycopg2": "'longreward[postgres]'",  # and to 2.0
    "pymysql": "'longreward[mysql]'",
    "MySQLdb": "mysqlclient (or use mysql+pymysql://)",
}


class TrackingUnavailable(StateError):
    """MLflow's store does not answer, or does not let this project in. The message holds no password."""


def probe_store(uri: str, *, timeout_s: float = TIMEOUT_S) -> None:
    """Raise TrackingUnavailable, in one line that says what to do, unless the store answers and accepts the login."""
    if is_server(uri):
        _probe_server(uri, timeout_s)
    elif is_database(uri) and not uri.startswith("sqlite"):
        _probe_database(uri, timeout_s)


def unavailable(uri: str, reason: object, todo: str = "") -> TrackingUnavailable:
    """Build the error for a store that cannot be used."""
    words = " ".join(redact(str(reason)).split())
    return TrackingUnavailable(f"MLflow's store at {redact(uri)} cannot be used: {words}{f'; {todo}' if todo else ''}")


def missing_driver(uri: str, error: ImportError) -> TrackingUnavailable:
    """Build the error for a database whose Python driver is not installed."""
    module = (error.name or "").partition(".")[0]
    package = DRIVERS.get(module, module or "the driver that its address names")
    return unavailable(
        uri, f"the database driver {module or error} is not installed", f"`python -m pip install {package}`"
    )


def _probe_server(uri: str, timeout_s: float) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    start = "start that server, or unset MLFLOW_TRACKING_URI to keep runs in this project"
    try:
        # MLflow's own client, as it knows about credential files, certificates and authentication plugins. `/health`
        # would not do: it needs no login.
        answer: Any = http_request(
            get_default_host_creds(uri),
            "/api/2.0/mlflow/experiments/search",
            "GET",
            params={"max_results": 1},
            timeout=timeout_s,
            max_retries=0,
            raise_on_status=False,
        )
    except MlflowException as error:
        raise unavailable(uri, f"no answer ({_cause(error)})", start) from None
    if answer.status_code in (401, 403):
        raise unavailable(
            uri,
            f"it refuses the login ({answer.status_code})",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        )
    if answer.status_code != 200:
        raise unavailable(uri, f"it answers with {answer.status_code} to experiments/search", start)
    try:
        answer.json()
    except ValueError:
        raise unavailable(uri, "what answers there is no MLflow server", "check MLFLOW_TRACKING_URI") from None


def _cause(error: BaseException) -> str:
    """The last, most telling part of a nested connection error."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return redact(str(error))[:200]


def _probe_database(uri: str, timeout_s: float) -> None:
    import sqlalchemy
    from sqlalchemy.exc import SQLAlchemyError

    try:
        url = sqlalchemy.make_url(uri)
        limited = url.get_driver_name() in ("psycopg", "psycopg2", "pymysql", "mysqldb")
        limit = {"connect_timeout": max(1, int(timeout_s))} if limited else {}
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args=limit)
        if port := url.host and (url.port or PORTS.get(url.get_backend_name())):
            # First the port alone: not every driver has a time limit.
            socket.create_connection((url.host, port), timeout=timeout_s).close()
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("select 1"))
    except ImportError as error:
        raise missing_driver(uri, error) from None
    except OSError as error:
        raise unavailable(uri, f"no answer ({error})", "start that database, or unset MLFLOW_TRACKING_URI") from None
    except SQLAlchemyError as error:
        raise unavailable(uri, getattr(error, "orig", None) or error, "check MLFLOW_TRACKING_URI") from None


# MLflow's store: SQLite in the state folder unless `MLFLOW_TRACKING_URI` names one.


if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "longreward"

# MLflow's defaults hold a training up for five minutes where its server is away. What is not sent is kept (`outbox`).
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}


@cache
def client() -> MlflowClient:
    """Open the store; raises TrackingUnavailable, in one line, where that cannot be done.

    Under a lock: when several processes first use a new SQLite store at once, its tables are made twice.
    """
    from mlflow import MlflowClient

    uri = store_uri()
    with state_lock("mlflow"), opening(uri):
        opened = MlflowClient(tracking_uri=uri, registry_uri=uri)
        _ensure_experiment(opened)
    return opened


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """Look whether the store answers, and turn what goes wrong in the block into TrackingUnavailable."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # else a traceback for a database that ended
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # a warning for each retry
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for every small file
    # MLflow prints the address of each run that ends on a tracking server, with the login that it may hold.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    try:
        probe_store(uri)
        yield
    except ImportError as error:
        raise missing_driver(uri, error) from None
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise unavailable(uri, error) from error


@cache
def experiment_id() -> str:
    """The experiment that all runs of this project belong to."""
    return str(client().get_experiment_by_name(EXPERIMENT).experiment_id)


def has_experiment() -> bool:
    """Whether there are runs of this project, found out without making a store or an experiment for them.

    Raises TrackingUnavailable, also where the experiment is not to be used.
    """
    from mlflow import MlflowClient

    uri = store_uri()
    if uri.startswith("sqlite") and not Path(uri.partition(":///")[2].partition("?")[0]).exists():
        return False
    with opening(uri):
        found = MlflowClient(uri, uri).get_experiment_by_name(EXPERIMENT)
    if found is not None:
        _check_experiment(found)
    return found is not None


def _ensure_experiment(opened: MlflowClient) -> None:
    from mlflow.exceptions import MlflowException

    found = opened.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            opened.create_experiment(EXPERIMENT, artifact_location=artifact_location(EXPERIMENT))
        except MlflowException as error:  # another machine may have been quicker, on a server that they share
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    else:
        _check_experiment(found)


def _check_experiment(found: Any) -> None:
    """Refuse an experiment that would lose what it is given. Nothing in MLflow can change where it keeps artifacts."""
    another = "set MLFLOW_EXPERIMENT_NAME to a new name"
    if found.lifecycle_stage == "deleted":
        raise TrackingUnavailable(f"MLflow's experiment {EXPERIMENT!r} is deleted: restore it, or {another}")
    place = urlsplit(found.artifact_location or "")
    if place.scheme in ("", "file") and Path(url2pathname(place.path)).is_relative_to(experiment_copies()):
        raise TrackingUnavailable(
            f"MLflow's experiment {EXPERIMENT!r} keeps its artifacts in {found.artifact_location}, where an earlier "
            f"version put it and which every run with -S deletes: {another}"
        )
