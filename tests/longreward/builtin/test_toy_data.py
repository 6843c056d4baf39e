from pathlib import Path

from longreward.builtin.toy_data import FOLDER, write_toy_data


def test_packaged_files_equal_generated_ones(tmp_path: Path) -> None:
    write_toy_data(tmp_path)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 21
    for file in files:
        assert (FOLDER / file).read_bytes() == (tmp_path / file).read_bytes(), file
