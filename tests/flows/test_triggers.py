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
from toy_project import ToyProject, running_processes

pytestmark = pytest.mark.slow


@pytest.fixture
async def served_project(tmp_path: Path, prefect_server: str) -> AsyncIterator[ToyProject]:
    """Serve the deployments of a toy project."""
    project = ToyProject(tmp_path, prefect_server)
    project.write("ab")
    project.commit()
    serve_process = project.start("longreward.flows.serve")
    async with get_client() as client:
        await poll(lambda: deployments_exist(client, serve_process))
    yield project
    processes = psutil.Process(serve_process.pid).children(recursive=True)
    serve_process.terminate()
    output, _ = serve_process.communicate(timeout=60)
    assert not running_processes(processes), output


async def deployments_exist(client: PrefectClient, serve_process: "subprocess.Popen[str]") -> bool:
    assert serve_process.poll() is None, serve_process.communicate()[0]
    return {"all", "train", "evaluate"} <= {deployment.name for deployment in await client.read_deployments()}


async def poll(condition: Callable[[], Any], limit_s: float = 120) -> Any:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if result := await condition():
            return result
        await asyncio.sleep(0.2)
    raise AssertionError(f"the condition does not hold after {limit_s} s")


async def trigger(client: PrefectClient, deployment: str, run_name: str, /, **parameters: Any) -> FlowRun:
    deployment_id = (await client.read_deployment_by_name(f"pipeline/{deployment}")).id
    return await client.create_flow_run_from_deployment(deployment_id, name=run_name, parameters=parameters)


async def state_name(client: PrefectClient, run: FlowRun) -> str:
    return (await client.read_flow_run(run.id)).state_name or ""


async def final_state(client: PrefectClient, run: FlowRun) -> str:
    async def final() -> str | None:
        state = (await client.read_flow_run(run.id)).state
        return state.name if state is not None and state.is_final() else None

    return str(await poll(final))


def stage_processes(project: ToyProject) -> list[psutil.Process]:
    """Return the processes of the stage that runs in this project."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "toy.py" in (process.info["cmdline"] or ()) and process.cwd() == str(project.folder)
    ]


async def test_trigger_with_settings_becomes_experiment(served_project: ToyProject) -> None:
    before = served_project.checkout()
    async with get_client() as client:
        with pytest.raises(PrefectHTTPStatusError, match="pair_min_scored"):
            await trigger(client, "all", "no-number", pair_min_scored="four")
        run = await trigger(
            client, "all", "run", name="from-the-form", pair_min_scored="4", overrides="pair.min_margin=0.5"
        )
        assert await final_state(client, run) == "Completed"
        wrong = await trigger(client, "all", "misspelt", overrides="pair.min_scord=4")
        assert await final_state(client, wrong) == "ConfigError"
        message = (await client.read_flow_run(wrong.id)).state.message  # type: ignore[union-attr]
        assert "did you mean pair.min_scored?" in str(message)
    assert served_project.experiments() == {"from-the-form"}
    assert served_project.checkout() == before
    (parent,) = [
        run
        for run in served_project.store.search_runs(
            [served_project.store.get_experiment_by_name("longreward").experiment_id]
        )
        if run.info.run_name == "from-the-form"
    ]
    assert (parent.data.params["pair.min_scored"], parent.data.params["pair.min_margin"]) == ("4", "0.5")


async def test_trigger_rejects_code_execution(served_project: ToyProject) -> None:
    marker = served_project.folder / "pwned"
    attempts: list[dict[str, Any]] = [
        {"overrides": f"server.command=[touch, {marker}]"},
        {"overrides": "policy.trust_remote_code=true"},
        {"policy_base_model": "/etc/hostname"},
    ]
    async with get_client() as client:
        runs = [await trigger(client, "all", f"attempt-{n}", **parameters) for n, parameters in enumerate(attempts)]
        for run in runs:
            assert await final_state(client, run) == "ConfigError"
            message = (await client.read_flow_run(run.id)).state.message  # type: ignore[union-attr]
            assert "so a trigger cannot set it" in str(message)
    assert not marker.exists()
    assert served_project.experiments() == set()


async def test_waiting_and_cancelled_triggers(served_project: ToyProject) -> None:
    served_project.write("aSb")  # stays at S for a minute
    worked = served_project.folder / "worked"

    async def is_running() -> bool:
        return worked.exists() and worked.read_text().endswith("S")

    async with get_client() as client:
        first = await trigger(client, "all", "first")
        await poll(is_running)
        second = await trigger(client, "pair", "second")

        async def is_waiting() -> bool:
            return await state_name(client, second) == "Waiting for first"

        await poll(is_waiting)
        (stage,) = stage_processes(served_project)
        processes = [stage, *stage.parents()[:2]]
        await client.set_flow_run_state(first.id, Cancelling())
        assert await final_state(client, first) == "Cancelled"
        await poll(lambda: asyncio.sleep(0, not running_processes(processes[:1])))
        assert not stage_processes(served_project)
        served_project.write("ab")
        await final_state(client, second)
    assert "RUNNING" not in served_project.statuses()


async def test_retried_run_continues(served_project: ToyProject) -> None:
    served_project.write("abKc")  # the stage is killed outright at K, the first time
    async with get_client() as client:
        run = await trigger(client, "all", "again")
        assert await final_state(client, run) == "StageFailed"
        assert (served_project.folder / "worked").read_text() == "abK"
        await client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry"), force=True)
        await poll(lambda: asyncio.sleep(0, (served_project.folder / "data/pairs/text").exists()))
        assert await final_state(client, run) == "Completed"
    assert (served_project.folder / "worked").read_text() == "abKKc"
    parents = [
        run.info.run_name
        for run in served_project.store.search_runs(
            [served_project.store.get_experiment_by_name("longreward").experiment_id]
        )
        if run.info.run_name == "again"
    ]
    assert parents == ["again"]
