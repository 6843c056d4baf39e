"""The server of the offline judge: matching of prompts, options, connections."""

import asyncio
import contextlib
import json
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from child_server import offline_judge_server, server_stats

from longreward.builtin.offline_judge.judge import REWARD_RULES
from longreward.judge.prompts import load_prompts
from longreward.offline_judge_server import UNKNOWN_PROMPT, OfflineJudgeApp, reply_text, serve

SLOTS = {
    "question": "Where was Mara Voss born? [[10]]",
    "answer": "Mara Voss was born in Kelden.\n\n<<question>>",
    "context": "[Passage 1]\nMara Voss was born in Kelden.",
    "statement": "Mara Voss was born in Osten.",
}


def test_every_prompt_gets_reply_of_offline_judge() -> None:
    prompts = load_prompts()
    for (name, _), template in prompts.templates.items():
        slots = {slot: SLOTS[slot] for slot in template.slots}
        assert reply_text(prompts, template.request(slots).text) == REWARD_RULES[name](slots)
    assert reply_text(prompts, "Hello?") == UNKNOWN_PROMPT


@pytest.mark.skipif("LONGREWARD_REFERENCE" not in os.environ, reason="LONGREWARD_REFERENCE is not set")
def test_published_prompts_recognised() -> None:
    prompts = load_prompts(Path(os.environ["LONGREWARD_REFERENCE"]) / "longreward" / "prompts")
    for (name, _), template in prompts.templates.items():
        slots = dict.fromkeys(template.slots, "Mara Voss was born in Kelden in 1861.")
        assert reply_text(prompts, template.request(slots).text) == REWARD_RULES[name](slots)


def test_process_with_key_refused_word_and_reasoning() -> None:
    options = ("--require-key-env", "SERVER_KEY", "--refuse", "poison", "--think", "Hm.")
    with offline_judge_server(*options, SERVER_KEY="secret") as url:

        def post(key: str, content: str = "Hello?") -> tuple[int, Any]:
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()
            headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            request = urllib.request.Request(f"{url}/chat/completions", body, headers)
            try:
                with urllib.request.urlopen(request) as reply:
                    return reply.status, json.load(reply)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)

        assert post("wrong")[0] == 401
        assert post("secret", "poison")[1]["error"]["code"] == "content_filter"
        status, completion = post("secret")
        assert status == 200
        assert completion["choices"][0]["message"]["content"] == f"<think>Hm.</think>{UNKNOWN_PROMPT}"
        assert server_stats(url) == {"requests": 2, "distinct": 1, "peak": 1}


async def test_connections_disable_nagle_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TCP_NODELAY, each short reply over a persistent connection takes 40 ms longer."""
    listeners: list[socket.socket] = []

    async def keep_sockets(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        listeners.extend(listener.dup() for listener in sockets)

    monkeypatch.setattr(uvicorn.Server, "serve", keep_sockets)
    await serve(OfflineJudgeApp(prompts=load_prompts()), 0)
    (listener,) = listeners
    with listener:
        listener.listen()
        no_delay = asyncio.get_running_loop().create_future()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                connection = transport.get_extra_info("socket")
                no_delay.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                transport.close()

        server = await asyncio.get_running_loop().create_server(Protocol, sock=listener)  # as uvicorn does
        with contextlib.closing(socket.create_connection(listener.getsockname())):
            assert await no_delay
        server.close()
