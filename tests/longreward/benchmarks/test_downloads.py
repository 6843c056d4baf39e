"""Downloads from a real HTTP server on the loopback interface, and copies from a folder."""

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from http_server import JsonHandler, http_server

from longreward.benchmarks.downloads import FetchResult, fetch, locate_files, read_sources, recorded_checksums
from longreward.errors import ConfigError, DataError, StateError
from longreward.flows.cli.main import main

QUESTIONS = b'{"question_id": 81}\n' * 10_000
ANSWERS = b"answers\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class FileServer:
    """Serves `files`; `statuses` and then replies cut after `cut` bytes come first."""

    url: str = ""
    files: dict[str, bytes] = field(
        default_factory=lambda: {"/bench/questions.jsonl": QUESTIONS, "/bench/answers.txt": ANSWERS}
    )
    requests: list[str] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[FileServer]:
    state = FileServer()

    class Handler(JsonHandler):
        protocol_version = "HTTP/1.0"  # closes the connection, so that a cut reply ends

        def do_GET(self) -> None:
            state.requests.append(self.path)
            content = state.files.get(self.path)
            if state.statuses or content is None:
                self.send_error(state.statuses.pop(0) if state.statuses else 404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: state.cut.pop(0) if state.cut else None])

    with http_server(Handler) as state.url:
        yield state


@pytest.fixture
def write_table(tmp_path: Path, server: FileServer) -> Callable[..., Path]:
    """Write a table of two files: a needed one, and an optional one without a known checksum."""

    def write(name: str = "questions.jsonl", **changes: Any) -> Path:
        questions = {"what": "questions", "size": "?", "licence": "MIT", "sha256": sha256(QUESTIONS)}
        questions |= {"addresses": [f"{server.url}/bench/{name}"]}
        answers = {"what": "answers", "size": "8 bytes", "licence": "MIT", "sha256": None, "needed": False}
        answers |= {"addresses": [f"{server.url}/bench/answers.txt"]}
        path = tmp_path / "sources.yaml"
        path.write_text(json.dumps({"bench": {name: questions | changes, "answers.txt": answers}}))
        return path

    return write


def fetch_all(folder: Path, table: Path, **options: Any) -> dict[str, FetchResult]:
    return {result.source.name: result for result in fetch(folder, table=table, retry_wait_s=0.0, **options)}


def test_all_addresses_in_table_pinned() -> None:
    sources = read_sources()
    assert {source.benchmark for source in sources} == {
        *("mt_bench", "longbench_chat", "longbench", "alpaca_eval", "ruler", "longbench_v2", "infinitebench")
    }
    for address in (address for source in sources for address in source.addresses):
        if not address.endswith("/SQuAD-explorer/dataset/dev-v2.0.json"):  # its publisher has no older versions
            assert re.match(r"https://((raw|media)\.githubusercontent\.com|huggingface\.co/datasets)/", address)
        assert not any(f"/{branch}/" in address for branch in ("main", "master", "HEAD"))
    assert [len(source.files) for source in sources if source.name == "data.zip"] == [21 + 13]


def test_unknown_benchmark_suggests_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"'mt_bensh'.*did you mean mt_bench\?"):
        read_sources(["mt_bensh"])


def test_files_downloaded_once_then_verified(
    tmp_path: Path, server: FileServer, write_table: Callable[..., Path]
) -> None:
    folder, table = tmp_path / "files", write_table()
    assert {result.status for result in fetch_all(folder, table).values()} == {"fetched"}
    assert (folder / "bench/questions.jsonl").read_bytes() == QUESTIONS
    assert sorted(path.name for path in (folder / "bench").iterdir()) == ["answers.txt", "questions.jsonl"]
    assert locate_files("bench", folder, table)["questions.jsonl"] == folder / "bench/questions.jsonl"
    assert len(server.requests) == 2
    assert {result.status for result in fetch_all(folder, table).values()} == {"present"}
    assert len(server.requests) == 2
    (folder / "bench/questions.jsonl").write_bytes(b"damaged")
    assert fetch_all(folder, table)["questions.jsonl"].status == "fetched"
    assert (folder / "bench/questions.jsonl").read_bytes() == QUESTIONS


def test_unknown_checksum_recorded_and_enforced(
    tmp_path: Path, server: FileServer, write_table: Callable[..., Path]
) -> None:
    folder, table = tmp_path / "files", write_table()
    assert fetch_all(folder, table)["answers.txt"].recorded_sha256 == sha256(ANSWERS)
    assert json.loads((folder / "files.lock.json").read_text()) == {"bench/answers.txt": sha256(ANSWERS)}
    (folder / "bench/answers.txt").unlink()
    server.files["/bench/answers.txt"] = b"others!\n"
    result = fetch_all(folder, table)["answers.txt"]
    assert result.status == "failed"
    assert sha256(ANSWERS) in result.reason
    assert not (folder / "bench/answers.txt").exists()


def test_git_blob_identifies_file_without_checksum(
    tmp_path: Path, server: FileServer, write_table: Callable[..., Path]
) -> None:
    blob = hashlib.sha1(b"blob 8\0" + ANSWERS).hexdigest()  # as `git hash-object` computes it
    table = write_table()
    rows = json.loads(table.read_text())
    rows["bench"]["answers.txt"]["git_blob"] = blob
    table.write_text(json.dumps(rows))
    result = fetch_all(tmp_path / "files", table)["answers.txt"]
    assert (result.status, result.recorded_sha256) == ("fetched", sha256(ANSWERS))
    server.files["/bench/answers.txt"] = b"others!\n"
    result = fetch_all(tmp_path / "other", table)["answers.txt"]
    assert result.status == "failed"
    assert f"expected {blob}" in result.reason
    assert not (tmp_path / "other/bench/answers.txt").exists()
    assert not (tmp_path / "other/files.lock.json").exists()


def test_wrong_content_rejected(tmp_path: Path, server: FileServer, write_table: Callable[..., Path]) -> None:
    server.files["/bench/questions.jsonl"] = b"<html>Sign in</html>"
    result = fetch_all(tmp_path / "files", write_table())["questions.jsonl"]
    assert result.is_fatal
    assert f"Target: {tmp_path}/files/bench/questions.jsonl (sha256 {sha256(QUESTIONS)}" in result.reason
    assert [path.name for path in (tmp_path / "files/bench").iterdir()] == ["answers.txt"]
    assert server.requests.count("/bench/questions.jsonl") == 1  # another attempt would not help


def test_sign_in_page_not_recorded(tmp_path: Path, server: FileServer, write_table: Callable[..., Path]) -> None:
    server.files["/bench/answers.txt"] = b"\n<!DOCTYPE html><html>Sign in</html>"
    folder, table = tmp_path / "files", write_table()
    assert "not that of a .txt file (36 bytes)" in fetch_all(folder, table)["answers.txt"].reason
    assert recorded_checksums(folder) == {}
    server.files["/bench/answers.txt"] = ANSWERS
    assert fetch_all(folder, table)["answers.txt"].status == "fetched"


def test_interrupted_download_retried(tmp_path: Path, server: FileServer, write_table: Callable[..., Path]) -> None:
    server.cut = [1000, 5000]
    assert fetch_all(tmp_path / "files", write_table())["questions.jsonl"].status == "fetched"
    assert server.requests.count("/bench/questions.jsonl") == 3
    (tmp_path / "files/bench/questions.jsonl").unlink()
    server.cut = [1000] * 3
    result = fetch_all(tmp_path / "files", write_table())["questions.jsonl"]
    assert "; 3 attempts" in result.reason
    assert not (tmp_path / "files/bench/questions.jsonl").exists()


def test_busy_server_retried_but_missing_file_not(
    tmp_path: Path, server: FileServer, write_table: Callable[..., Path]
) -> None:
    server.statuses = [503, 429]
    del server.files["/bench/answers.txt"]
    results = fetch_all(tmp_path / "files", write_table())
    assert results["questions.jsonl"].status == "fetched"
    assert "HTTP 404" in results["answers.txt"].reason
    assert not results["answers.txt"].is_fatal  # optional
    assert len(server.requests) == 4


def test_second_address_tried(tmp_path: Path, server: FileServer, write_table: Callable[..., Path]) -> None:
    table = write_table(addresses=[f"{server.url}/gone.jsonl", f"{server.url}/bench/questions.jsonl"])
    assert fetch_all(tmp_path / "files", table)["questions.jsonl"].status == "fetched"


def test_mirror_has_same_layout(tmp_path: Path, server: FileServer, write_table: Callable[..., Path]) -> None:
    table = write_table(addresses=["http://127.0.0.1:1/unused"])
    server.files = {f"/mirror{path}": content for path, content in server.files.items()}
    results = fetch_all(tmp_path / "files", table, mirror=f"{server.url}/mirror/")
    assert results["questions.jsonl"].status == "fetched"
    with pytest.raises(ConfigError) as raised:
        fetch(tmp_path, mirror="https://me:hunter2@mirror.example", table=table)
    assert "hunter2" not in str(raised.value)


def test_without_network_missing_files_listed_with_checksum(
    tmp_path: Path, server: FileServer, write_table: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nothing listens there
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    table = write_table()
    for result in fetch_all(tmp_path / "files", table).values():
        assert "Unable to connect to proxy" in result.reason
        assert f"Target: {tmp_path}/files/bench/{result.source.name}" in result.reason
    assert server.requests == []
    with pytest.raises(DataError) as raised:
        locate_files("bench", tmp_path / "files", table)
    lines = str(raised.value).splitlines()
    path = tmp_path / "files/bench/questions.jsonl"
    assert lines[1] == f"  {path} (sha256 {sha256(QUESTIONS)}; {server.url}/bench/questions.jsonl)"
    assert f"longreward benchmarks fetch --only bench --folder {tmp_path}/files" in lines[2]
    assert "--from" in lines[3]


def test_file_copied_by_hand_verified_and_recorded(tmp_path: Path, write_table: Callable[..., Path]) -> None:
    path = tmp_path / "files/bench/answers.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(ANSWERS)
    results = fetch_all(tmp_path / "files", write_table(addresses=[]))
    assert results["answers.txt"].status == "present"
    assert recorded_checksums(tmp_path / "files") == {"bench/answers.txt": sha256(ANSWERS)}
    assert "no known address" in results["questions.jsonl"].reason
    (path.parent / "questions.jsonl").write_bytes(b"something else")
    assert "different file" in fetch_all(tmp_path / "files", write_table(addresses=[]))["questions.jsonl"].reason
    assert (path.parent / "questions.jsonl").read_bytes() == b"something else"


def test_local_folder_has_same_layout_or_bare_names(
    tmp_path: Path, server: FileServer, write_table: Callable[..., Path]
) -> None:
    local = tmp_path / "local"
    (local / "bench").mkdir(parents=True)
    (local / "bench/questions.jsonl").write_bytes(QUESTIONS)
    (local / "answers.txt").write_bytes(ANSWERS)
    results = fetch_all(tmp_path / "files", write_table(), local=local)
    assert {result.status for result in results.values()} == {"fetched"}
    assert server.requests == []
    (local / "bench/questions.jsonl").write_bytes(b"{}")
    results = fetch_all(tmp_path / "other", write_table(), local=local)
    assert f"expected {sha256(QUESTIONS)}" in results["questions.jsonl"].reason


def test_bare_name_of_file_in_subfolder(tmp_path: Path, server: FileServer, write_table: Callable[..., Path]) -> None:
    (tmp_path / "questions.jsonl").write_bytes(QUESTIONS)
    results = fetch_all(tmp_path / "files", write_table("data/questions.jsonl"), local=tmp_path)
    assert results["data/questions.jsonl"].status == "fetched"
    assert (tmp_path / "files/bench/data/questions.jsonl").read_bytes() == QUESTIONS


def test_unwritable_folder(tmp_path: Path, write_table: Callable[..., Path]) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/bench").write_text("a file instead of a folder")
    with pytest.raises(StateError, match=r"cannot be written: .*another --folder"):
        fetch_all(tmp_path / "files", write_table())


def zipped(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_archive_members_extracted(tmp_path: Path, server: FileServer, write_table: Callable[..., Path]) -> None:
    server.files["/bench/data.zip"] = zipped({"data/one.jsonl": '{"input": 1}\n', "data/other.jsonl": "{}\n"})
    table = write_table("data.zip", sha256=None, members=["data/one.jsonl"])
    folder = tmp_path / "files"
    assert fetch_all(folder, table)["data.zip"].status == "fetched"
    path = folder / "bench/data/one.jsonl"
    assert path.read_text() == '{"input": 1}\n'
    assert not list(folder.glob("**/other*"))
    assert locate_files("bench", folder, table)["data/one.jsonl"] == path
    path.write_text('{"inp')  # an interrupted extraction
    assert fetch_all(folder, table)["data.zip"].status == "present"
    assert path.read_text() == '{"input": 1}\n'


@pytest.mark.parametrize(
    ("content", "reason"), [(zipped({"data/two.jsonl": "{}\n"}), "lacks a member"), (b"PK damaged", "not a valid zip")]
)
def test_damaged_archive(
    tmp_path: Path, server: FileServer, write_table: Callable[..., Path], content: bytes, reason: str
) -> None:
    server.files["/bench/data.zip"] = content
    table = write_table("data.zip", sha256=None, members=["data/one.jsonl"])
    assert reason in fetch_all(tmp_path / "files", table)["data.zip"].reason


@pytest.mark.parametrize("content", ["{", "[]", '{"bench/a": "short"}'])
def test_malformed_lock_file(tmp_path: Path, write_table: Callable[..., Path], content: str) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/files.lock.json").write_text(content)
    with pytest.raises(DataError, match="not a lock file"):
        fetch_all(tmp_path / "files", write_table())


def test_list_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mt_bench").mkdir()
    (tmp_path / "mt_bench/question.jsonl").write_text("{}\n")
    assert main(["benchmarks", "list", "--only", "mt_bench", "--folder", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "present  mt_bench/question.jsonl" in lines
    assert "missing  mt_bench/judge_prompts.jsonl" in lines


@pytest.mark.skipif("LONGREWARD_REFERENCE" not in os.environ, reason="LONGREWARD_REFERENCE is not set")
def test_published_files_have_checksums_of_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = os.environ["LONGREWARD_REFERENCE"]
    assert main(["benchmarks", "fetch", "--only", "mt_bench", "--from", reference, "--folder", str(tmp_path)]) == 0
    assert "3 of 3 files" in capsys.readouterr().out
    assert main(["benchmarks", "fetch", "--only", "longbench", "--from", reference, "--folder", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "fetched   longbench/dataset2prompt.json" in output
    assert "missing   longbench/data.zip" in output
    results = fetch(tmp_path, only=["longbench_chat"], local=Path(reference))
    assert {r.source.name: r.status for r in results if r.source.sha256} == {
        "few_shots.json": "fetched",
        "prompt_fs.txt": "fetched",
        "eval.py": "failed",  # is not among the files
    }
