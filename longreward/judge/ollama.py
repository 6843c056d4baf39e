"""A judge on an Ollama server, which silently truncates long prompts.

Ollama reads 4,096 tokens of a prompt by default on small machines, and no field of the OpenAI protocol sets that
context window. Its list of loaded models shows it, once the model was first used.
"""

import asyncio

from longreward.chat_model import ChatReply, ChatRequest, estimate_tokens
from longreward.errors import JudgeRefused
from longreward.judge.config import JudgeConfig
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
        self._window: int | None = None  # tokens; None: not fetched yet, or an older server, which does not show it
        self._is_window_fetched = False
        self._lock = asyncio.Lock()

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self._check_window(request)
        reply = await super().complete(request, temperature=temperature)
        async with self._lock:
            if not self._is_window_fetched:
                self._window = await self._fetch_window()
                self._is_window_fetched = True
        self._check_window(request)
        return reply

    async def advice(self) -> list[str]:
        recommended = MIN_WINDOW_TOKENS + self._config.thinking_tokens
        advice = await super().advice()
        if self._window is None:
            advice.append(f"this Ollama does not tell its context window: {WINDOW_ADVICE.format(tokens=recommended)}")
        elif self._window < recommended:
            advice.append(
                f"its context window is {self._window:,} tokens, and it cuts longer prompts without a word: "
                f"{WINDOW_ADVICE.format(tokens=recommended)}"
            )
        return advice

    async def _fetch_window(self) -> int | None:
        loaded = await self.get_json("/api/ps")
        names = {self.name, f"{self.name}:latest"}
        try:
            for model in loaded["models"]:
                if {model.get("name"), model.get("model")} & names:
                    return int(model["context_length"])
        except (ValueError, LookupError, TypeError):
            pass
        return None

    def _check_window(self, request: ChatRequest) -> None:
        prompt_tokens = estimate_tokens(request.prompt_text(self._config.system))
        if self._window is not None and prompt_tokens > self._window:
            total = prompt_tokens + request.max_tokens + self._config.thinking_tokens
            raise JudgeRefused(
                f"the {self.server} reads {self._window:,} tokens of a prompt and cuts the rest off without a word; "
                f"this one ({request.template}) has about {prompt_tokens:,}: "
                f"{WINDOW_ADVICE.format(tokens=2 ** total.bit_length())}"
            )
