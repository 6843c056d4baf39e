"""The real `datasets`, on folders in the layout of a hub data set; the hub itself is never asked."""

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


def opened(root: Path, name: str, pin: str | None = None, **hub: Any) -> Source:
    config = HubConfig.parse(hub, source="test")
    return open_source(root, name, key="prepare.source", pin_key="prepare.checksum", pin=pin, hub=config)


def test_a_split_of_a_downloaded_data_set_is_streamed_in_its_order_as_often_as_asked(root: Path) -> None:
    source = opened(root, "hub:data/raw/set", split="sft")
    assert source.columns() == ["id", "messages"]
    first = list(source.rows())
    assert [row["id"] for _, row in first if isinstance(row, dict)] == ["00", "01", "02", "10", "11", "12"]
    assert str(first[4][0]) == "hub:data/raw/set[sft], row 4"
    assert first[1][1] == {"id": "01", "messages": [{"role": "user", "content": "doc 1"}]}
    assert list(source.rows()) == first


def test_columns_of_a_split_without_a_schema_are_those_of_its_first_rows(root: Path) -> None:
    folder = root / "data" / "raw" / "lines"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"idx": 1, "query": "q"}\n')
    assert opened(root, "hub:data/raw/lines").columns() == ["idx", "query"]


def test_an_unknown_split_or_configuration_names_those_that_are_there(root: Path) -> None:
    with pytest.raises(DataError, match=r"split train, config the default\) cannot be read: .*sft"):
        list(opened(root, "hub:data/raw/set").rows())
    with pytest.raises(DataError, match=r"config small\) cannot be read: .*default"):
        list(opened(root, "hub:data/raw/set", split="sft", config="small").rows())


def test_a_folder_elsewhere_needs_a_checksum_and_a_data_set_of_the_hub_its_commit(root: Path) -> None:
    (root / "data" / "raw" / "set").rename(root / "set")
    with pytest.raises(ConfigError, match="outside data/raw") as caught:
        opened(root, "hub:set", split="sft")
    pin = str(caught.value).rsplit(maxsplit=1)[-1]
    assert len(list(opened(root, "hub:set", pin, split="sft").rows())) == 6
    with pytest.raises(ConfigError, match=r"prepare\.hub\.revision is not set.*\n.*datasets/org/set HEAD"):
        opened(root, "hub:org/set")
    with pytest.raises(ConfigError, match=r"pinned by prepare\.hub\.revision"):
        opened(root, "hub:org/set", pin, revision="0" * 40)
    with pytest.raises(ConfigError, match="no such folder"):
        opened(root, "hub:data/raw/absent")
    with pytest.raises(ConfigError, match=r"revision: String should match .*main"):
        opened(root, "hub:org/set", revision="main")


def test_without_network_the_error_says_how_to_bring_a_copy(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = opened(root, "hub:org/set", revision="0" * 40)
    with pytest.raises(DataError) as caught:
        source.columns()
    words = str(caught.value)
    assert "Couldn't reach 'org/set' on the Hub" in words
    assert f"hf download --repo-type dataset org/set --revision {'0' * 40} --local-dir data/raw/org/set" in words


def test_only_a_source_may_be_of_the_hub(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"prepare\.responses is 'hub:org/set': only files"):
        open_source(root, "hub:org/set", key="prepare.responses", pin_key="prepare.responses_checksum", pin=None)
