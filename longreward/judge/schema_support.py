"""Detect whether a judge's server supports JSON schemas (`response_format: json_schema`), once per server and model.

A tiny request with a schema is sent that does not mention JSON: only a server that enforces the schema replies in JSON.
The result is recorded in the ledger, so that later runs and stages with this ledger do not send it again.
"""

import asyncio
import logging
from dataclasses import replace

from longreward.chat_model import ChatReply, ChatRequest, ReplyFormat
from longreward.errors import JudgeRefused, RequestFailed, RequestRefused
from longreward.judge.config import JudgeConfig
from longreward.judge.ledger import Exchange, Ledger, Outcome, request_id
from longreward.judge.reasoning import strip_reasoning
from longreward.judge.retry import RetryingClient
from longreward.judge.structured_output import json_parser, object_schema

log = logging.getLogger(__name__)

SCHEMA = object_schema({"analysis": {"type": "string"}, "larger": {"type": "integer", "enum": [2, 3]}})
SCHEMA_REQUEST = ChatRequest(
    template="schema_support",
    slots={},
    text="Which number is larger, 2 or 3? Reply in one short sentence.",
    prompt_hash="",
    max_tokens=512,
    reply_format=ReplyFormat(schema=SCHEMA),
)
_LABELS: dict[Outcome, str] = {
    "readable": "its replies follow JSON schemas",
    "unreadable": "it ignores JSON schemas; replies are parsed as text",
    "refused": "it refuses requests with JSON schemas; replies are parsed as text",
}


def follows_schema(reply: ChatReply, config: JudgeConfig) -> bool:
    """Return whether the reply to SCHEMA_REQUEST is JSON that follows its schema."""
    text = strip_reasoning(reply, thinks=config.thinking_tokens > 0)
    return json_parser(lambda text: text, SCHEMA)(text) is not None


class SchemaSupport:
    """Whether requests to one model are sent with a schema."""

    def __init__(self, client: RetryingClient, config: JudgeConfig, ledger: Ledger, *, model_name: str) -> None:
        self._client = client
        self._config = config
        self._ledger = ledger
        self._model_name = model_name
        self._lock = asyncio.Lock()
        self._is_used = config.uses_schemas

    async def is_used(self) -> bool:
        """Return whether to send schemas, after a request to the server if nobody knows yet.

        Raises the JudgeError family where the server gives no reply at all.
        """
        if self._is_used is None:
            async with self._lock:  # many requests start at once
                if self._is_used is None:
                    self._is_used = await self._detect()
        return self._is_used

    async def _detect(self) -> bool:
        server = {"server": self._config.address, "extra_body": self._config.extra_body}
        key = request_id(SCHEMA_REQUEST, judge=self._model_name, revision=self._config.revision, extra=server)
        recorded = self._ledger.find(key)
        if not recorded:
            try:
                recorded = [await self._probe(key)]
            except RequestFailed as error:  # an internal error of the server, which replies to other requests
                log.warning("judge %s: a request with a JSON schema failed (%s); replies are text", self.name, error)
                return False
            self._ledger.put(recorded[0])
        outcome, reason = recorded[0].outcome, recorded[0].reason
        reason = f" ({reason})" if reason else ""
        log.info("judge %s: %s%s", self.name, _LABELS[outcome], reason)
        return outcome == "readable"

    @property
    def name(self) -> str:
        """The model and its server, for messages."""
        return f"{self._model_name} at {self._config.address}"

    async def _probe(self, key: str) -> Exchange:
        outcome: Outcome
        reason = None
        try:
            reply = await self._send(SCHEMA_REQUEST)
            outcome = "readable" if follows_schema(reply, self._config) else "unreadable"
        except (JudgeRefused, RequestRefused) as refusal:
            # A wrong model or key is refused without a schema as well, and that error is raised.
            await self._send(replace(SCHEMA_REQUEST, reply_format=ReplyFormat()))
            reply, outcome, reason = ChatReply(""), "refused", str(refusal)
        return Exchange(
            request_id=key,
            attempt=1,
            temperature=self._config.first_temperature,
            template=SCHEMA_REQUEST.template,
            prompt_hash=SCHEMA_REQUEST.prompt_hash,
            judge=self._model_name,
            revision=self._config.revision,
            reply=reply,
            outcome=outcome,
            reason=reason,
        )

    async def _send(self, request: ChatRequest) -> ChatReply:
        reply = await self._client.complete(request, temperature=self._config.first_temperature)
        assert reply is not None, "only a recorded reply is None"
        return reply
