"""Committed rows survive kill -9, power cuts and torn writes, and wrong replies are never returned."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from ledgers import make_exchange

from longreward.errors import StateError
from longreward.judge.ledger import Ledger
from longreward.judge.ledger.reader import verify_ledger


def text_of(n: int) -> str:
    return f"Statement {n} is supported. [[{n % 10}]]" * (1 + n % 9)


def read_replies(path: Path, rows: int) -> dict[int, str]:
    """Return every reply that the ledger returns; skip the requests whose pages are damaged."""
    replies = {}
    with Ledger(path, busy_timeout_s=0.1) as ledger:
        for n in range(rows):
            try:
                for exchange in ledger.find(str(n)):
                    replies[n] = exchange.reply.text
            except StateError as error:
                if "longreward ledger merge" not in str(error):
                    raise
    return replies


# Forks the writers, because starting Python for each kill would take most of the time.
FORK_SERVER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ledgers import make_exchange
from longreward.judge.ledger import Ledger
from test_ledger_crashes import text_of

def write(n):
    ledger = Ledger(Path(sys.argv[1]))
    committed = os.open(sys.argv[1] + ".committed", os.O_WRONLY | os.O_CREAT)
    while True:
        batch = (n, n + 1)[: 1 + n % 3]
        if len(batch) == 1:
            ledger.put(make_exchange(str(n), text_of(n)))
        else:
            ledger.put_many([make_exchange(str(m), text_of(m)) for m in batch])
        n += len(batch)
        os.pwrite(committed, b"%09d" % n, 0)

for line in sys.stdin:
    process = os.fork()
    if process == 0:
        write(int(line))
    print(process, flush=True)
    os.waitpid(process, 0)
    print("ended", flush=True)
"""


def test_kill_9_loses_no_committed_row(tmp_path: Path) -> None:
    path, rng, committed = tmp_path / "ledger", random.Random(2), 0
    counter = path.with_name("ledger.committed")
    command = [sys.executable, "-c", FORK_SERVER, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for _ in range(10):
            server.stdin.write(f"{committed}\n")
            writer = int(server.stdout.readline())
            while not counter.exists() or int(counter.read_text() or 0) < committed + 10:
                time.sleep(0.002)
            time.sleep(rng.random() * 0.01)  # any moment within a commit
            os.kill(writer, signal.SIGKILL)
            server.stdout.readline()
            committed = int(counter.read_text())
    assert verify_ledger(path).damage == []
    replies = read_replies(path, committed + 10)
    assert replies.items() >= {n: text_of(n) for n in range(committed)}.items()
    assert all(text == text_of(n) for n, text in replies.items())


def test_power_cut_keeps_commits_before_it(tmp_path: Path) -> None:
    path, copy, rng = tmp_path / "ledger", tmp_path / "copy", random.Random(3)
    commit_ends, log = [0], path.with_name("ledger-wal")
    with Ledger(path) as ledger:
        for n in range(40):
            ledger.put(make_exchange(str(n), text_of(n)))
            commit_ends.append(log.stat().st_size)
        content, size = log.read_bytes(), commit_ends[-1]
        for cut in [0, 31, 32, 33, size - 1, *(rng.randrange(size) for _ in range(12))]:
            for garbage in (b"", bytes(4096), rng.randbytes(4096)):  # what a disk may return behind the cut
                shutil.copy(path, copy)
                copy.with_name("copy-wal").write_bytes(content[:cut] + garbage)
                copy.with_name("copy-shm").unlink(missing_ok=True)
                expected = {n: text_of(n) for n in range(sum(end <= cut for end in commit_ends[1:]))}
                assert read_replies(copy, 40) == expected


def test_truncated_or_torn_file_gives_no_wrong_reply(tmp_path: Path) -> None:
    path, copy, rng = tmp_path / "ledger", tmp_path / "copy", random.Random(4)
    with Ledger(path) as ledger:
        ledger.put_many([make_exchange(str(n), text_of(n)) for n in range(100)])
    content = path.read_bytes()
    total = 0
    for _ in range(30):
        cut, length = rng.randrange(len(content)), rng.randrange(8192)
        for damaged in (content[:cut], content[:cut] + bytes(length) + content[cut + length :]):
            for file in tmp_path.glob("copy*"):
                file.unlink()
            copy.write_bytes(damaged)
            try:
                replies = read_replies(copy, 100)
            except StateError:
                continue
            total += len(replies)
            assert all(text == text_of(n) for n, text in replies.items())
    assert total > 300


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from ledgers import make_exchange
from longreward.judge.ledger import Ledger
from test_ledger_crashes import text_of
ledger, n = Ledger(Path(sys.argv[1])), 0
while n < 300:
    if sys.argv[2] == "write":
        ledger.put(make_exchange(str(n), text_of(n)))
        n += 1
    for exchange in ledger.find(str(n)):
        assert exchange.reply.text == text_of(n)
        n += sys.argv[2] == "read"
"""


def test_two_writers_of_same_requests_and_reader(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(path), mode, str(Path(__file__).parent)])
        for mode in ("write", "write", "read")
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert read_replies(path, 301) == {n: text_of(n) for n in range(300)}
    result = verify_ledger(path)
    assert (result.rows["exchanges"], result.damage) == (300, [])
