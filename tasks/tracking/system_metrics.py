"""What a stage asks of the machine: CPU, memory, disk, network and GPU as MLflow's system metrics, every ten seconds.

`MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false` turns it off; MLflow's own variables set the interval.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from longreward.tasks.tracking.run import UNKNOWN, Run
from longreward.tasks.tracking.store import store_uri

VARIABLE = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
FIRST_AFTER_S = 10.0

log = logging.getLogger(__name__)


@contextmanager
def log_system_metrics(run: Run) -> Iterator[None]:
    """Measures while the block runs, from a thread of its own that ends with it.

    MLflow's monitor opens its store a second time, so it is made only for a stage that is still there after
    FIRST_AFTER_S: a short one pays nothing.
    """
    if (os.environ.get(VARIABLE) or "true").lower() in ("false", "0"):
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(run, ended), name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10)


def _watch(run: Run, ended: threading.Event) -> None:
    if ended.wait(FIRST_AFTER_S) or run.id == UNKNOWN:
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
    try:
        monitor = SystemMetricsMonitor(run.id, resume_logging=True, tracking_uri=store_uri())
        monitor.start()
        ended.wait()
        monitor.finish()
    except Exception:  # whatever the store or a GPU's driver does, a stage does not need these figures
        log.debug("system metrics ended", exc_info=True)
