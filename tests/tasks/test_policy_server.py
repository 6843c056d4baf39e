"""The policy at a server that the stage starts: `transformers serve` in vLLM's place."""

import asyncio
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect import flow

import longreward
import longreward.tasks.sample_shards
from longreward.errors import ServerRefused, ServerUnavailable
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_policy
from longreward.models.sampling import SampleConfig, sample
from longreward.models.served_policy import ServedPolicy, sample_served
from longreward.models.server_config import ServerConfig
from longreward.records import Example, Response
from longreward.tasks.policy_server import PolicyServerProcess, comparison_server, open_policy
from longreward.tasks.sample_shards import sample_in_shards
from longreward.tasks.shards import run_in_shards

MODEL = Path(longreward.__file__).parents[1] / "models" / "tiny-base"
POLICY = PolicyConfig(base_model=str(MODEL), dtype="float32")
COMMAND = ["transformers", "serve", "{model}", "--host", "127.0.0.1", "--port", "{port}", "--device", "cpu"]
EXAMPLES = [
    Example(id="a", document_id="1", context="The town is in the north of the river.", query="Where is the town?"),
    Example(id="b", document_id="2", context="Anna was mayor until 1912. Then it was Ben.", query="Who was mayor?"),
    Example(id="c", document_id="3", context="The bridge was built in 1901.", query="When was the bridge built?"),
    Example(id="d", document_id="4", context="It stands in the south.", query="Where does it stand?"),
]
GREEDY = SampleConfig(n=2, temperature=0, max_new_tokens=12)


def config(**settings: Any) -> ServerConfig:
    values = {"command": COMMAND, "prompt": "chat", "max_retries": 0, "start_limit_s": 120, **settings}
    return ServerConfig(**{"kind": "vllm", **values})


@asynccontextmanager
async def served(
    settings: ServerConfig, logs: Path, model: Path = MODEL
) -> AsyncIterator[tuple[ServedPolicy, PolicyServerProcess]]:
    async with open_policy(POLICY, settings, model, logs=logs) as policy:
        assert isinstance(policy, ServedPolicy)
        assert isinstance(policy.server, PolicyServerProcess)
        yield policy, policy.server


def group_of(server: PolicyServerProcess) -> list[psutil.Process]:
    """The server and the process that watches over it."""
    assert server._process is not None
    watcher = psutil.Process(server._process.pid)
    return [watcher, *watcher.children(recursive=True)]


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def texts(groups: list[list[Response]]) -> list[list[str]]:
    return [[response.text for response in group] for group in groups]


async def test_server_greedy_answers_equal_in_process(tmp_path: Path) -> None:
    async with served(config(), tmp_path) as (policy, server):
        answers = await sample_served(policy, EXAMPLES, GREEDY)
        running = group_of(server)
        assert len(running) == 2
    assert not any(alive(process) for process in running)
    in_process = list(sample(load_policy(POLICY, MODEL), EXAMPLES, GREEDY))
    assert texts(answers) == texts(in_process)
    assert [group[0].finish_reason for group in answers] == [group[0].finish_reason for group in in_process]


@pytest.mark.slow
async def test_server_samples_if_do_sample(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    text = (model / "generation_config.json").read_text()
    (model / "generation_config.json").write_text(text.replace("{", '{"do_sample": true,', 1))
    async with served(config(), tmp_path, model) as (policy, _):
        sampling = GREEDY.model_copy(update={"n": 4, "temperature": 1.0})
        [answers] = await sample_served(policy, EXAMPLES[:1], sampling)
    assert len({response.text for response in answers}) > 1


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
async def test_dead_server_restarts_and_finished_shards_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        longreward.tasks.sample_shards, "run_in_shards", functools.partial(run_in_shards, retry_after_s=0.05)
    )
    written: dict[str, int] = {}
    died: list[int] = []

    async def kill_after_the_first_shard(server: PolicyServerProcess) -> None:
        while not (files := list(tmp_path.glob("midway-1-*.jsonl"))):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        written.update({file.name: file.stat().st_mtime_ns for file in files})
        victim = group_of(server)[1]
        victim.kill()
        died.append(victim.pid)

    @flow
    async def sampling() -> list[Response]:
        settings = GREEDY.model_copy(update={"shard_size": 1, "max_new_tokens": 40})
        async with served(config(max_concurrency=1), tmp_path) as (policy, server):
            killing = asyncio.create_task(kill_after_the_first_shard(server))
            sampled = await sample_in_shards("midway", policy, EXAMPLES * 5, settings, folder=tmp_path)
            await killing
            assert group_of(server)[1].pid != died[0]
        return list(sampled.responses)

    responses = await sampling()
    assert [response.example_id for response in responses] == [letter for letter in "abcd" * 5 for _ in range(2)]
    assert written == {name: (tmp_path / name).stat().st_mtime_ns for name in written}


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
async def test_shards_of_several_configs_hold_the_responses_of_each(tmp_path: Path) -> None:
    configs = [GREEDY.model_copy(update={"n": 1}), GREEDY.model_copy(update={"temperature": 1.0, "shard_size": 3})]

    @flow
    async def sampling() -> list[list[Response]]:
        return [*(await sample_in_shards("both", policy, EXAMPLES, *configs, folder=tmp_path)).groups]

    async with served(config(), tmp_path) as (policy, _):
        expected = [await sample_served(policy, EXAMPLES, own) for own in configs]
        assert await sampling() == [[*one, *two] for one, two in zip(*expected, strict=True)]


@pytest.mark.slow
async def test_log_tail_of_ended_server(tmp_path: Path) -> None:
    async with served(config(), tmp_path) as (policy, server):
        await sample_served(policy, EXAMPLES[:1], GREEDY)
        server.stop()
        unwatched = ServedPolicy(policy.encoder, policy.window, policy.client, Ended(server))
        with pytest.raises(
            ServerUnavailable, match=r"is the server running\?; the server that .*ended with code"
        ) as it:
            await sample_served(unwatched, EXAMPLES[:1], GREEDY)
        assert "POST /v1/chat/completions" in str(it.value)  # its last words


class Ended:
    """A server that is not started again."""

    def __init__(self, server: PolicyServerProcess) -> None:
        self.log_tail = server.log_tail

    async def ready(self) -> None:
        """It never is."""


async def test_server_that_fails_to_start(tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "import sys; print('no memory for {model} {port}'); sys.exit(3)"]
    async with served(config(command=failing), tmp_path) as (policy, _):
        with pytest.raises(ServerRefused, match=r"did not start: .* code 3: no memory for .*tiny-base"):
            await sample_served(policy, EXAMPLES[:1], GREEDY)


async def test_unhealthy_server_stops_at_limit(tmp_path: Path) -> None:
    hanging = [sys.executable, "-c", "print('loading {model} {port}'); import time; time.sleep(60)"]
    async with served(config(command=hanging, start_limit_s=1), tmp_path) as (policy, server):
        with pytest.raises(ServerRefused, match=r"not healthy after 1 s .*loading"):
            await sample_served(policy, EXAMPLES[:1], GREEDY)
        assert server._process is not None
        assert server._process.poll() is not None


STAGE = """
import asyncio, sys
from pathlib import Path
from policy_server_helpers import EXAMPLES, GREEDY, config, group_of, served
from longreward.models.served_policy import sample_served

async def stage():
    async with served(config(), Path(sys.argv[1])) as (policy, server):
        await sample_served(policy, EXAMPLES[:1], GREEDY)
        print(*(process.pid for process in group_of(server)), flush=True)
        await asyncio.sleep(60)

asyncio.run(stage())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_server_ends_with_killed_stage(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "policy_server_helpers.py").write_text(Path(__file__).read_text())
    stage = subprocess.Popen(
        [sys.executable, "-c", STAGE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=MODEL.parents[1],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert stage.stdout is not None
    running = [psutil.Process(int(pid)) for pid in stage.stdout.readline().split()]
    assert len(running) == 2
    stage.send_signal(number)
    stage.wait()
    deadline = time.monotonic() + 20
    while any(alive(process) for process in running) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(process) for process in running)


async def test_comparison_server_with_sft_server_only() -> None:
    settings = config(kind="external", base_url="http://127.0.0.1:9/v1")
    assert (await comparison_server(settings)).kind == "in_process"
    with pytest.raises(ServerUnavailable, match="is the server running"):
        await comparison_server(settings, ["sft"])  # no trained model to compare with, so the server is used
    own = config()
    assert await comparison_server(own) is own


async def test_comparison_server_checks_trained_model_server() -> None:
    settings = config(kind="external", base_url="http://127.0.0.1:9/v1", model="sft", trained_model="dpo")
    with pytest.raises(ServerUnavailable, match="is the server running"):
        await comparison_server(settings)
