"""The outputs of stages as Prefect assets, with the assets that each depends on: the pipeline as a graph of data.

A key is `dvc://<project's folder>/<path>`, the same one for every run; the events of an asset tell its versions apart
by their payload. Prefect's open-source UI lists these events in its feed; Prefect Cloud draws the graph.
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from prefect.assets import Asset, AssetProperties, add_asset_metadata

from longreward.tasks.dvc_files import RAW, StageEntry, data_hashes
from longreward.tasks.state import state_folder

NO_DATA = ("metrics", "plots", "reports")  # in git, not in DVC's cache


def output_assets(entry: StageEntry) -> list[Asset]:
    """Return the assets that a stage materializes."""
    return [_asset(path) for path in data_outputs(entry)]


def input_assets(entry: StageEntry, entries: Mapping[str, StageEntry]) -> list[Asset]:
    """Return the assets that a stage reads: outputs of other stages and raw data, but not code."""
    produced = [RAW, *(path for other in entries.values() for path in data_outputs(other))]
    inputs = (next((path for path in (file, *file.parents) if path in produced), None) for file in entry.inputs)
    return [_asset(path) for path in dict.fromkeys(inputs) if path is not None]


def describe_outputs(entry: StageEntry, *, run_name: str, mlflow_run: str) -> None:
    """Add to the events of the assets which version was materialized; called in the task of the stage."""
    hashes = data_hashes(data_outputs(entry))
    for path in data_outputs(entry):
        version = {"dvc_hash": hashes.get(path.as_posix(), "unknown"), "run": run_name, "mlflow_run": mlflow_run}
        add_asset_metadata(_asset(path), version)


def data_outputs(entry: StageEntry) -> list[Path]:
    """Return the outputs of a stage that are data or models."""
    return [path for path in entry.outputs if path.parts[0] not in NO_DATA]


def _asset(path: Path) -> Asset:
    # Runs with their own settings work in a copy; the state folder is that of the project itself.
    project = quote(state_folder().parent.name, safe="")
    return Asset(key=f"dvc://{project}/{path.as_posix()}", properties=AssetProperties(name=path.as_posix()))
