"""Names of runs."""

import re

import pytest

from longreward.tasks.run_names import RUN_NAME, is_generated, pipeline_run_name, stage_run_name

TIME = r"\d{8}-\d{6}"


@pytest.mark.parametrize(
    ("stages", "requested", "current", "expected"),
    [
        ((), "", "vociferous-doberman", f"pipeline-{TIME}"),
        (("pair", "train"), "", "Licensed-Eagle", f"pair-train-{TIME}"),
        ((), "beta-0.3", "vociferous-doberman", "beta-0\\.3"),
        (("prepare", "sft", "sample", "score"), "", "", f"prepare-to-score-{TIME}"),
        ((), "", "my-run", "my-run"),
        ((), "", "pipeline-20261127-090513", "pipeline-20261127-090513"),  # a run that is tried again
    ],
)
def test_pipeline_run_name(stages: tuple[str, ...], requested: str, current: str, expected: str) -> None:
    assert re.fullmatch(expected, pipeline_run_name(stages, requested=requested, current=current))


def test_names_of_prefect_server_are_generated() -> None:
    from prefect.utilities.names import generate_slug

    assert all(is_generated(generate_slug(2)) for _ in range(50))


def test_stage_run_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN_NAME, raising=False)
    assert re.fullmatch(f"train {TIME}", stage_run_name("train"))
    monkeypatch.setenv(RUN_NAME, "beta-0.3")
    assert stage_run_name("train") == "train beta-0.3"
