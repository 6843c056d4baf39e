"""A Prefect server of the tests' own."""

from collections.abc import Iterator

import pytest

from longreward.tasks.prefect_server import prefect_server as start_server
from longreward.tasks.state import STATE_VARIABLE


@pytest.fixture(scope="session")
def pipeline_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that these tests share; it ends by itself after them."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings(restore_defaults={PREFECT_API_URL, PREFECT_API_AUTH_STRING}),
    ):
        patch.setenv(STATE_VARIABLE, str(tmp_path_factory.mktemp("server")))
        server = start_server()
    with temporary_settings(server.settings):
        yield server.url
