"""An MLflow store of a test file's own: making its tables takes seconds."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from longreward.tasks import tracking
from longreward.tasks.tracking.store import client, experiment_id


@contextmanager
def own_store(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Works in `folder`, whose store is new; gives what undoes its settings at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LONGREWARD_STATE", str(folder / "state"))
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", tracking.PARENT):
            patch.delenv(name, raising=False)
        client.cache_clear()
        experiment_id.cache_clear()
        yield patch
    client.cache_clear()
    experiment_id.cache_clear()
