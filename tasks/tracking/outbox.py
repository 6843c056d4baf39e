"""What this process sends to MLflow: in order, and never a reason for a run to stop.

    the store answers         each call is made at once
    it does not               calls are kept; one is tried again when RETRY_AFTER_S are over and the store answers
    it answers, but refuses   that call alone is dropped, with a warning
    the run ends              one last attempt; what is left is dropped, with a warning

Results do not depend on MLflow: figures and curves are in metrics/ and plots/, models and data with DVC.
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
    """Calls that write to MLflow's store. `now` is a clock in seconds."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._calls: deque[tuple[str, Callable[[], object]]] = deque()
        self._away = False
        self._retry_at = 0.0
        self._flushing = False
        self._lock = threading.RLock()

    @property
    def paused(self) -> bool:
        """Whether calls are only kept at the moment, as the store did not answer."""
        return self._away and self._now() < self._retry_at

    def send(self, what: str, call: Callable[[], object]) -> None:
        """Make the call now, or later; `what` names it in a warning. Raises nothing that the store causes."""
        with self._lock:
            self._calls.append((what, call))
        self.flush()

    def flush(self, *, last: bool = False) -> None:
        """Make the calls that wait. `last` does not wait for the pause to end, and drops what cannot be sent."""
        with self._lock:
            if not self._flushing:  # a call that sends more adds to the queue, which is being worked through
                self._flushing = True
                try:
                    if self._calls and (last or not self.paused) and self._answers_again():
                        self._work_through()
                finally:
                    self._flushing = False
                if last:
                    self._drop_rest()

    def _answers_again(self) -> bool:
        if not self._away:
            return True
        try:
            # First a quick look: with a server that hangs, the call itself would take minutes.
            probe_store(store_uri())
        except TrackingUnavailable:
            self._retry_at = self._now() + RETRY_AFTER_S
            return False
        return True

    def _work_through(self) -> None:
        while self._calls:
            what, call = self._calls[0]
            try:
                call()
            except Exception as error:  # stores are plugins: SQL drivers, boto3, requests, each with its own errors
                if is_away(error):
                    self._pause(error)
                    return
                log.warning("MLflow did not take %s: %s", what, _one_line(error))
            else:
                self._resume()
            self._calls.popleft()

    def _pause(self, error: Exception) -> None:
        if not self._away:
            words = _one_line(error)
            if not isinstance(error, TrackingUnavailable):
                words = f"MLflow's store at {redact(store_uri())} does not answer: {words}"
            log.warning("%s; the run goes on, and what it logs is sent when the store answers again", words)
        self._away, self._retry_at = True, self._now() + RETRY_AFTER_S

    def _resume(self) -> None:
        if self._away:
            log.info("MLflow's store answers again")
        self._away = False

    def _drop_rest(self) -> None:
        if self._calls:
            log.warning(
                "MLflow's store at %s did not answer until the end: %d entries, from %s on, are not recorded there. "
                "Results, figures (metrics/) and curves (plots/) are not affected",
                redact(store_uri()),
                len(self._calls),
                self._calls[0][0],
            )
            self._calls.clear()
        self._away = False


outbox = Outbox()
"""That of this process."""


def is_away(error: Exception) -> bool:
    """Whether the store as a whole does not answer, so that the same call may succeed later."""
    if isinstance(error, TrackingUnavailable) or getattr(error, "error_code", "") in BUSY:
        return True
    try:
        probe_store(store_uri())
    except TrackingUnavailable:
        return True
    return False


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn the errors of a call whose result is needed into TrackingUnavailable, in one line."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise unavailable(store_uri(), error) from error


def _one_line(error: Exception) -> str:
    return " ".join(redact(f"{error}" if isinstance(error, TrackingUnavailable) else repr(error)).split())[:500]
