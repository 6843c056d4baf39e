"""The queue of calls that write to MLflow: in order, and never a reason for a run to fail.

    the store answers           each call is made at once
    it does not                 calls are queued, and tried again every RETRY_AFTER_S
    it answers with an error    that call alone is dropped, with a warning
    the run ends                one last attempt; the rest is dropped, with a warning

Results do not depend on MLflow: metrics and curves are in metrics/ and plots/, models and data in DVC.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from longreward.tasks.tracking.store import TrackingUnavailable, probe_store, store_uri, unavailable
from longreward.utils.redaction import redact

RETRY_AFTER_S = 30.0
BUSY = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")

log = logging.getLogger(__name__)


class Outbox:
    """Calls that write to MLflow's store; `clock` returns seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: deque[tuple[str, Callable[[], object]]] = deque()
        self._unavailable = False
        self._retry_at = 0.0
        self._flushing = False
        self._lock = threading.RLock()

    @property
    def paused(self) -> bool:
        """Whether calls are only queued at the moment, as the store did not answer."""
        return self._unavailable and self._clock() < self._retry_at

    def send(self, label: str, call: Callable[[], object]) -> None:
        """Make the call now or later; `label` names it in warnings. Errors of the store are not raised."""
        with self._lock:
            self._calls.append((label, call))
        self.flush()

    def flush(self, *, last: bool = False) -> None:
        """Make the queued calls. `last` does not wait for the next retry, and drops what cannot be sent."""
        with self._lock:
            if self._flushing:  # this call was sent by another one: the loop below makes it
                return
            self._flushing = True
            try:
                if last or not self.paused:
                    self._make_calls()
            finally:
                self._flushing = False
            if not last:
                return
            if self._calls:
                log.warning(
                    "MLflow's store at %s did not answer until the end: %d entries, from %s on, are not recorded "
                    "there. Results, figures (metrics/) and curves (plots/) are not affected",
                    redact(store_uri()),
                    len(self._calls),
                    self._calls[0][0],
                )
                self._calls.clear()
            self._unavailable = False

    def _make_calls(self) -> None:
        while self._calls:
            label, call = self._calls[0]
            try:
                if self._unavailable:
                    probe_store(store_uri())  # with a server that hangs, the call itself would take minutes
                call()
            except Exception as error:  # stores are plugins: SQL drivers, boto3, requests, each with its own errors
                if is_unavailable(error):
                    if not self._unavailable:
                        reason = _single_line(error)
                        if not isinstance(error, TrackingUnavailable):
                            reason = f"MLflow's store at {redact(store_uri())} does not answer: {reason}"
                        log.warning(
                            "%s; the run goes on, and what it logs is sent when the store answers again", reason
                        )
                    self._unavailable, self._retry_at = True, self._clock() + RETRY_AFTER_S
                    return
                log.warning("MLflow did not take %s: %s", label, _single_line(error))
            else:
                if self._unavailable:
                    log.info("MLflow's store answers again")
                self._unavailable = False
            self._calls.popleft()


outbox = Outbox()
"""The queue of this process."""


def is_unavailable(error: Exception) -> bool:
    """Whether the store does not answer at all, so that the same call may succeed later."""
    if isinstance(error, TrackingUnavailable) or getattr(error, "error_code", "") in BUSY:
        return True
    try:
        probe_store(store_uri())
    except TrackingUnavailable:
        return True
    return False


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn the errors of calls whose results are needed into TrackingUnavailable."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise unavailable(store_uri(), error) from error


def _single_line(error: Exception) -> str:
    return " ".join(redact(f"{error}" if isinstance(error, TrackingUnavailable) else repr(error)).split())[:500]
