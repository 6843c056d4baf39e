"""Shards done by workers of a Dask cluster, through Prefect's task runner.

    async with open_workers(run.params, state=run.state) as workers:     # None: this process does them
        …

`cluster` is the stage's side, `errand` a worker's; `scoring` and `sampling` say what there is to do, `greeting` whether
a worker can, and `answers` where it keeps what the judge answered until the stage takes it into the ledger.
"""

from longreward.tasks.workers.cluster import Workers, open_workers

__all__ = ["Workers", "open_workers"]
