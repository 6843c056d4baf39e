"""Shards on Dask workers: processes on this machine, a Prefect server and a judge over HTTP."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from child_server import offline_judge_server, server_stats
from prefect import flow

import longreward
from longreward.errors import WorkerError
from longreward.judge import open_judge
from longreward.judge.ledger import Ledger
from longreward.models.policy import load_policy
from longreward.models.sampling import sample
from longreward.params import Params
from longreward.records import Example, Response
from longreward.reward import ScoredExample, Scorer
from longreward.tasks.prefect_server import PrefectServer
from longreward.tasks.sample_shards import Sampled, sample_in_shards
from longreward.tasks.score_shards import score_in_shards, score_with_workers
from longreward.tasks.workers import Workers, open_workers
from longreward.tasks.workers.cluster import open_worker_policy
from longreward.tasks.workers.shard_tasks import code_hash

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

ROOT = Path(longreward.__file__).parents[1]
# For processes that import the flows of this file: the package before tests/longreward, which has the same name.
IMPORT_PATH = os.pathsep.join(map(str, (ROOT, Path(__file__).parent, Path(__file__).parents[1])))
NAMES = ("Ann Lee", "Tom Ray", "Mara Voss", "Jon Hale", "Eve Stone", "Max Orr", "Ada Moss", "Ben Cole")
CONCURRENCY = WORKERS = 4
Items = Sequence[tuple[Example, Sequence[Response]]]


@pytest.fixture(autouse=True)
def reset_code_hash() -> None:
    """Clear the cached hash: a stage is a separate process, but here the cache may be older than the code."""
    code_hash.cache_clear()


def make_items() -> list[tuple[Example, list[Response]]]:
    items = []
    for n, name in enumerate(NAMES):
        query = f"What did {name} do?"
        context = f"Keld was founded by {name} in 19{n}5. The mill was built in 19{n}9. " * 3
        texts = [f"{name} founded Keld in 19{n}5. The mill number {k} was built in 186{k}." for k in range(3)]
        answers = [Response(id=f"{n}-{k}", example_id=str(n), query=query, text=text) for k, text in enumerate(texts)]
        items.append((Example(id=str(n), document_id=str(n), context=context, query=query), answers))
    return items


def request_counts(url: str) -> tuple[int, int]:
    """Return the number of requests to the server, and how many of them are distinct."""
    stats = server_stats(url)
    return stats["requests"], stats["distinct"]


def settings(url: str, **workers: Any) -> Params:
    return Params.model_validate(
        {
            "judge": {"kind": "http", "base_url": url, "model": "m", "max_concurrency": CONCURRENCY},
            "score": {"shard_size": 2, "extraction_chunk_tokens": 24, "evidence_chunk_tokens": 12},
            "workers": {"kind": "dask", **workers},
            "policy": {"base_model": str(ROOT / "models/tiny-base"), "dtype": "float32"},
            "sample": {"n": 2, "max_new_tokens": 8, "shard_size": 2},
        }
    )


@asynccontextmanager
async def kill_worker_after(requests: int, url: str) -> AsyncIterator[None]:
    """Kill one worker of this process with SIGKILL once the judge has received so many requests."""

    async def kill() -> None:
        while (await asyncio.to_thread(request_counts, url))[0] < requests:  # noqa: ASYNC110  # another process counts
            await asyncio.sleep(0.05)
        os.kill(worker_processes()[0].pid, signal.SIGKILL)

    killer = asyncio.create_task(kill())
    yield
    await killer


def worker_processes() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


async def score_in_process(params: Params, folder: Path) -> list[ScoredExample]:
    @flow
    async def scoring() -> list[ScoredExample]:
        ledger = folder / "ledger.sqlite"
        async with open_judge(params.judge, ledger=ledger) as judge, Scorer(params.score) as scorer:
            return list(
                await score_in_shards(
                    "score", judge, make_items(), params.score, scorer=scorer, folder=folder / "stage"
                )
            )

    return await scoring()


async def score_on_workers(params: Params, folder: Path, *, kill_after: int | None = None) -> list[ScoredExample]:
    @flow
    async def scoring() -> list[ScoredExample]:
        stage, ledger = folder / "stage", folder / "ledger.sqlite"
        async with open_workers(params, state=stage, ledger=ledger) as workers:
            assert isinstance(workers, Workers)
            assert workers.capacity == params.workers.count
            if kill_after is None:
                return list(await score_with_workers("score", workers, make_items(), params, folder=stage))
            async with kill_worker_after(kill_after, params.judge.base_url or ""):
                return list(await score_with_workers("score", workers, make_items(), params, folder=stage))

    return await scoring()


@pytest.mark.timeout(900)  # on a busy machine with two CPUs, starting four workers takes minutes
async def test_scores_with_killed_worker_equal_single_process(workspace: Path) -> None:
    with offline_judge_server("--latency", "0.15") as url:
        expected = await score_in_process(settings(url), workspace / "alone")
        calls, distinct = request_counts(url)
        assert calls == distinct
    with offline_judge_server("--latency", "0.15") as url:
        scored = await score_on_workers(settings(url, count=WORKERS), workspace / "spread", kill_after=calls // 3)
        requests, distinct_on_workers = request_counts(url)
    assert scored == expected
    assert distinct_on_workers == distinct
    assert distinct <= requests <= distinct + CONCURRENCY // WORKERS  # a worker's share of the calls was in flight
    for folder in ("alone", "spread"):
        with Ledger(workspace / folder / "ledger.sqlite") as ledger:
            assert ledger.totals().exchanges == distinct
    assert worker_processes() == []


async def test_replies_of_killed_stage_not_requested_again(workspace: Path) -> None:
    script = workspace / "stage.py"
    with offline_judge_server("--latency", "0.15") as url:
        params = settings(url)
        (workspace / "params.json").write_text(params.model_dump_json())
        script.write_text(STAGE)
        environment = {**os.environ, "PYTHONPATH": IMPORT_PATH, **api()}
        stage = subprocess.Popen([sys.executable, str(script), str(workspace)], env=environment)  # noqa: ASYNC220
        while request_counts(url)[0] < 40:
            assert stage.poll() is None
            await asyncio.sleep(0.05)
        workers = psutil.Process(stage.pid).children(recursive=True)
        stage.kill()
        stage.wait()
        psutil.wait_procs(workers, timeout=30)
        await score_on_workers(params, workspace)
        requests, distinct = request_counts(url)
    assert distinct <= requests <= distinct + CONCURRENCY
    with Ledger(workspace / "ledger.sqlite") as ledger:
        assert ledger.totals().exchanges == distinct


STAGE = """
import asyncio, sys
from pathlib import Path
from longreward.params import Params
from test_workers_cluster import score_on_workers

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    asyncio.run(score_on_workers(Params.model_validate_json((folder / "params.json").read_text()), folder))
"""


def api() -> dict[str, str]:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    return PrefectServer(str(PREFECT_API_URL.value()), PREFECT_API_AUTH_STRING.value()).environment


async def test_workers_sample_same_responses_and_reject_changed_model(workspace: Path) -> None:
    model = workspace / "models" / "sft"
    model.parent.mkdir()
    model.symlink_to(ROOT / "models" / "tiny-base")
    params = settings("http://localhost:1/v1")
    examples = [example for example, _ in make_items()]

    @flow
    async def sampling(params: Params, folder: Path) -> Sampled:
        async with (
            open_workers(params, state=folder, ledger=workspace / "ledger.sqlite") as workers,
            open_worker_policy(workers, params.policy, params.server, "models/sft", logs=folder) as policy,
        ):
            if folder.name == "changed":
                model.unlink()
            return await sample_in_shards("sample", policy, examples, params.sample, folder=folder)

    scored = await sampling(params, workspace / "spread")
    expected = await sampling(params.model_copy(update={"workers": Params().workers}), workspace / "alone")
    responses = list(scored.responses)
    assert [response.text for response in responses] == [response.text for response in expected.responses]
    assert responses == list(expected.responses)
    assert scored.report == expected.report
    policy = load_policy(params.policy, ROOT / "models" / "tiny-base")  # without shards, files and workers
    sampled = [response for group in sample(policy, examples, params.sample) for response in group]
    assert responses == sampled
    assert all(response.token_ids and response.prompt_hash for response in responses)
    with pytest.raises(WorkerError, match=r"worker tcp://\S+ on .*models/sft is missing, or holds another model"):
        await sampling(params, workspace / "changed")


@contextmanager
def cluster(folder: Path, *, start: str = "") -> Iterator[str]:
    """Start a scheduler and one worker, which first runs `start` in a separate folder; yield its address."""
    folder.mkdir()
    processes = []

    def launch(code: str, name: str) -> None:
        log = (folder / f"{name}.log").open("wb")
        own = {"LONGREWARD_STATE": str(folder / "state"), "PYTHONPATH": IMPORT_PATH}
        env = {**os.environ, **own}
        processes.append(
            subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT)
        )

    scheduler_file = folder / "scheduler.json"
    cli = "from distributed.cli import dask_{0}; dask_{0}.main({1!r})"
    launch(cli.format("scheduler", ["--port", "0", "--host", "127.0.0.1", "--no-dashboard",
                                    "--scheduler-file", str(scheduler_file)]), "scheduler")  # fmt: skip
    worker = ["--scheduler-file", str(scheduler_file), "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    launch(f"{start}\n{cli.format('worker', worker)}", "worker")
    try:
        while not scheduler_file.exists() or not scheduler_file.read_text():
            assert all(process.poll() is None for process in processes)
        yield json.loads(scheduler_file.read_text())["address"]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (
            "import sys; sys.modules['longreward'] = None",
            r"worker tcp://\S+ cannot report its versions .*longreward\[dask\]",
        ),
        (
            "import longreward.tasks.workers.shard_tasks as s; s.code_hash = lambda: 'old'",
            r"worker tcp://\S+ on \S+ has another version of longreward \(old, the stage has \w+\)",
        ),
    ],
)
async def test_worker_with_other_version_is_error_before_any_shard(workspace: Path, start: str, message: str) -> None:
    with cluster(workspace / "remote", start=start) as address:
        params = settings("http://localhost:1/v1", address=address)
        with pytest.raises(WorkerError, match=message):
            async with open_workers(params, state=workspace, ledger=workspace / "l.sqlite"):
                pass


async def test_worker_with_own_state_folder_sends_ledger_and_gets_no_key(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", "of-the-judge")
    with offline_judge_server("--latency", "0.02", "--require-key-env", "THE_KEY") as url:
        with cluster(workspace / "remote") as address:
            params = settings(url, address=address)
            params = params.model_copy(update={"judge": params.judge.model_copy(update={"api_key_env": "THE_KEY"})})

            @flow
            async def scoring(folder: Path) -> list[ScoredExample]:
                ledger = workspace / "ledger.sqlite"
                async with open_workers(params, state=folder, ledger=ledger) as workers:
                    assert workers is not None
                    return list(await score_with_workers("score", workers, make_items(), params, folder=folder))

            first = await scoring(workspace / "one")
            requests, distinct = request_counts(url)
            assert requests == distinct
            assert await scoring(workspace / "two") == first  # the ledger's exchanges were sent with each shard
            assert request_counts(url) == (requests, distinct)
        with Ledger(workspace / "ledger.sqlite") as ledger:
            assert ledger.totals().exchanges == distinct
        assert not list((workspace / "remote" / "state").rglob("*.sqlite"))
        logs = "".join(file.read_text() for file in (workspace / "remote").glob("*.log"))
        assert "of-the-judge" not in logs


async def test_missing_scheduler_is_error(workspace: Path) -> None:
    params = settings("http://localhost:1/v1", address="tcp://127.0.0.1:1", start_limit_s=1)
    with pytest.raises(WorkerError, match=r"scheduler tcp://127\.0\.0\.1:1 cannot be reached"):
        async with open_workers(params, state=workspace, ledger=workspace / "l.sqlite"):
            pass
