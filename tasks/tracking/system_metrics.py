"""CPU, memory, disk, network and GPU use of a stage as MLflow's system metrics, every ten seconds.

`MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false` turns them off; MLflow's own variables set the interval.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from longreward.tasks.tracking.run import UNKNOWN, Run
from longreward.tasks.tracking.store import store_uri

ENABLED = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
DELAY_S = 10.0

log = logging.getLogger(__name__)


@contextmanager
def log_system_metrics(run: Run) -> Iterator[None]:
    """Measure while the block runs, in a thread that ends with it.

    MLflow's monitor opens its store a second time, so it starts after DELAY_S: a short stage pays nothing.
    """
    if (os.environ.get(ENABLED) or "true").lower() in ("false", "0"):
        yield
        return
    ended = threading.Event()

    def monitor() -> None:
        if ended.wait(DELAY_S) or run.id == UNKNOWN:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
        try:
            system_metrics = SystemMetricsMonitor(run.id, resume_logging=True, tracking_uri=store_uri())
            system_metrics.start()
            ended.wait()
            system_metrics.finish()
        except Exception:  # errors of the store or of a GPU's driver must not end a stage
            log.debug("system metrics ended", exc_info=True)

    thread = threading.Thread(target=monitor, name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10)
