"""A judge on an Ollama server, which silently truncates long prompts.

Ollama reads 4,096 tokens of a prompt by default on small machines, and no field of the OpenAI protocol sets that
context window. Its list of loaded models shows it, once the model was first used.
"""

import asyncio

from longreward.chat_model import ChatReply, ChatRequest, estimate_tokens
from longreward.errors import JudgeRefused
from longreward.judge.config import JudgeConfig
from longreward.judge.context_window import LENGTH_SETTINGS, window_from_loaded_models
from longreward.judge.http_client import HttpJudge

MIN_WINDOW_TOKENS = 8192  # for a part of 4,096 tokens with its prompt and reply, or the extracts of a document
WINDOW_ADVICE = (
    "start it with OLLAMA_CONTEXT_LENGTH={tokens} or more (then check `ollama ps`), or give the model "
    "`PARAMETER num_ctx {tokens}` in a Modelfile"
)


class OllamaJudge(HttpJudge):
    """An HttpJudge that refuses prompts which its server would truncate."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__(config)
        self._is_window_fetched = False
        self._lock = asyncio.Lock()

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self._check_window(request)
        reply = await super().complete(request, temperature=temperature)
        async with self._lock:
            if not self._is_window_fetched:
                self._window = await self.fetch_window()
                self._is_window_fetched = True
        self._check_window(request)
        return reply

    async def advice(self) -> list[str]:
        advice = await super().advice()
        if self._window is None:
            recommended = MIN_WINDOW_TOKENS + self._config.thinking_tokens
            advice.append(f"this Ollama does not tell its context window: {WINDOW_ADVICE.format(tokens=recommended)}")
        return advice

    def larger_window_advice(self, tokens: int) -> str:
        power = 2 ** (tokens - 1).bit_length()
        return f"it cuts longer prompts without a word: {WINDOW_ADVICE.format(tokens=power)}"

    async def fetch_window(self) -> int | None:
        """Return the window of the loaded model; None before its first reply, and with servers that do not show it."""
        return window_from_loaded_models(await self.get_json("/api/ps"), self.name)

    def _check_window(self, request: ChatRequest) -> None:
        prompt_tokens = estimate_tokens(request.prompt_text(self._config.system))
        if self._window is not None and prompt_tokens > self._window:
            total = prompt_tokens + request.max_tokens + self._config.thinking_tokens
            raise JudgeRefused(
                f"the {self.server} reads {self._window:,} tokens of a prompt and cuts the rest off without a word; "
                f"this one ({request.template}) has about {prompt_tokens:,}: "
                f"{WINDOW_ADVICE.format(tokens=2 ** total.bit_length())}{self._setting_advice(request.template)}"
            )

    @staticmethod
    def _setting_advice(template: str) -> str:
        setting = LENGTH_SETTINGS.get(template)
        return f", or lower {setting}" if setting else ""
