"""Run shards of `sample` and `score` on the workers of a Dask cluster, through Prefect's task runner.

    async with open_workers(run.params, state=run.state, ledger=ledger()) as workers:   # None: run shards in process
        ...

`cluster.py` is the stage's side, `shard_tasks.py` the worker's side, `worker_ledger.py` the judge's replies on a
worker until the stage has merged them into the project's ledger.
"""

from longreward.tasks.workers.cluster import Workers, open_workers

__all__ = ["Workers", "open_workers"]
