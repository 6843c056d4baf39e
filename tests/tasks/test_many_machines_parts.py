"""What shards by workers stand on, without a cluster: settings, shares of limits, ledgers that come home."""

import importlib.util
import pickle
from pathlib import Path

import pytest

from longreward.errors import ConfigError, WorkerError
from longreward.judge import ChatReply, JudgeConfig, open_judge
from longreward.judge.ledger import Exchange, Ledger
from longreward.params import Params, deciding, read_params
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, score_examples
from longreward.tasks.dvc_command import stage_entries
from longreward.tasks.workers import worker_ledger
from longreward.tasks.workers.score_task import ScoreErrand, known_answers, places_within, share
from longreward.tasks.workers.worker_check import WorkerInfo, validate_workers, versions
from longreward.tasks.workers.worker_ledger import WorkerContext, leftover_cache, merge_cache, own_ledger, to_send
from longreward.workers import WorkersConfig, check_installed

ROOT = Path(__file__).parents[2]
QUERY = "Who founded Keld?"
ITEMS = [
    (
        Example(id=str(n), document_id=str(n), context=f"Ann Lee founded Keld {n}.", query=QUERY),
        [Response(id=f"{n}-0", example_id=str(n), query=QUERY, text=f"Ann Lee founded Keld {n}.")],
    )
    for n in range(3)
]


def exchange(question: str, text: str = "[[7]]") -> Exchange:
    return Exchange(question, 1, 0.01, "helpfulness", "hash", "m", "", ChatReply(text), "readable", None)


def texts(path: Path, *questions: str) -> list[list[str]]:
    with Ledger(path) as ledger:
        return [[each.reply.text for each in ledger.find(question)] for question in questions]


def test_without_dask_the_setting_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed(WorkersConfig())
    check_installed(WorkersConfig(kind="dask"))
    monkeypatch.setattr(
        "longreward.workers.find_spec", lambda name: None if name == "prefect_dask" else importlib.util.find_spec(name)
    )
    with pytest.raises(ConfigError, match=r"prefect-dask cannot be imported: `pip install 'longreward\[dask\]'`"):
        check_installed(WorkersConfig(kind="dask"))
    check_installed(WorkersConfig())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("score.budget.calls=5", "score.budget limits what one process spends"),
        ("score.retriever.kind=local score.retriever.model=e", "score.retriever embeds"),
        ("judge.mode=batch_files judge.kind=vllm judge.model=m", "judge.mode asks in batches"),
        ("workers.address=10.0.0.2:8786", "must be a scheduler's address like tcp://"),
    ],
)
def test_what_workers_cannot_keep_is_refused_before_anything_runs(settings: str, said: str) -> None:
    if not settings.startswith("workers"):
        read_params(None, settings.split())
    with pytest.raises(ConfigError, match=said):
        read_params(None, ["workers.kind=dask", *settings.split()])


def test_another_cluster_makes_no_stage_anew() -> None:
    assert not [entry.name for entry in stage_entries(ROOT / "dvc.yaml").values() if "workers" in entry.sections]
    settings = Params(workers=WorkersConfig(kind="dask")).model_dump(mode="json", include={"judge", "score"})
    assert deciding(settings) == deciding(Params().model_dump(mode="json", include={"judge", "score"}))


def test_the_shares_of_a_limit_never_add_up_to_more_than_it() -> None:
    judge = JudgeConfig(
        kind="vllm",
        model="m",
        max_concurrency=32,
        requests_per_minute=7,
        dimensions={"faithfulness": {"model": "n", "max_concurrency": 5}},
    )
    assert places_within(judge, 3) == 3
    assert places_within(judge, 60) == 5  # the least of all limits
    third = share(judge, 3)
    assert (third.max_concurrency, third.requests_per_minute, third.tokens_per_minute) == (10, 2, None)
    assert third.judge_for("faithfulness").max_concurrency == 1


async def test_what_the_ledger_knows_goes_with_the_shard_and_is_not_asked_again(tmp_path: Path) -> None:
    config, ledger = ScoreConfig(), tmp_path / "ledger.sqlite"
    async with open_judge(JudgeConfig(), ledger=ledger) as judge:
        scored = [one async for one in score_examples(judge, config, ITEMS[:2])]
        asked = judge.metrics()["calls"]
    known = await known_answers(JudgeConfig(), config, ITEMS, ledger=ledger)
    assert len({each.request_id for each in known}) == asked == 12

    place = WorkerContext.make(tmp_path / "stage")
    errand = pickle.loads(pickle.dumps(ScoreErrand(JudgeConfig(), config, Params().prices, ITEMS, known)))
    done = await errand.do(place)
    assert done.records[:2] == scored
    assert done.figures["calls"] == 6  # of the third prompt alone
    merge_cache(place, ledger, shard=errand.shard)
    with Ledger(ledger) as store:
        assert store.totals().exchanges == 18


def test_a_shard_goes_on_from_what_its_first_worker_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = WorkerContext.make(tmp_path / "stage")
    monkeypatch.setattr(worker_ledger, "PROCESS", "first")
    first = own_ledger(place, "s", [exchange("handed")])
    with Ledger(first) as ledger:
        ledger.put(exchange("asked"))
    own_ledger(place, "other", [exchange("of another shard")])
    monkeypatch.setattr(worker_ledger, "PROCESS", "second")
    second = own_ledger(place, "s", [])
    assert first != second
    assert texts(second, "handed", "asked", "of another shard") == [["[[7]]"], ["[[7]]"], []]
    assert to_send(place, second) is None
    merge_cache(place, tmp_path / "ledger.sqlite")
    found = texts(tmp_path / "ledger.sqlite", "handed", "asked", "of another shard")
    assert found == [["[[7]]"]] * 3


def test_a_machine_without_the_folder_keeps_its_answers_until_they_are_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGREWARD_STATE", str(tmp_path / "there"))
    place = WorkerContext.make(tmp_path / "stage")
    distant = WorkerContext(place.project, place.folder, "another folder of this name")
    file = own_ledger(distant, "s", [exchange("asked")])
    assert file.is_relative_to(tmp_path / "there")
    assert to_send(distant, file) == file.read_bytes()
    merge_cache(place, tmp_path / "ledger.sqlite", leftover_cache(distant))
    assert texts(tmp_path / "ledger.sqlite", "asked") == [["[[7]]"]]
    assert leftover_cache(distant, forget=True) != []
    assert leftover_cache(distant) == []
    assert not list((tmp_path / "there").rglob("*.sqlite*"))


def test_each_worker_that_cannot_work_is_named_with_its_reason() -> None:
    ours = versions()
    fit = WorkerInfo("worker tcp://a:1 on a", ours, None, [])
    validate_workers({"tcp://a:1": fit})
    unfit = {
        "tcp://a:1": fit,
        "tcp://b:1": WorkerInfo("worker tcp://b:1 on b", {**ours, "torch": "1.0"}, None, []),
        "tcp://c:1": WorkerInfo("worker tcp://c:1 on c", ours, "it cannot reach Prefect at http://…", []),
        "tcp://d:1": ModuleNotFoundError("No module named 'longreward'"),
    }
    with pytest.raises(WorkerError) as error:
        validate_workers(unfit)
    _, *lines = str(error.value).splitlines()
    assert [line.split()[1] for line in lines] == ["tcp://b:1", "tcp://c:1", "tcp://d:1"]
    assert f"torch 1.0, here {ours['torch']}" in lines[0]
    assert "cannot reach Prefect" in lines[1]
    assert "No module named 'longreward'" in lines[2]
