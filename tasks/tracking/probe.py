"""A quick look at MLflow's store before it is used.

MLflow itself repeats a failed request for five minutes, and a failed connection to a database for two; a store that
is not there, or refuses the login, is told from a busy one here within seconds.
"""

from __future__ import annotations

import socket
from typing import Any

from longreward.errors import StateError
from longreward.tasks.tracking.uris import is_database, is_server
from longreward.utils.redaction import redact

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
