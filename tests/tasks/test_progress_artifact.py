"""The progress of a stage on a real Prefect server."""

import time

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import Artifact
from prefect.runtime import flow_run

from longreward.tasks.progress_artifact import delete_progress, progress_artifact
from longreward.utils.progress import show_progress

pytestmark = pytest.mark.usefixtures("prefect_server")


def read_progress(run_id: str) -> list[Artifact]:
    with get_client(sync_client=True) as client:
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
        artifacts = client.read_artifacts(flow_run_filter=of_run)
    return [artifact for artifact in artifacts if artifact.key is not None]  # the others are results of failed runs


def wait_for_progress(run_id: str, percent: float) -> Artifact:
    while not (found := [artifact for artifact in read_progress(run_id) if artifact.data == percent]):
        time.sleep(0.05)
    return found[0]


def test_progress_is_updated_and_complete_after_success() -> None:
    @flow
    def work() -> str:
        with progress_artifact("train", interval_s=0.05), show_progress("train, steps") as update:
            update(1, 4)
            artifact = wait_for_progress(str(flow_run.id), 25.0)
            assert artifact.key == "train-progress"
            assert str(artifact.description).startswith("train, steps: 1 of 4 (25%) after ")
            update(3, 4)
            wait_for_progress(str(flow_run.id), 75.0)
        return str(flow_run.id)

    (artifact,) = read_progress(work())
    assert (artifact.data, artifact.description) == (100.0, "train: done")


def test_progress_is_deleted_after_failure() -> None:
    runs = []

    @flow
    def work() -> None:
        runs.append(str(flow_run.id))
        with progress_artifact("train", interval_s=0.05), show_progress("train, steps") as update:
            update(1, 4)
            wait_for_progress(runs[0], 25.0)
            raise ValueError("no such step")

    with pytest.raises(ValueError, match="no such step"):
        work()
    assert read_progress(runs[0]) == []


async def test_progress_of_killed_run_is_deleted() -> None:
    @flow
    async def work() -> None:
        from prefect.artifacts import acreate_markdown_artifact, acreate_progress_artifact

        await acreate_progress_artifact(60.0, key="score-progress")
        await acreate_markdown_artifact("kept", key="result")
        async with get_client() as client:
            await delete_progress(client, flow_run.id)
        assert [artifact.key for artifact in read_progress(str(flow_run.id))] == ["result"]

    await work()


def test_short_stage_has_no_artifact() -> None:
    @flow
    def work() -> str:
        with progress_artifact("pair"), show_progress("pair") as update:
            update(4, 4)
        return str(flow_run.id)

    assert read_progress(work()) == []
