"""Parts of shards on Dask workers without a cluster: settings, shares of limits, ledgers, versions."""

import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import longreward
from longreward.errors import ConfigError, WorkerError
from longreward.judge import ChatReply, JudgeConfig, open_judge
from longreward.judge.ledger import Exchange, Ledger
from longreward.params import Params, WorkersConfig, check_workers_installed, read_params, without_runtime_settings
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, open_scorer, score_examples
from longreward.tasks.dvc_files import stage_entries
from longreward.tasks.state import state_folder
from longreward.tasks.workers import worker_ledger
from longreward.tasks.workers.cluster import WorkerInfo, validate_workers
from longreward.tasks.workers.shard_tasks import (
    ScoreShard,
    cached_exchanges,
    code_hash,
    divide_limits,
    max_concurrent_shards,
    versions,
)
from longreward.tasks.workers.worker_ledger import (
    WorkerContext,
    create_worker_ledger,
    merge_contents,
    read_leftover_ledgers,
    remove_ledgers,
)

ROOT = Path(__file__).parents[2]
QUERY = "Who founded Keld?"
ITEMS = [
    (
        Example(id=str(n), document_id=str(n), context=f"Ann Lee founded Keld {n}.", query=QUERY),
        [Response(id=f"{n}-0", example_id=str(n), query=QUERY, text=f"Ann Lee founded Keld {n}.")],
    )
    for n in range(3)
]


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGREWARD_STATE", str(tmp_path / "state"))


def exchange(question: str, text: str = "[[7]]") -> Exchange:
    return Exchange(question, 1, 0.01, "helpfulness", "hash", "m", "", ChatReply(text), "readable", None)


def texts(path: Path, *questions: str) -> list[list[str]]:
    with Ledger(path) as ledger:
        return [[item.reply.text for item in ledger.find(question)] for question in questions]


def test_missing_dask_is_error_with_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_workers_installed(WorkersConfig())
    check_workers_installed(WorkersConfig(kind="dask"))
    monkeypatch.setattr(
        "longreward.params.find_spec", lambda name: None if name == "prefect_dask" else importlib.util.find_spec(name)
    )
    with pytest.raises(ConfigError, match=r"prefect-dask cannot be imported: `pip install 'longreward\[dask\]'`"):
        check_workers_installed(WorkersConfig(kind="dask"))
    check_workers_installed(WorkersConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("score.budget.calls=5", "score.budget limits the spending of one process"),
        ("score.retriever.kind=local score.retriever.model=e", "score.retriever uses embeddings"),
        ("judge.mode=batch_files judge.kind=vllm judge.model=m", "judge.mode is a batch mode"),
        ("workers.address=10.0.0.2:8786", "must be a scheduler's address like tcp://"),
    ],
)
def test_settings_unsupported_by_workers_rejected(settings: str, message: str) -> None:
    if not settings.startswith("workers"):
        read_params(None, settings.split())
    with pytest.raises(ConfigError, match=message):
        read_params(None, ["workers.kind=dask", *settings.split()])


def test_worker_settings_invalidate_no_stage() -> None:
    assert not [entry.name for entry in stage_entries(ROOT / "dvc.yaml").values() if "workers" in entry.sections]
    settings = Params(workers=WorkersConfig(kind="dask")).model_dump(mode="json", include={"judge", "score"})
    assert without_runtime_settings(settings) == without_runtime_settings(
        Params().model_dump(mode="json", include={"judge", "score"})
    )


def test_shares_of_limit_do_not_exceed_limit() -> None:
    judge = JudgeConfig(
        kind="vllm",
        model="m",
        max_concurrency=32,
        requests_per_minute=7,
        dimensions={"faithfulness": {"model": "n", "max_concurrency": 5}},
    )
    assert max_concurrent_shards(judge, 3) == 3
    assert max_concurrent_shards(judge, 60) == 5  # the lowest of all limits
    third = divide_limits(judge, 3)
    assert (third.max_concurrency, third.requests_per_minute, third.tokens_per_minute) == (10, 2, None)
    assert third.judge_for("faithfulness").max_concurrency == 1


async def test_cached_exchanges_sent_with_shard(tmp_path: Path) -> None:
    config, ledger = ScoreConfig(), tmp_path / "ledger.sqlite"
    async with open_judge(JudgeConfig(), ledger=ledger) as judge:
        scored = [item async for item in score_examples(judge, open_scorer(config), ITEMS[:2])]
        requests = judge.metrics()["calls"]
    cached = await cached_exchanges(JudgeConfig(), config, ITEMS, ledger=ledger)
    assert len({exchange.request_id for exchange in cached}) == requests == 12

    task = pickle.loads(pickle.dumps(ScoreShard(JudgeConfig(), config, Params().prices, ITEMS, cached)))
    result = await task.run(WorkerContext.for_stage(tmp_path / "stage"))
    assert result.records[:2] == scored
    assert result.metrics["calls"] == 6  # only for the third prompt
    merge_contents([result.ledger], into=ledger)
    with Ledger(ledger) as store:
        assert store.totals().exchanges == 18


def test_shard_continues_from_ledger_of_first_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = WorkerContext.for_stage(tmp_path / "stage")
    monkeypatch.setattr(worker_ledger, "PROCESS", "first")
    first = create_worker_ledger(context, "s", [exchange("cached")])
    with Ledger(first) as ledger:
        ledger.put(exchange("new"))
    create_worker_ledger(context, "other", [exchange("of another shard")])
    monkeypatch.setattr(worker_ledger, "PROCESS", "second")
    second = create_worker_ledger(context, "s", [])
    assert first != second
    assert texts(second, "cached", "new", "of another shard") == [["[[7]]"], ["[[7]]"], []]


def test_ledgers_stay_on_worker_until_stage_succeeds(tmp_path: Path) -> None:
    context = WorkerContext.for_stage(tmp_path / "stage")
    create_worker_ledger(context, "s", [exchange("a")])
    create_worker_ledger(context, "other", [exchange("b")])
    for _ in range(2):  # merging again changes nothing
        merge_contents(read_leftover_ledgers(context), into=tmp_path / "ledger.sqlite")
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            assert ledger.totals().exchanges == 2
    remove_ledgers(context)
    assert read_leftover_ledgers(context) == []
    assert not list(state_folder().rglob("*.sqlite*"))


def test_workers_with_other_versions_listed() -> None:
    expected = versions()
    same = WorkerInfo("worker tcp://a:1 on a", expected)
    validate_workers({"tcp://a:1": same})
    workers = {
        "tcp://a:1": same,
        "tcp://b:1": WorkerInfo("worker tcp://b:1 on b", {**expected, "torch": "1.0"}),
        "tcp://c:1": ModuleNotFoundError("No module named 'longreward'"),
    }
    with pytest.raises(WorkerError) as error:
        validate_workers(workers)
    _, *lines = str(error.value).splitlines()
    assert [line.split()[1] for line in lines] == ["tcp://b:1", "tcp://c:1"]
    assert f"torch (1.0, the stage has {expected['torch']})" in lines[0]
    assert "No module named 'longreward'" in lines[1]


def test_code_hash_covers_flows_and_tasks_and_equals_installed_copy(tmp_path: Path) -> None:
    copy = tmp_path / "longreward"
    shutil.copytree(
        Path(longreward.__file__).parent, copy, symlinks=False, ignore=shutil.ignore_patterns("__pycache__")
    )
    command = [
        sys.executable, "-P", "-c", "from longreward.tasks.workers.shard_tasks import code_hash; print(code_hash())"
    ]  # fmt: skip

    def hash_of_copy() -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    code_hash.cache_clear()
    assert hash_of_copy() == code_hash()
    (copy / "tasks/new_module.py").write_text("")
    assert hash_of_copy() != code_hash()
