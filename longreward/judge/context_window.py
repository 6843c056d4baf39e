"""How much an Ollama server reads of a prompt: its context window, of which the OpenAI protocol knows nothing.

A longer prompt is cut without a word, 4,096 tokens being the default on small machines, and no field of the protocol
sets the window. So it is looked up where Ollama tells it, in the list of loaded models, and held against each prompt.
"""

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai import AsyncOpenAI

ENOUGH = 8192  # a part of 4,096 tokens with its prompt and answer, or the extracts of a document
ADVICE = (
    "start it with OLLAMA_CONTEXT_LENGTH={wanted} or more (then check `ollama ps`), or give the model "
    "`PARAMETER num_ctx {wanted}` in a Modelfile"
)


class ContextWindow:
    """The window of one model on one server, looked up once, after the model was first used."""

    def __init__(self, client: "AsyncOpenAI", model: str) -> None:
        self._client = client
        self._model = model
        self._lock = asyncio.Lock()
        self._looked = False
        self.tokens: int | None = None
        """None: not looked up yet, or the server does not tell."""

    async def look(self) -> int | None:
        """The window in tokens; None where the server (older than the field) does not tell."""
        async with self._lock:
            if not self._looked:
                self.tokens = await self._found()
                self._looked = True
        return self.tokens

    async def _found(self) -> int | None:
        from openai import APIError

        root = str(self._client.base_url).rstrip("/").removesuffix("/v1")
        try:
            listed: Any = await self._client.with_options(max_retries=0).get(f"{root}/api/ps", cast_to=object)
            sizes = [each["context_length"] for each in listed["models"] if self._is_ours(each)]
            return int(sizes[0]) if sizes else None
        except (APIError, ValueError, LookupError, TypeError):
            return None

    def _is_ours(self, loaded: dict[str, Any]) -> bool:
        names = {loaded.get("name"), loaded.get("model")}
        return bool(names & {self._model, f"{self._model}:latest"})
