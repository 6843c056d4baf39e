"""Deployments on a real server, triggered over its API as the UI does it."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelling, Scheduled
from toy_project import ToyProject, alive

pytestmark = pytest.mark.slow


@pytest.fixture
async def served(tmp_path: Path, prefect_server: str) -> AsyncIterator[ToyProject]:
    """A toy project whose deployments wait for triggers."""
    project = ToyProject(tmp_path, prefect_server)
    project.write("ab")
    project.commit()
    serving = project.start("longreward.flows.serve")
    async with get_client() as client:
        await until(lambda: registered(client, serving))
    yield project
    family = psutil.Process(serving.pid).children(recursive=True)
    serving.terminate()
    words, _ = serving.communicate(timeout=60)
    assert not alive(family), words


async def registered(client: PrefectClient, serving: "subprocess.Popen[str]") -> bool:
    assert serving.poll() is None, serving.communicate()[0]
    return {"all", "train", "evaluate"} <= {deployment.name for deployment in await client.read_deployments()}


async def until(holds: Callable[[], Any], limit_s: float = 120) -> Any:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found := await holds():
            return found
        await asyncio.sleep(0.2)
    raise AssertionError("it did not come about in time")


async def trigger(client: PrefectClient, deployment: str, run_name: str, /, **parameters: Any) -> FlowRun:
    found = await client.read_deployment_by_name(f"pipeline/{deployment}")
    return await client.create_flow_run_from_deployment(found.id, name=run_name, parameters=parameters)


async def state_of(client: PrefectClient, run: FlowRun) -> str:
    return (await client.read_flow_run(run.id)).state_name or ""


async def ended(client: PrefectClient, run: FlowRun) -> str:
    async def final() -> str | None:
        state = (await client.read_flow_run(run.id)).state
        return state.name if state is not None and state.is_final() else None

    return str(await until(final))


def children_working(project: ToyProject) -> list[psutil.Process]:
    """The processes of the stage that works in this project."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "toy.py" in (process.info["cmdline"] or ()) and process.cwd() == str(project.folder)
    ]


async def test_trigger_with_settings_becomes_experiment(served: ToyProject) -> None:
    before = served.checkout()
    async with get_client() as client:
        with pytest.raises(PrefectHTTPStatusError, match="pair_min_scored"):
            await trigger(client, "all", "out-of-bounds", pair_min_scored=1)
        run = await trigger(
            client, "all", "run", name="from-the-form", pair_min_scored=4, overrides="pair.min_margin=0.5"
        )
        assert await ended(client, run) == "Completed"
        wrong = await trigger(client, "all", "misspelt", overrides="pair.min_scord=4")
        assert await ended(client, wrong) == "ConfigError"
        message = (await client.read_flow_run(wrong.id)).state.message  # type: ignore[union-attr]
        assert "did you mean pair.min_scored?" in str(message)
    assert served.experiments() == {"from-the-form"}
    assert served.checkout() == before
    (parent,) = [
        found
        for found in served.store.search_runs([served.store.get_experiment_by_name("longreward").experiment_id])
        if found.info.run_name == "from-the-form"
    ]
    assert (parent.data.params["pair.min_scored"], parent.data.params["pair.min_margin"]) == ("4", "0.5")


async def test_trigger_rejects_code_execution(served: ToyProject) -> None:
    mark = served.folder / "pwned"
    attempts: list[dict[str, Any]] = [
        {"overrides": f"server.command=[touch, {mark}]"},
        {"overrides": "policy.trust_remote_code=true"},
        {"policy_base_model": "/etc/hostname"},
    ]
    async with get_client() as client:
        runs = [await trigger(client, "all", f"attempt-{n}", **given) for n, given in enumerate(attempts)]
        for run in runs:
            assert await ended(client, run) == "ConfigError"
            message = (await client.read_flow_run(run.id)).state.message  # type: ignore[union-attr]
            assert "so a trigger cannot set it" in str(message)
    assert not mark.exists()
    assert served.experiments() == set()


async def test_waiting_and_cancelled_triggers(served: ToyProject) -> None:
    served.write("aSb")  # stays at S for a minute
    worked = served.folder / "worked"

    async def at_work() -> bool:
        return worked.exists() and worked.read_text().endswith("S")

    async with get_client() as client:
        first = await trigger(client, "all", "first")
        await until(at_work)
        second = await trigger(client, "pair", "second")

        async def waits() -> bool:
            return await state_of(client, second) == "Waiting for first"

        await until(waits)
        (stage,) = children_working(served)
        family = [stage, *stage.parents()[:2]]
        await client.set_flow_run_state(first.id, Cancelling())
        assert await ended(client, first) == "Cancelled"
        await until(lambda: asyncio.sleep(0, not alive(family[:1])))
        assert not children_working(served)
        served.write("ab")
        await ended(client, second)
    assert "RUNNING" not in served.statuses()


async def test_retried_run_continues(served: ToyProject) -> None:
    served.write("abKc")  # the stage is killed outright at K, the first time
    async with get_client() as client:
        run = await trigger(client, "all", "again")
        assert await ended(client, run) == "StageFailed"
        assert (served.folder / "worked").read_text() == "abK"
        await client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry"), force=True)
        await until(lambda: asyncio.sleep(0, (served.folder / "data/pairs/text").exists()))
        assert await ended(client, run) == "Completed"
    assert (served.folder / "worked").read_text() == "abKKc"
    parents = [
        found.info.run_name
        for found in served.store.search_runs([served.store.get_experiment_by_name("longreward").experiment_id])
        if found.info.run_name == "again"
    ]
    assert parents == ["again"]
