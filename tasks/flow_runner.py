"""A flow as a program: on the Prefect server of this checkout, with an exit code and without tracebacks for what a
user did or can mend."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, NoReturn

import httpx
from prefect._internal.concurrency import logger as services
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from longreward.errors import LongRewardError
from longreward.tasks.prefect_server import check_server, prefect_server
from longreward.utils.redaction import redact

SERVER_TIMEOUT_S = 5.0  # of the look whether Prefect's server answers

log = logging.getLogger(__name__)


class FinalState:
    """How the one flow of this process ended, kept as soon as that is known: Prefect may fail to record it."""

    state: State[Any] | None = None
    server_gone = False

    async def of(self, run: Callable[[], Coroutine[Any, Any, State[Any]]]) -> State[Any]:
        """The flow's end state; where Prefect's server is gone by then, the one that was noted."""
        self.state, self.server_gone = None, False
        with ExitStack() as self._settings:
            try:
                return await run()
            except httpx.HTTPError as error:
                if self.state is None:  # the flow had not come to its end
                    raise
                log.warning("Prefect's server was not told that the run ended (%s): there it seems to run", error)
                return self.state

    async def note(self, state: State[Any]) -> State[Any]:
        """Keeps the state before the flow tells Prefect's server."""
        self.state = state
        self.server_gone = not await server_answers()
        if self.server_gone and self._settings is not None:
            # The client would try each call for a minute, and the engine makes several at the end of a run.
            self._settings.enter_context(temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}))
        return state

    _settings: ExitStack | None = None


final_state = FinalState()


def run_as_program(run: Callable[[], Coroutine[Any, Any, State[Any]]]) -> NoReturn:
    """Ends the process: 0 where the flow completed, 1 where it failed, 130 after Ctrl-C, 143 after SIGTERM."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        server = prefect_server()
        with temporary_settings(server.settings):
            asyncio.run(check_server(server))
            state = asyncio.run(run())
    except LongRewardError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except httpx.TransportError as error:
        sys.exit(
            f"Prefect's server at {redact(server.url)} went away during the run ({error}); what DVC has recorded "
            "stays, and the same command goes on from there"
        )
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except TerminationSignal:
        sys.exit(128 + signal.SIGTERM)
    code = 0 if state.is_completed() else 1
    if final_state.server_gone:
        # At exit Prefect 3.8 tries to deliver each event of each shard, for about ten seconds each.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


async def server_answers() -> bool:
    """One quick look at Prefect's server, with a time limit; no login is needed for it."""
    try:
        async with httpx.AsyncClient(timeout=SERVER_TIMEOUT_S) as client:
            await client.get(f"{str(PREFECT_API_URL.value()).rstrip('/')}/health")
    except httpx.HTTPError:
        return False
    return True


def _interrupt(number: int, frame: object) -> None:
    """Ctrl-C ends a stage where it stands; asyncio's own handler would wait for a training to come to its end."""
    raise KeyboardInterrupt


# Log lines: the library's reach the terminal and the Prefect UI, and an error of ours comes without its traceback.


OURS = ("longreward", "tasks")


def configure_logging() -> None:
    """Settles both; calling it again changes nothing. Prefect's handlers are on these loggers already."""
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_shorten)
        logging.getLogger(name).addFilter(_is_news)
    for name in ("APILogWorker", "EventsWorker"):
        logging.getLogger(name).setLevel(logging.ERROR)  # else: "Still processing items", at the end of every run
    # While Prefect's server is away, else: several lines for each event of each shard. This logger is one of Prefect's
    # own kind (3.8), which `logging.getLogger` does not find and whose level has no effect.
    services.addFilter(_is_delivered)
    logging.getLogger("prefect.events.clients").addFilter(_is_first)


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what Prefect repeats at the end of a run.

    A failed run gets its error once more on one long line. Each completed task run gets a line of its own, which are
    dozens for a stage in shards; progress lines and the stage's own last line say more.
    """
    message = str(record.msg)
    if record.levelno == logging.ERROR:
        return not message.startswith("Finished in state")
    return not (record.name.startswith("prefect.task_runs") and message.startswith("Finished in state Completed("))


def _is_delivered(record: logging.LogRecord) -> bool:
    """Not the events that could not be sent, each printed whole."""
    return not str(record.msg).startswith("Service %r failed to process item")


def _is_first(record: logging.LogRecord) -> bool:
    """One warning that the server cannot be reached, and all that is no warning."""
    if record.levelno != logging.WARNING:
        return True
    first = not _said
    _said.add(record.name)
    return first


_said: set[str] = set()


def _shorten(record: logging.LogRecord) -> bool:
    """An error of ours explains itself; any other keeps its traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, httpx.HTTPError) and str(record.msg).startswith("Encountered exception during execution"):
        return False  # of the engine, which cannot reach Prefect's server; the stage says so itself
    if isinstance(error, LongRewardError):
        record.msg, record.args, record.exc_info = f"{type(error).__name__}: {error}", (), None
    return True
