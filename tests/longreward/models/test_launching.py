"""The command that starts a server."""

import sys

import pytest

from longreward.models.config import PolicyConfig
from longreward.models.server_config import ServerConfig
from longreward.models.servers import launch_command


@pytest.fixture
def programs(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """A folder of programs on PATH, with one called vllm."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("vllm", "other"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere" / "python"))
    return folder


def command(path, *, server=None, **settings):
    config = ServerConfig(kind="vllm", **(server or {}))
    return launch_command(PolicyConfig(base_model="x", **settings), config, path, port=8123, window=4096)


def test_vllm_serves_a_folder_on_the_loopback_address_with_prefix_caching(programs, tmp_path) -> None:
    assert command(tmp_path, server={"arguments": ["--tensor-parallel-size", "4"]}) == [
        str(programs / "vllm"),
        "serve",
        str(tmp_path),
        *["--host", "127.0.0.1", "--port", "8123", "--max-model-len", "4096", "--dtype", "auto"],
        *["--enable-prefix-caching", "--generation-config", "vllm", "--tensor-parallel-size", "4"],
    ]


def test_a_hub_id_is_served_at_its_revision(programs) -> None:
    said = command("org/name", revision="v2", trust_remote_code=True, dtype="bfloat16")
    assert said[2] == "org/name"
    assert "--revision v2 --tokenizer-revision v2" in " ".join(said)
    assert "--trust-remote-code" in said
    assert "--dtype bfloat16" in " ".join(said)


def test_another_command_gets_model_port_and_window(programs, tmp_path) -> None:
    server = {"command": ["other", "--model={model}", "--port", "{port}", "--ctx", "{window}", "{unknown}"]}
    assert command(tmp_path, server=server) == [
        str(programs / "other"),
        f"--model={tmp_path}",
        "--port",
        "8123",
        "--ctx",
        "4096",
        "{unknown}",
    ]
