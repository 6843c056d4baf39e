"""What was committed stays, and nothing else is served: after kill -9, after a power cut, among processes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from ledgers import exchange

from longreward.errors import StateError
from longreward.judge.ledger import Ledger
from longreward.judge.ledger.reader import verify_ledger


def text_of(n: int) -> str:
    return f"Statement {n} is supported. [[{n % 10}]]" * (1 + n % 9)


def served(path: Path, rows: int) -> dict[int, str]:
    """Every answer that the ledger at `path` gives, as far as it can be read."""
    found = {}
    with Ledger(path, busy_timeout_s=0.1) as ledger:
        for n in range(rows):
            try:
                for each in ledger.find(str(n)):
                    found[n] = each.reply.text
            except StateError as error:
                if "longreward ledger merge" not in str(error):
                    raise
    return found


FORKER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ledgers import exchange
from longreward.judge.ledger import Ledger
from test_ledger_crashes import text_of

def write(n):
    ledger, said = Ledger(Path(sys.argv[1])), os.open(sys.argv[1] + ".committed", os.O_WRONLY | os.O_CREAT)
    while True:
        some = (n, n + 1)[: 1 + n % 3]
        if len(some) == 1:
            ledger.put(exchange(str(n), text_of(n)))
        else:
            ledger.put_many([exchange(str(m), text_of(m)) for m in some])
        n += len(some)
        os.pwrite(said, b"%09d" % n, 0)  # all below are committed

for line in sys.stdin:
    process = os.fork()
    if process == 0:
        write(int(line))
    print(process, flush=True)
    os.waitpid(process, 0)
    print("ended", flush=True)
"""


def test_kill_9_at_twenty_random_moments_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    path, chance, committed = tmp_path / "ledger", random.Random(2), 0
    command = [sys.executable, "-c", FORKER, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as forker:
        assert forker.stdin is not None
        assert forker.stdout is not None
        for kill in range(20):
            forker.stdin.write(f"{committed}\n")
            writer = int(forker.stdout.readline())
            time.sleep(0.01 + chance.random() * 0.05)
            os.kill(writer, signal.SIGKILL)
            forker.stdout.readline()
            said = path.with_name("ledger.committed")
            committed = int(said.read_text()) if said.exists() else 0
            if kill % 7 == 6:
                assert verify_ledger(path).damage == []
    answers = served(path, committed + 10)
    assert answers.items() >= {n: text_of(n) for n in range(committed)}.items()
    assert all(text == text_of(n) for n, text in answers.items())
    assert committed > 100


def test_a_power_cut_at_any_byte_of_the_log_leaves_what_was_written_before(tmp_path: Path) -> None:
    """Cut behind the k-th commit, the ledger holds the first k rows at least, and of the others none or all."""
    path, copy, chance = tmp_path / "ledger", tmp_path / "copy", random.Random(3)
    ends, log = [0], path.with_name("ledger-wal")
    with Ledger(path) as ledger:
        for n in range(60):
            ledger.put(exchange(str(n), text_of(n)))
            ends.append(log.stat().st_size)
        content, size = log.read_bytes(), ends[-1]
        for cut in [0, 1, 31, 32, 33, size - 1, *(chance.randrange(size) for _ in range(40))]:
            shutil.copy(path, copy)
            for garbage in (b"", bytes(4096), chance.randbytes(4096)):  # what a disk may show behind it
                copy.with_name("copy-wal").write_bytes(content[:cut] + garbage)
                copy.with_name("copy-shm").unlink(missing_ok=True)
                kept = sum(end <= cut for end in ends[1:])
                try:
                    answers = served(copy, 60)
                except StateError:
                    if cut >= ends[1]:
                        raise
                    continue  # not even the tables were committed
                assert answers == {n: text_of(n) for n in range(kept)}
                shutil.copy(path, copy)


def test_a_file_cut_or_torn_at_any_byte_serves_no_wrong_answer(tmp_path: Path) -> None:
    path, copy, chance = tmp_path / "ledger", tmp_path / "copy", random.Random(4)
    with Ledger(path) as ledger:
        ledger.put_many([exchange(str(n), text_of(n)) for n in range(100)])
    content = path.read_bytes()
    seen = 0
    for _ in range(80):
        cut, length = chance.randrange(len(content)), chance.randrange(8192)
        for damaged in (content[:cut], content[:cut] + bytes(length) + content[cut + length :]):
            for left in tmp_path.glob("copy*"):
                left.unlink()
            copy.write_bytes(damaged)
            try:
                answers = served(copy, 100)
            except StateError:
                continue
            seen += len(answers)
            assert all(text == text_of(n) for n, text in answers.items())
    assert seen > 1000


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from ledgers import exchange
from longreward.judge.ledger import Ledger
from test_ledger_crashes import text_of
ledger, n = Ledger(Path(sys.argv[1])), 0
while n < 600:
    if sys.argv[2] == "writes":
        ledger.put(exchange(str(n), text_of(n)))
        n += 1
    for each in ledger.find(str(n)):
        assert each.reply.text == text_of(n)
        n += sys.argv[2] == "reads"
"""


def test_two_writers_and_a_reader_work_at_once(tmp_path: Path) -> None:
    """Both write the same questions: each is kept once, and the reader sees each as soon as it is there."""
    path = tmp_path / "ledger"
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(path), work, str(Path(__file__).parent)])
        for work in ("writes", "writes", "reads")
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert served(path, 601) == {n: text_of(n) for n in range(600)}
    found = verify_ledger(path)
    assert (found.rows["exchanges"], found.damage) == (600, [])
