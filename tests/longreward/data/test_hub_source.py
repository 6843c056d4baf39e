"""Folders in the layout of a hub data set, read by `datasets` without network."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from longreward.data.hub_source import HubConfig
from longreward.data.open_source import open_source
from longreward.data.source import Source
from longreward.errors import ConfigError, DataError

CARD = """---
configs:
- config_name: default
  data_files:
  - {split: sft, path: data/sft-*}
---
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "raw" / "set"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for shard in range(2):
        rows = [{"id": f"{shard}{n}", "messages": [{"role": "user", "content": f"doc {n}"}]} for n in range(3)]
        parquet.write_table(pa.Table.from_pylist(rows), folder / "data" / f"sft-0000{shard}-of-00002.parquet")
    return tmp_path


def open_hub(root: Path, name: str, pin: str | None = None, **hub: Any) -> Source:
    config = HubConfig.parse(hub, source="test")
    return open_source(root, name, key="prepare.source", pin_key="prepare.checksum", pin=pin, hub=config)


def test_split_streamed_repeatedly_in_order(root: Path) -> None:
    source = open_hub(root, "hub:data/raw/set", split="sft")
    assert source.columns() == ["id", "messages"]
    first = list(source.rows())
    assert [row["id"] for _, row in first if isinstance(row, dict)] == ["00", "01", "02", "10", "11", "12"]
    assert str(first[4][0]) == "hub:data/raw/set[sft], row 4"
    assert first[1][1] == {"id": "01", "messages": [{"role": "user", "content": "doc 1"}]}
    assert list(source.rows()) == first


def test_columns_without_schema_come_from_first_rows(root: Path) -> None:
    folder = root / "data" / "raw" / "lines"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"idx": 1, "query": "q"}\n')
    assert open_hub(root, "hub:data/raw/lines").columns() == ["idx", "query"]


def test_unknown_split_or_configuration_is_error(root: Path) -> None:
    with pytest.raises(DataError, match=r"split train, config the default\) cannot be read: .*sft"):
        list(open_hub(root, "hub:data/raw/set").rows())
    with pytest.raises(DataError, match=r"config small\) cannot be read: .*default"):
        list(open_hub(root, "hub:data/raw/set", split="sft", config="small").rows())


def test_folder_needs_checksum_and_hub_data_set_commit(root: Path) -> None:
    (root / "data" / "raw" / "set").rename(root / "set")
    with pytest.raises(ConfigError, match="outside data/raw") as caught:
        open_hub(root, "hub:set", split="sft")
    pin = str(caught.value).rsplit(maxsplit=1)[-1]
    assert len(list(open_hub(root, "hub:set", pin, split="sft").rows())) == 6
    with pytest.raises(ConfigError, match=r"prepare\.hub\.revision is not set.*\n.*datasets/org/set HEAD"):
        open_hub(root, "hub:org/set")
    with pytest.raises(ConfigError, match=r"pinned by prepare\.hub\.revision"):
        open_hub(root, "hub:org/set", pin, revision="0" * 40)
    with pytest.raises(ConfigError, match="there is no such folder"):
        open_hub(root, "hub:data/raw/absent")
    with pytest.raises(ConfigError, match=r"revision: String should match .*main"):
        open_hub(root, "hub:org/set", revision="main")


def test_error_without_network_explains_how_to_download(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = open_hub(root, "hub:org/set", revision="0" * 40)
    with pytest.raises(DataError) as caught:
        source.columns()
    message = str(caught.value)
    assert "Couldn't reach 'org/set' on the Hub" in message
    assert f"hf download --repo-type dataset org/set --revision {'0' * 40} --local-dir data/raw/org/set" in message


def test_responses_cannot_come_from_hub(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"prepare\.responses is 'hub:org/set': only files"):
        open_source(root, "hub:org/set", key="prepare.responses", pin_key="prepare.responses_checksum", pin=None)
