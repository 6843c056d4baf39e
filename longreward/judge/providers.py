"""The kinds of judge servers: defaults, peculiarities and client class of each.

To add one, add its name to `Kind` and an entry to PROVIDERS. A server that speaks the OpenAI chat protocol needs no
more. Any other one needs a class that implements `ChatModel`, named in `client`; `ollama.py` is an example.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

Kind = Literal["offline", "http", "openai", "zhipu", "anthropic", "gemini", "vllm", "sglang", "ollama"]
LengthField = Literal["max_tokens", "max_completion_tokens"]
Mode = Literal["live", "batch", "batch_files"]


@dataclass(frozen=True, kw_only=True)
class Provider:
    """Defaults and peculiarities of one kind of server."""

    base_url: str | None = None
    key_env: str
    hosts: tuple[str, ...] | None = None
    """Hosts that get the key in `key_env` without `judge.api_key_env`; None: every `base_url`."""
    needs_key: bool = False
    length_field: LengthField = "max_tokens"
    max_temperature: float = 2.0
    max_stops: int = 4
    """How many stop sequences a request may have."""
    greedy: Mapping[str, Any] = field(default_factory=dict)
    """Fields that replace temperature 0 where the server refuses it."""
    modes: tuple[Mode, ...] = ("live", "batch_files")
    """Modes that the server supports; only a client of the OpenAI protocol can write batch files."""
    batch_endpoint: str = "/v1/chat/completions"
    batch_megabytes: float = 200.0
    """Largest file of the batch interface, in 1,000,000 bytes."""
    # A name, because the modules of the clients import this one.
    client: str = "longreward.judge.http_client:HttpJudge"
    """Module and class of the client, which is called with the JudgeConfig."""
    batch_client: str = "longreward.judge.batch.client:BatchJudge"
    """The same for the modes with batches."""

    def trusts(self, base_url: str | None) -> bool:
        """Whether the key in `key_env` may be sent to this address (None: that of the provider)."""
        host = urlsplit(base_url or self.base_url or "").hostname or ""
        return self.hosts is None or any(host == name or host.endswith("." + name) for name in self.hosts)


_EVERY_MODE: tuple[Mode, ...] = ("live", "batch", "batch_files")

PROVIDERS: Mapping[Kind, Provider] = {
    "offline": Provider(key_env="", hosts=(), modes=("live",)),  # computed in this process, see `open_model`
    # Like the `openai` library itself, which sends the key of that name to every address.
    "http": Provider(key_env="OPENAI_API_KEY", modes=_EVERY_MODE),
    # The newer models refuse max_tokens; the older ones accept max_completion_tokens as well.
    "openai": Provider(
        base_url="https://api.openai.com/v1",
        key_env="OPENAI_API_KEY",
        hosts=("api.openai.com",),
        needs_key=True,
        length_field="max_completion_tokens",
        max_stops=0,  # reasoning models refuse them, and the others need none
        modes=_EVERY_MODE,
    ),
    # Temperatures lie above 0 and up to 1; do_sample: false requests greedy decoding.
    "zhipu": Provider(
        base_url="https://open.bigmodel.cn/api/paas/v4",
        key_env="ZHIPUAI_API_KEY",
        hosts=("open.bigmodel.cn",),
        needs_key=True,
        max_temperature=1.0,
        max_stops=1,
        greedy={"do_sample": False},
        modes=_EVERY_MODE,
        batch_endpoint="/v4/chat/completions",
        batch_megabytes=100.0,
    ),
    "anthropic": Provider(
        base_url="https://api.anthropic.com/v1",
        key_env="ANTHROPIC_API_KEY",
        hosts=("api.anthropic.com",),
        needs_key=True,
        max_temperature=1.0,
        modes=("live", "batch"),
        batch_endpoint="/v1/messages",
        batch_megabytes=100.0,  # the API takes 256, but one call holds a batch in memory
        client="longreward.judge.anthropic:AnthropicJudge",
        batch_client="longreward.judge.batch.anthropic:AnthropicBatchJudge",
    ),
    # Through its OpenAI-compatible interface: docs/decisions/2026-11-27-gemini-and-litellm.md compares the native one.
    "gemini": Provider(
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key_env="GEMINI_API_KEY",
        hosts=("generativelanguage.googleapis.com",),
        needs_key=True,
    ),
    "vllm": Provider(base_url="http://localhost:8000/v1", key_env="VLLM_API_KEY"),
    "sglang": Provider(base_url="http://localhost:30000/v1", key_env="SGLANG_API_KEY"),
    # The key is for ollama.com; a local server has none.
    "ollama": Provider(
        base_url="http://localhost:11434/v1",
        key_env="OLLAMA_API_KEY",
        hosts=("ollama.com",),
        client="longreward.judge.ollama:OllamaJudge",
    ),
}
