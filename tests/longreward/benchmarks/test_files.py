"""Fetching the benchmarks' files from real HTTP servers, and from a folder."""

import hashlib
import io
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from longreward.benchmarks.files import Outcome, fetch, locate, read_table
from longreward.benchmarks.files.lock import Lock
from longreward.errors import ConfigError, DataError, StateError
from longreward.flows.cli.main import main

QUESTIONS = b'{"question_id": 81}\n' * 100_000  # 2 MB: more than one block
ANSWERS = b"answers\n"


class Server:
    """Serves `files`, noting each request; `cut` bytes into a reply it hangs up, `statuses` are answered first."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/bench/questions.jsonl": QUESTIONS, "/bench/answers.txt": ANSWERS}
        self.requests: list[tuple[str, str | None]] = []
        self.cut: list[int] = []
        self.statuses: list[int] = []
        self.ranges = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.requests.append((request.path, wanted))
        content = self.files.get(request.path, b"")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if self.statuses or start >= len(content):
            request.send_error(self.statuses.pop(0) if self.statuses else 416 if content else 404)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        stop = start + self.cut.pop(0) if self.cut else None
        request.wfile.write(content[start:stop])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def write_table(tmp_path: Path, server: Server) -> Callable[..., Path]:
    """A table of two files; the checksum of the second is not known."""

    def write(
        sha256: str | None = hashlib.sha256(QUESTIONS).hexdigest(), name: str = "questions.jsonl", **more: Any
    ) -> Path:
        questions = {"what": "questions", "addresses": [f"{server.url}/bench/{name}"], "licence": "MIT"}
        answers = {"what": "answers", "addresses": [f"{server.url}/bench/answers.txt"], "sha256": None}
        rows = {
            "bench": {
                name: questions | {"sha256": sha256, "bytes": len(QUESTIONS)} | more,
                "answers.txt": answers | {"licence": "MIT", "needed": False},
            }
        }
        path = tmp_path / "sources.yaml"
        path.write_text(json.dumps(rows), encoding="utf-8")
        return path

    return write


def fetched(folder: Path, table: Path, **more: Any) -> dict[str, Outcome]:
    return {each.source.name: each for each in fetch(folder, table=table, pause_s=0.01, **more)}


def test_every_entry_of_the_table_is_pinned_and_says_its_licence() -> None:
    sources = read_table()
    assert {source.benchmark for source in sources} == {"mt_bench", "longbench_chat", "longbench", "alpaca_eval"}
    for source in sources:
        assert source.licence
        assert source.what
        for address in source.addresses:
            assert address.startswith(("https://raw.githubusercontent.com/", "https://huggingface.co/datasets/"))
            assert not any(f"/{branch}/" in address for branch in ("main", "master", "HEAD"))
    longbench = next(source for source in sources if source.name == "data.zip")
    assert len(longbench.files) == 12


def test_a_name_that_the_table_does_not_have_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no benchmark 'mt_bensh' has files to fetch; did you mean mt_bench\?"):
        read_table(["mt_bensh"])


def test_files_are_fetched_once_and_checked_ever_after(
    tmp_path: Path, server: Server, write_table: Callable[..., Path]
) -> None:
    folder, table = tmp_path / "files", write_table()
    first = fetched(folder, table)
    assert [first[name].state for name in ("questions.jsonl", "answers.txt")] == ["fetched", "fetched"]
    assert (folder / "bench/questions.jsonl").read_bytes() == QUESTIONS
    assert sorted(path.name for path in (folder / "bench").iterdir()) == ["answers.txt", "questions.jsonl"]
    assert locate("bench", folder, table)["questions.jsonl"] == folder / "bench/questions.jsonl"
    assert len(server.requests) == 2
    assert {outcome.state for outcome in fetched(folder, table).values()} == {"there"}
    assert len(server.requests) == 2


def test_an_unknown_checksum_is_recorded_at_the_first_fetch_and_held_to(
    tmp_path: Path, server: Server, write_table: Callable[..., Path]
) -> None:
    folder, table = tmp_path / "files", write_table()
    expected = hashlib.sha256(ANSWERS).hexdigest()
    assert fetched(folder, table)["answers.txt"].recorded == expected
    assert json.loads((folder / "files.lock.json").read_text()) == {
        "bench/answers.txt": {"sha256": expected, "bytes": 8, "address": f"{server.url}/bench/answers.txt"}
    }
    (folder / "bench/answers.txt").unlink()
    server.files["/bench/answers.txt"] = b"others!\n"
    outcome = fetched(folder, table)["answers.txt"]
    assert outcome.state == "failed"
    assert "files.lock.json, from its first fetch, says" in outcome.reason
    assert expected in outcome.reason
    assert not (folder / "bench/answers.txt").exists()
    (folder / "bench/answers.txt").write_bytes(b"by hand\n")
    assert "move it aside to fetch it anew" in fetched(folder, table)["answers.txt"].reason


def test_a_wrong_file_is_refused_and_leaves_nothing(
    tmp_path: Path, server: Server, write_table: Callable[..., Path]
) -> None:
    server.files["/bench/questions.jsonl"] = b"<html>Sign in</html>"
    outcome = fetched(tmp_path / "files", write_table())["questions.jsonl"]
    assert outcome.is_bad
    assert "is not what the table says" in outcome.reason
    assert f"It goes to {tmp_path}/files/bench/questions.jsonl (sha256 {outcome.source.sha256}" in outcome.reason
    assert [path.name for path in (tmp_path / "files/bench").iterdir()] == ["answers.txt"]


def test_a_sign_in_page_is_not_recorded_as_the_file(
    tmp_path: Path, server: Server, write_table: Callable[..., Path]
) -> None:
    server.files["/bench/answers.txt"] = b"\n<!DOCTYPE html><html>Sign in</html>"
    outcome = fetched(tmp_path / "files", table := write_table())["answers.txt"]
    assert "is no .txt file (36 bytes); nothing was recorded" in outcome.reason
    server.files["/bench/answers.txt"] = ANSWERS
    assert fetched(tmp_path / "files", table)["answers.txt"].state == "fetched"


def test_an_interrupted_download_goes_on_where_it_stopped(
    tmp_path: Path, server: Server, write_table: Callable[..., Path]
) -> None:
    server.cut = [1000, 500_000]
    assert fetched(tmp_path / "files", write_table())["questions.jsonl"].state == "fetched"
    assert [wanted for path, wanted in server.requests if "questions" in path] == [None, "bytes=1000-", "bytes=501000-"]


def test_what_came_before_the_server_went_for_good_is_kept_for_the_next_call(
    tmp_path: Path, server: Server, write_table: Callable[..., Path]
) -> None:
    server.cut = [1000, 1000, 1000]
    outcome = fetched(tmp_path / "files", table := write_table())["questions.jsonl"]
    assert "ended after 3,000 of 2,000,000 bytes; the same command goes on from there" in outcome.reason
    assert (tmp_path / "files/bench/.questions.jsonl.part").stat().st_size == 3000
    assert fetched(tmp_path / "files", table)["questions.jsonl"].state == "fetched"
    assert ("/bench/questions.jsonl", "bytes=3000-") in server.requests


def test_a_part_of_another_file_is_dropped_and_the_download_begins_anew(
    tmp_path: Path, server: Server, write_table: Callable[..., Path]
) -> None:
    part = tmp_path / "files/bench/.questions.jsonl.part"
    part.parent.mkdir(parents=True)
    for leftover, server.ranges in ((b"x" * 1000, True), (b"x" * 1000, False), (b"x" * 3_000_000, True)):
        part.write_bytes(leftover)
        assert fetched(tmp_path / "files", write_table())["questions.jsonl"].state == "fetched"
        assert (tmp_path / "files/bench/questions.jsonl").read_bytes() == QUESTIONS
        (tmp_path / "files/bench/questions.jsonl").unlink()


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(
    tmp_path: Path, server: Server, write_table: Callable[..., Path]
) -> None:
    server.statuses = [503, 429]
    del server.files["/bench/answers.txt"]
    outcomes = fetched(tmp_path / "files", write_table())
    assert outcomes["questions.jsonl"].state == "fetched"
    assert "answered 404" in outcomes["answers.txt"].reason
    assert not outcomes["answers.txt"].is_bad  # the table says that it is not needed
    assert len(server.requests) == 4


def test_a_second_address_is_tried_where_the_first_has_nothing(
    tmp_path: Path, server: Server, write_table: Callable[..., Path]
) -> None:
    table = write_table(addresses=[f"{server.url}/gone.jsonl", f"{server.url}/bench/questions.jsonl"])
    assert fetched(tmp_path / "files", table)["questions.jsonl"].state == "fetched"


def test_a_mirror_serves_the_same_layout(tmp_path: Path, server: Server, write_table: Callable[..., Path]) -> None:
    table = write_table(addresses=["http://127.0.0.1:1/never-asked"])
    server.files = {f"/mirror{path}": content for path, content in server.files.items()}
    assert fetched(tmp_path / "files", table, mirror=f"{server.url}/mirror/")["questions.jsonl"].state == "fetched"
    with pytest.raises(ConfigError, match="must hold no user, password or query") as raised:
        fetch(tmp_path, mirror="https://me:hunter2@mirror.example", table=table)
    assert "hunter2" not in str(raised.value)


def test_without_a_network_each_file_is_named_with_its_place_and_checksum(
    tmp_path: Path, server: Server, write_table: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # a proxy that is down
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    outcomes = fetched(tmp_path / "files", table := write_table())
    for outcome in outcomes.values():
        assert "cannot be reached" in outcome.reason
        assert f"It goes to {tmp_path}/files/bench/{outcome.source.name}" in outcome.reason
    assert server.requests == []
    with pytest.raises(DataError) as raised:
        locate("bench", tmp_path / "files", table)
    assert str(raised.value) == (
        f"bench lacks 1 file(s):\n  {tmp_path}/files/bench/questions.jsonl (sha256 "
        f"{hashlib.sha256(QUESTIONS).hexdigest()}; from {server.url}/bench/questions.jsonl)\n"
        f"Fetch them:  longreward benchmarks fetch --only bench --folder {tmp_path}/files\n"
        "Without a network, copy them to these places, or name a folder that holds them with --from"
    )


def test_a_file_put_there_by_hand_is_checked_and_recorded(tmp_path: Path, write_table: Callable[..., Path]) -> None:
    place = tmp_path / "files/bench/answers.txt"
    place.parent.mkdir(parents=True)
    place.write_bytes(ANSWERS)
    table = write_table(addresses=[])
    outcomes = fetched(tmp_path / "files", table)
    assert outcomes["answers.txt"].state == "there"
    assert Lock(tmp_path / "files").checksum("bench/answers.txt") == hashlib.sha256(ANSWERS).hexdigest()
    assert "no address of it is known" in outcomes["questions.jsonl"].reason


def test_a_local_folder_is_taken_by_layout_or_by_bare_names(
    tmp_path: Path, server: Server, write_table: Callable[..., Path]
) -> None:
    local = tmp_path / "local"
    (local / "bench").mkdir(parents=True)
    (local / "bench/questions.jsonl").write_bytes(QUESTIONS)
    (local / "answers.txt").write_bytes(ANSWERS)
    outcomes = fetched(tmp_path / "files", write_table(), local=local)
    assert {outcome.state for outcome in outcomes.values()} == {"fetched"}
    assert server.requests == []


def test_a_folder_whose_place_is_taken_by_a_file_says_so(tmp_path: Path, write_table: Callable[..., Path]) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/bench").write_text("in the way")
    with pytest.raises(StateError, match=r"cannot be written: .*name another folder with --folder"):
        fetched(tmp_path / "files", write_table())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path, write_table: Callable[..., Path]) -> None:
    folder = tmp_path / "files"
    folder.mkdir(mode=0o500)
    with pytest.raises(StateError, match="cannot be written: Permission denied; make room, give write permission"):
        fetched(folder, write_table())


def test_a_full_disk_says_so_and_keeps_no_wrong_file(tmp_path: Path, write_table: Callable[..., Path]) -> None:
    folder = tmp_path / "files"
    (folder / "bench").mkdir(parents=True)
    (folder / "bench/.questions.jsonl.part").symlink_to("/dev/full")
    with pytest.raises(StateError, match="No space left on device; make room"):
        fetched(folder, write_table())
    assert not (folder / "bench/questions.jsonl").exists()


def test_an_archive_is_unpacked_and_a_damaged_member_written_anew(
    tmp_path: Path, server: Server, write_table: Callable[..., Path]
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/one.jsonl", '{"input": 1}\n')
        archive.writestr("data/not_wanted.jsonl", "{}\n")
    server.files["/bench/data.zip"] = packed.getvalue()
    table = write_table(sha256=None, name="data.zip", bytes=None, members={"data/one.jsonl": "sets/one.jsonl"})
    folder = tmp_path / "files"
    assert fetched(folder, table)["data.zip"].state == "fetched"
    place = folder / "bench/sets/one.jsonl"
    assert place.read_text() == '{"input": 1}\n'
    assert not list(folder.glob("**/not_wanted*"))
    place.write_text('{"input": 2}\n')
    assert fetched(folder, table)["data.zip"].state == "there"
    assert place.read_text() == '{"input": 1}\n'
    assert locate("bench", folder, table)["sets/one.jsonl"] == place


def test_an_archive_that_lacks_a_member_fails(tmp_path: Path, server: Server, write_table: Callable[..., Path]) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("data/two.jsonl", "{}\n")
    server.files["/bench/data.zip"] = packed.getvalue()
    table = write_table(sha256=None, name="data.zip", bytes=None, members={"data/one.jsonl": "one.jsonl"})
    assert "lacks a member" in fetched(tmp_path / "files", table)["data.zip"].reason


def test_a_lock_that_is_none_stops_at_once(tmp_path: Path, write_table: Callable[..., Path]) -> None:
    (tmp_path / "files").mkdir()
    for content in ("{", "[]", '{"bench/a": {"sha256": "short"}}'):
        (tmp_path / "files/files.lock.json").write_text(content)
        with pytest.raises(DataError, match="is no lock of fetched files"):
            fetched(tmp_path / "files", write_table())


def test_list_tells_what_is_there_without_touching_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mt_bench").mkdir()
    (tmp_path / "mt_bench/question.jsonl").write_text("{}\n")
    assert main(["benchmarks", "list", "--only", "mt_bench", "--folder", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "there    mt_bench/question.jsonl" in lines
    assert "missing  mt_bench/judge_prompts.jsonl" in lines


@pytest.mark.skipif("LONGREWARD_REFERENCE" not in os.environ, reason="LONGREWARD_REFERENCE is not set")
def test_the_official_files_have_the_checksums_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = os.environ["LONGREWARD_REFERENCE"]
    assert main(["benchmarks", "fetch", "--only", "mt_bench", "--from", reference, "--folder", str(tmp_path)]) == 0
    assert "3 of 3 files" in capsys.readouterr().out
    outcomes = fetch(tmp_path, local=Path(reference))
    known = {outcome.source.key: outcome.state for outcome in outcomes if outcome.source.bytes}
    assert known.pop("alpaca_eval/alpaca_eval_clf.txt") == "failed"  # not among the reference files
    assert {state for key, state in known.items() if not key.startswith("mt_bench")} == {"fetched"}
    assert main(["benchmarks", "fetch", "--only", "longbench", "--from", reference, "--folder", str(tmp_path)]) == 1
    assert "missing   longbench/data.zip" in capsys.readouterr().out
