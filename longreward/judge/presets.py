"""What is known of the servers that can be named instead of described: `judge.kind: openai`, `zhipu`, `ollama`, …

A preset fills in what a setting leaves open: the address, the variable of the key, and the field and bounds in which
that server differs. Its key goes to the preset's own hosts alone: at another address, `judge.api_key_env` must say
which key is meant.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

Kind = Literal["offline", "http", "openai", "zhipu", "anthropic", "vllm", "sglang", "ollama"]
LengthField = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True)
class Preset:
    """One kind of server."""

    base_url: str | None
    key_env: str
    hosts: tuple[str, ...] | None  # where its key may go unasked; None: wherever base_url points
    key_needed: bool
    length_field: LengthField = "max_tokens"
    max_temperature: float = 2.0
    greedy: Mapping[str, Any] = field(default_factory=dict)  # fields that stand for temperature 0, where it is refused

    def owns(self, base_url: str | None) -> bool:
        """Whether the preset's own key may be sent to this address (None: to the preset's)."""
        host = urlsplit(base_url or self.base_url or "").hostname or ""
        if self.hosts is None:
            return True
        return any(host == own or host.endswith("." + own) for own in self.hosts)


PRESETS: Mapping[Kind, Preset] = {
    # Any server: as the `openai` library itself, which sends the key of that name to every address.
    "http": Preset(None, "OPENAI_API_KEY", hosts=None, key_needed=False),
    # The newer models refuse max_tokens; the older ones take max_completion_tokens as well.
    "openai": Preset(
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        hosts=("api.openai.com",),
        key_needed=True,
        length_field="max_completion_tokens",
    ),
    # Temperatures lie above 0 and up to 1; do_sample: false is its way to ask for the likeliest answer.
    "zhipu": Preset(
        "https://open.bigmodel.cn/api/paas/v4",
        "ZHIPUAI_API_KEY",
        hosts=("open.bigmodel.cn",),
        key_needed=True,
        max_temperature=1.0,
        greedy={"do_sample": False},
    ),
    # Its OpenAI layer cuts temperatures off at 1; thoughts are not sent along; reasoning_effort is ignored.
    "anthropic": Preset(
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        hosts=("api.anthropic.com",),
        key_needed=True,
        max_temperature=1.0,
    ),
    "vllm": Preset("http://localhost:8000/v1", "VLLM_API_KEY", hosts=None, key_needed=False),
    "sglang": Preset("http://localhost:30000/v1", "SGLANG_API_KEY", hosts=None, key_needed=False),
    # The key is for ollama.com; a server of one's own has none. Its context window: see `window.py`.
    "ollama": Preset("http://localhost:11434/v1", "OLLAMA_API_KEY", hosts=("ollama.com",), key_needed=False),
}
