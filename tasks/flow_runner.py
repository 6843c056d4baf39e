"""Run a flow as the main program of a process: Prefect server, exit code, log lines, and how the flow ended.

Errors that a user caused or can correct end the process with one line instead of a traceback.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, NoReturn

import httpx
from prefect._internal.concurrency import logger as prefect_services_logger
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from longreward.errors import LongRewardError
from longreward.tasks.console_log import configure_console
from longreward.tasks.interruption import Interrupted, cancelled_state, received_signal
from longreward.tasks.prefect_server import check_server, prefect_server
from longreward.utils.console import print_error
from longreward.utils.redaction import redact

HEALTH_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


class FinalState:
    """How the flow of this process ended, recorded before it is sent to Prefect, which may fail to record it."""

    def __init__(self) -> None:
        self.state: State[Any] | None = None
        self.server_unreachable = False
        self._settings = ExitStack()

    async def wait_for(self, run: Callable[[], Coroutine[Any, Any, State[Any]]]) -> State[Any]:
        """Return the state in which the flow ends; the recorded one if Prefect's server is gone by then."""
        self.state, self.server_unreachable = None, False
        with self._settings:
            try:
                return await run()
            except httpx.HTTPError as error:
                if self.state is None:  # the flow itself did not end
                    raise
                log.warning("the end of the run could not be recorded in Prefect, where it seems to run: %s", error)
                return self.state

    async def record(self, state: State[Any]) -> State[Any]:
        """Record the state and return it; called as the last step of the flow."""
        self.state = state
        self.server_unreachable = not await server_answers()
        if self.server_unreachable:
            # The client would retry each call for a minute, and the engine makes several at the end of a run.
            self._settings.enter_context(temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}))
        return state


final_state = FinalState()


def run_as_program(run: Callable[[], Coroutine[Any, Any, State[Any]]], *, reports_error: bool = True) -> NoReturn:
    """Run a flow and exit: 0 if it completed, 1 if it failed, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.

    With `reports_error` the message of a failed flow is printed; the pipeline reports those of its stages itself.
    """
    signal.signal(signal.SIGINT, _raise_interrupt)
    try:
        configure_logging()
        server = prefect_server()
        with temporary_settings(server.settings):
            asyncio.run(check_server(server))
            state = asyncio.run(run())
    except LongRewardError as error:
        print_error(error)
        sys.exit(1)
    except httpx.TransportError as error:
        print_error(
            f"Prefect's server at {redact(server.url)} went away during the run ({error}); what DVC has recorded "
            "stays, and the same command continues from there"
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except TerminationSignal:
        sys.exit(128 + signal.SIGTERM)
    except Interrupted:  # between two runs of a study
        state = cancelled_state()
    number = received_signal()
    code = 128 + number if number else 0 if state.is_completed() else 1
    if state.is_failed() and reports_error:
        print_error(state.message or state.name)
    if final_state.server_unreachable:
        # At exit Prefect 3.8 tries to deliver each event of each shard, for about ten seconds each.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


async def server_answers() -> bool:
    """Whether Prefect's server answers its health check within HEALTH_TIMEOUT_S; needs no login."""
    try:
        async with httpx.AsyncClient(timeout=HEALTH_TIMEOUT_S) as client:
            await client.get(f"{str(PREFECT_API_URL.value()).rstrip('/')}/health")
    except httpx.HTTPError:
        return False
    return True


def _raise_interrupt(number: int, frame: object) -> None:
    """End a stage at once on Ctrl-C; asyncio's own handler would wait for a training to end."""
    raise KeyboardInterrupt


def configure_logging() -> None:
    """Show the library's log lines and drop what Prefect repeats; may be called again.

    Prefect attaches its handlers to the library's logger itself (PREFECT_LOGGING_EXTRA_LOGGERS).
    """
    configure_console()
    logging.getLogger("longreward").setLevel(logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_filter_run_log)
    for name in ("APILogWorker", "EventsWorker"):
        logging.getLogger(name).setLevel(logging.ERROR)  # "Still processing items" at the end of every run
    # With the server gone, Prefect 3.8 prints each event of each shard that it cannot deliver. This logger is of
    # Prefect's own kind: `logging.getLogger` does not find it, and its level has no effect.
    prefect_services_logger.addFilter(_drop_undelivered_events)
    logging.getLogger("prefect.events.clients").addFilter(_warn_once)


def _filter_run_log(record: logging.LogRecord) -> bool:
    """Log a LongRewardError without its traceback, and drop what is logged twice or reported elsewhere."""
    error, message = record.exc_info[1] if record.exc_info else None, str(record.msg)
    if isinstance(error, httpx.HTTPError) and message.startswith("Encountered exception during execution"):
        return False  # the engine cannot reach Prefect's server, which the stage reports itself
    if received_signal() and message.startswith("Crash detected!"):
        return False  # its state is Cancelled, see `tasks.interruption`
    if isinstance(error, LongRewardError):
        record.msg, record.args, record.exc_info = f"{type(error).__name__}: {error}", (), None
    if record.levelno == logging.ERROR:
        return not message.startswith("Finished in state")  # a failed run's second, long error line
    # The line of each completed task run, one per shard.
    return not (record.name.startswith("prefect.task_runs") and message.startswith("Finished in state Completed("))


def _drop_undelivered_events(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Service %r failed to process item")


_warned: set[str] = set()


def _warn_once(record: logging.LogRecord) -> bool:
    """Keep one warning of each logger, and everything that is not a warning."""
    if record.levelno != logging.WARNING:
        return True
    first = record.name not in _warned
    _warned.add(record.name)
    return first
