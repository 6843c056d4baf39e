"""Log lines: the library's reach the terminal and the Prefect UI, and an error of ours comes without its traceback."""

import logging

import httpx
from prefect._internal.concurrency import logger as services

from longreward.errors import LongRewardError

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
