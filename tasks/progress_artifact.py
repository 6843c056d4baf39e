"""The progress of a long stage as an artifact of its flow run, which the Prefect UI shows while the stage runs."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
)
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from longreward.utils.progress import ProgressEstimate, observe_progress
from longreward.utils.redaction import redact

INTERVAL_S = 10.0  # also the age from which a stage has an artifact: most stages of a small run end before
TIMEOUT_S = 5.0
TYPE = "progress"

log = logging.getLogger(__name__)


@contextmanager
def progress_artifact(stage: str, *, interval_s: float = INTERVAL_S) -> Iterator[None]:
    """Show the progress of the work in the block, in the artifact `<stage>-progress` of the current flow run.

    It is updated every `interval_s` seconds if there is something new, has 100 % after success, and is deleted
    otherwise: nothing in the UI tells an artifact at 60 % of a failed run from that of a running one. A server that
    does not answer costs a warning.
    """
    reporter = _Reporter(stage, UUID(flow_run.id), interval_s)
    with observe_progress(reporter.observe):
        # Prefect's settings, among them the server's address, are context variables.
        thread = threading.Thread(
            target=copy_context().run, args=(reporter.run,), name="progress artifact", daemon=True
        )
        thread.start()
        try:
            yield
            reporter.succeeded = True
        finally:
            reporter.ended.set()
            thread.join(3 * TIMEOUT_S)


class _Reporter:
    """Sends the latest progress from a thread of its own: a training or sampling does not let an event loop run."""

    def __init__(self, stage: str, flow_run_id: UUID, interval_s: float) -> None:
        self.ended = threading.Event()
        self.succeeded = False
        self._stage, self._flow_run_id, self._interval_s = stage, flow_run_id, interval_s
        self._estimate: ProgressEstimate | None = None
        self._shown = ""
        self._artifact: UUID | None = None
        self._warned = False

    def observe(self, estimate: ProgressEstimate) -> None:
        """Keep the latest progress whose total is known."""
        if estimate.share is not None:
            self._estimate = estimate

    def run(self) -> None:
        """Send progress until the end of the stage, and then how it ended."""
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            while not self.ended.wait(self._interval_s):
                self._try(self._update)
            self._try(self._conclude)

    def _try(self, send: Callable[[SyncPrefectClient], None]) -> None:
        try:
            with get_client(sync_client=True, httpx_settings={"timeout": TIMEOUT_S}) as client:
                send(client)
        except (httpx.HTTPError, PrefectException) as error:
            if not self._warned:
                log.warning("the progress of the stage is not in Prefect: %s", redact(str(error)))
            self._warned = True

    def _update(self, client: SyncPrefectClient) -> None:
        if self._estimate is None or (text := str(self._estimate)) == self._shown:
            return
        self._send(client, 100 * min(self._estimate.share or 0.0, 1.0), text)
        self._shown = text

    def _conclude(self, client: SyncPrefectClient) -> None:
        if self._artifact is None:
            return
        if self.succeeded:
            self._send(client, 100.0, f"{self._stage}: done")
        else:
            client.delete_artifact(self._artifact)

    def _send(self, client: SyncPrefectClient, percent: float, text: str) -> None:
        if self._artifact is None:
            artifact = ArtifactCreate(
                type=TYPE,
                key=f"{self._stage}-progress",
                description=text,
                data=percent,
                flow_run_id=self._flow_run_id,
            )
            self._artifact = client.create_artifact(artifact).id
        else:
            client.update_artifact(self._artifact, ArtifactUpdate(description=text, data=percent))


async def delete_progress(client: PrefectClient, flow_run_id: UUID) -> None:
    """Delete the progress artifacts of a flow run whose process was killed."""
    of_run = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]), type=ArtifactFilterType(any_=[TYPE])
    )
    for artifact in await client.read_artifacts(artifact_filter=of_run):
        await client.delete_artifact(artifact.id)
