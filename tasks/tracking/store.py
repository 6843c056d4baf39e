"""MLflow's store: its address, a quick check whether it answers, and the client.

The store is SQLite in the state folder unless `MLFLOW_TRACKING_URI` names one. Addresses are absolute, since stages
also run in private copies of the checkout, which are deleted after the run: a relative address would lead into the
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
from longreward.tasks.state import make_folder, state_folder, state_lock, state_path
from longreward.utils.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRACKING_URI = "MLFLOW_TRACKING_URI"
ARTIFACT_ROOT = "MLFLOW_DEFAULT_ARTIFACT_ROOT"  # the variable that `mlflow server` uses for the same purpose
DATABASE = "mlflow.db"  # in the state folder
EXPERIMENT = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "longreward"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
NO_SCHEME = ("databricks", "databricks-uc", "uc")  # MLflow's addresses without a scheme that are not paths
PROBE_TIMEOUT_S = 5.0
PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433}
# Module of a database driver -> what to install.
DRIVERS = {
    "psycopg": "'longreward[postgres]'",  # the driver of postgresql:// in SQLAlchemy 2.1
    "psycopg2": "'longreward[postgres]'",  # and in 2.0
    "pymysql": "'longreward[mysql]'",
    "MySQLdb": "mysqlclient (or use mysql+pymysql://)",
}
# With MLflow's defaults a training waits five minutes for a server that is gone. `outbox` keeps what is not sent.
HTTP_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}


class TrackingUnavailable(StateError):
    """MLflow's store does not answer, or refuses the login. The message contains no password."""


def store_uri() -> str:
    """Return the absolute address of the store: `MLFLOW_TRACKING_URI`, else a SQLite file in the state folder."""
    configured = os.environ.get(TRACKING_URI)
    return absolute_uri(configured, _project()) if configured else f"sqlite:///{state_folder() / DATABASE}"


def require_store() -> None:
    """Raise ConfigError if there is no store to read from: MLflow would create one in any folder."""
    if not os.environ.get(TRACKING_URI) and not (state_path() / DATABASE).is_file():
        raise ConfigError(
            f"{state_path().parent} has no runs yet; change to the folder of a project with runs, or set "
            f"{TRACKING_URI} to the address of a store"
        )


def artifact_location(experiment: str) -> str | None:
    """Return where a new experiment keeps its artifacts; None if the store itself decides (a tracking server).

    For databases it is `MLFLOW_DEFAULT_ARTIFACT_ROOT`, else the state folder of this checkout.
    """
    if not is_database(store_uri()):
        return None  # a file store uses a folder beside its runs, a server the root that it was started with
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
    """Resolve the address of a local file or folder against `base`; return other addresses unchanged.

    Raises ConfigError for a database in memory, which the processes of a run cannot share.
    """
    scheme, separator, rest = uri.partition("://")
    if separator and scheme.partition("+")[0] == "sqlite":
        path, question, query = rest.removeprefix("/").partition("?")
        prefix = "file:" if path.startswith("file:") else ""
        file = path.removeprefix("file:")
        if file in ("", ":memory:") or "mode=memory" in query:
            raise ConfigError(
                f"{TRACKING_URI}={uri} is a database in memory, which the stages of a run cannot share: name a file, "
                "as in sqlite:///mlflow.db, or unset it to keep runs in this project"
            )
        return f"{scheme}:///{prefix}{os.path.abspath(base / file)}{question}{query}"
    if uri.startswith("file:"):
        return Path(os.path.abspath(base / url2pathname(urlsplit(uri).path))).as_uri()
    if separator or uri in NO_SCHEME:
        return uri
    return Path(os.path.abspath(base / uri)).as_uri()


def is_database(uri: str) -> bool:
    """Whether MLflow opens this address as a database, without a server between."""
    return uri.partition("://")[0].partition("+")[0] in DATABASES


def is_server(uri: str) -> bool:
    """Whether this is the address of a tracking server."""
    return uri.startswith(("http://", "https://"))


def _project() -> Path:
    """Return the base of relative addresses; DVC names it in `DVC_ROOT` when it runs a stage in a copy."""
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()


def probe_store(uri: str, *, timeout_s: float = PROBE_TIMEOUT_S) -> None:
    """Raise TrackingUnavailable, with advice, unless the store answers and accepts the login.

    MLflow itself repeats a failed request for five minutes and a failed connection to a database for two. This tells
    within seconds whether a store is gone, refuses the login, or is only busy.
    """
    if is_server(uri):
        _probe_server(uri, timeout_s)
    elif is_database(uri) and not uri.startswith("sqlite"):
        _probe_database(uri, timeout_s)


def unavailable(uri: str, reason: object, todo: str = "") -> TrackingUnavailable:
    """Build the error for a store that cannot be used."""
    message = " ".join(redact(str(reason)).split())
    advice = f"; {todo}" if todo else ""
    return TrackingUnavailable(f"MLflow's store at {redact(uri)} cannot be used: {message}{advice}")


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
        # MLflow's own client knows about credential files, certificates and authentication plugins. `/health` needs no
        # login.
        reply: Any = http_request(
            get_default_host_creds(uri),
            "/api/2.0/mlflow/experiments/search",
            "GET",
            params={"max_results": 1},
            timeout=timeout_s,
            max_retries=0,
            raise_on_status=False,
        )
    except MlflowException as error:
        cause: BaseException = error
        while inner := cause.__cause__ or cause.__context__:  # the innermost error tells most about a connection
            cause = inner
        raise unavailable(uri, f"no answer ({redact(str(cause))[:200]})", start) from None
    if reply.status_code in (401, 403):
        raise unavailable(
            uri,
            f"it refuses the login ({reply.status_code})",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        )
    if reply.status_code != 200:
        raise unavailable(uri, f"it answers with {reply.status_code} to experiments/search", start)
    try:
        reply.json()
    except ValueError:
        raise unavailable(uri, "what answers there is no MLflow server", "check MLFLOW_TRACKING_URI") from None


def _probe_database(uri: str, timeout_s: float) -> None:
    import sqlalchemy
    from sqlalchemy.exc import SQLAlchemyError

    try:
        url = sqlalchemy.make_url(uri)
        has_timeout = url.get_driver_name() in ("psycopg", "psycopg2", "pymysql", "mysqldb")
        connect_args = {"connect_timeout": max(1, int(timeout_s))} if has_timeout else {}
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args=connect_args)
        if port := url.host and (url.port or PORTS.get(url.get_backend_name())):
            # Try the port first, since not every driver has a timeout.
            socket.create_connection((url.host, port), timeout=timeout_s).close()
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("select 1"))
    except ImportError as error:
        raise missing_driver(uri, error) from None
    except OSError as error:
        raise unavailable(uri, f"no answer ({error})", "start that database, or unset MLFLOW_TRACKING_URI") from None
    except SQLAlchemyError as error:
        raise unavailable(uri, getattr(error, "orig", None) or error, "check MLFLOW_TRACKING_URI") from None


@cache
def client() -> MlflowClient:
    """Open the store, and create the experiment in it; raises TrackingUnavailable.

    Under a lock: when several processes first use a new SQLite store at once, its tables are created twice.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = store_uri()
    with state_lock("mlflow"), opening(uri):
        opened = MlflowClient(tracking_uri=uri, registry_uri=uri)
        if (experiment := opened.get_experiment_by_name(EXPERIMENT)) is not None:
            _check_not_deleted(experiment)
            return opened
        try:
            opened.create_experiment(EXPERIMENT, artifact_location=artifact_location(EXPERIMENT))
        except MlflowException as error:  # on a shared server another machine may have created it meanwhile
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    return opened


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """Check that the store answers, and turn its errors in the block into TrackingUnavailable."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # logs tracebacks of lost connections
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # logs a warning for each retry
    for name, value in HTTP_LIMITS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one for every small file
    # MLflow prints the address of each run that ends on a tracking server, with the login that it may contain.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    try:
        probe_store(uri)
        yield
    except ImportError as error:
        raise missing_driver(uri, error) from None
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise unavailable(uri, error) from error


def use_store() -> None:
    """Make MLflow's own functions (`mlflow.log_assessment`, …) use this store and experiment."""
    import mlflow

    client()
    mlflow.set_tracking_uri(store_uri())
    mlflow.set_experiment(experiment_id=experiment_id())


@cache
def experiment_id() -> str:
    """Return the id of the experiment of all runs of this project."""
    return str(client().get_experiment_by_name(EXPERIMENT).experiment_id)


def has_experiment() -> bool:
    """Whether the experiment exists; creates neither a store nor an experiment.

    Raises TrackingUnavailable, also if the experiment is deleted.
    """
    from mlflow import MlflowClient

    uri = store_uri()
    if uri.startswith("sqlite") and not Path(uri.partition(":///")[2].partition("?")[0]).exists():
        return False
    with opening(uri):
        experiment = MlflowClient(uri, uri).get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        _check_not_deleted(experiment)
    return experiment is not None


def _check_not_deleted(experiment: Any) -> None:
    if experiment.lifecycle_stage == "deleted":
        raise TrackingUnavailable(
            f"MLflow's experiment {EXPERIMENT!r} is deleted: restore it, or set MLFLOW_EXPERIMENT_NAME to a new name"
        )
