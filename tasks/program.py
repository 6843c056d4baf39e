"""A flow as a program: on the Prefect server of this checkout, with an exit code and without tracebacks for what a
user did or can mend."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.settings import temporary_settings

from longreward.errors import LongRewardError
from tasks.server import check_server, prefect_server


def run_program(run: Callable[[], Coroutine[Any, Any, State[Any]]]) -> NoReturn:
    """Ends the process: 0 where the flow completed, 1 where it failed, 130 after Ctrl-C, 143 after SIGTERM."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        server = prefect_server()
        with temporary_settings(server.settings):
            asyncio.run(check_server(server))
            state = asyncio.run(run())
    except LongRewardError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except TerminationSignal:
        sys.exit(128 + signal.SIGTERM)
    sys.exit(0 if state.is_completed() else 1)


def _interrupt(number: int, frame: object) -> None:
    """Ctrl-C ends a stage where it stands; asyncio's own handler would wait for a training to come to its end."""
    raise KeyboardInterrupt
