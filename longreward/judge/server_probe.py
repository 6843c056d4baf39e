"""Probe the judges before hours are spent on a run: their keys without any call, their servers with a tiny request.

check_keys(config)                        # raises ConfigError that names the variable to set
for result in await probe(config):
    print(result.ok, result.message)      # True  judge 'qwen' at http://localhost:8000/v1: answered, 9 tokens …
"""

import asyncio
import re
import time

from longreward.chat_model import ChatModel
from longreward.errors import ConfigError, JudgeError, JudgeRefused
from longreward.judge.config import JudgeConfig
from longreward.judge.http_client import HttpJudge, read_api_key
from longreward.judge.judge import open_model
from longreward.judge.reasoning import has_reasoning, strip_reasoning
from longreward.judge.retry import INITIAL_BACKOFF_S, MAX_BACKOFF_S, PROBE_REQUEST
from longreward.judge.schema_support import SCHEMA_REQUEST, follows_schema
from longreward.utils.endpoints import ProbeResult

VERDICT = re.compile(r"\[\[\s*\d+\s*\]\]")
MAX_MODELS = 10


def check_keys(config: JudgeConfig) -> None:
    """Raise ConfigError where a key that a judge needs is missing from the environment. Sends nothing."""
    for judge, _ in config.judges():
        read_api_key(judge)


async def probe(config: JudgeConfig, *, timeout_s: float = 60.0) -> list[ProbeResult]:
    """Send each distinct judge one tiny request, without the ledger; failures are results, not exceptions.

    A call gets at most `timeout_s` seconds (or the judge's own limit if that is shorter) and one retry.
    """
    return [await _probe(judge, timeout_s) for judge, _ in config.judges()]


async def _probe(config: JudgeConfig, timeout_s: float) -> ProbeResult:
    if config.kind == "offline":
        return ProbeResult(True, "the built-in offline judge: needs no server, and compares words alone")
    name = config.display_name
    if config.mode == "batch_files":
        return ProbeResult(True, "its requests are written to files for another program: no server")
    started = time.monotonic()
    try:
        judge = open_model(config.model_copy(update={"timeout_s": min(config.timeout_s, timeout_s)}))
    except ConfigError as error:
        return ProbeResult(False, str(error), replied=False)
    try:
        try:
            reply = await judge.complete(PROBE_REQUEST, temperature=config.first_temperature)
        except JudgeError as error:
            if error.transient is None or config.max_retries == 0:
                raise
            # At most a few seconds, whatever the server asks for: somebody waits for the result.
            await asyncio.sleep(min(error.transient.retry_after_s or INITIAL_BACKOFF_S, MAX_BACKOFF_S))
            reply = await judge.complete(PROBE_REQUEST, temperature=config.first_temperature)
        seconds, tokens = time.monotonic() - started, reply.usage.completion_tokens
        server = judge.server if isinstance(judge, HttpJudge) else f"judge {name!r}"
        message = f"{server}: answered, {tokens} tokens in {seconds:.1f} s"
        ok = VERDICT.search(strip_reasoning(reply)) is not None
        if not ok:
            cut = ", truncated while it was reasoning" if reply.finish_reason == "length" else ""
            message += f", without the requested verdict{cut}"
        if config.uses_schemas is not False:
            message += f"; JSON schemas (judge.reply_format): {await _schema_support(judge, config)}"
        advice = await judge.advice() if isinstance(judge, HttpJudge) else []
        # A reply to such a small request reaches its token limit only if the model thinks.
        if config.thinking_tokens == 0 and (has_reasoning(reply) or reply.finish_reason == "length"):
            advice.insert(
                0,
                "it reasons before it replies: set judge.thinking_tokens (for example 4096), or switch reasoning off "
                "in judge.extra_body",
            )
        return ProbeResult(ok, message, tuple(advice))
    except JudgeError as error:
        message = str(error)
        models = await judge.list_models() if isinstance(error, JudgeRefused) and isinstance(judge, HttpJudge) else ()
        if models and name not in models:
            ellipsis = ", …" if len(models) > MAX_MODELS else ""
            message += f"; the server knows {', '.join(models[:MAX_MODELS])}{ellipsis}"
        return ProbeResult(False, message, replied=False)
    finally:
        await judge.close()


async def _schema_support(judge: ChatModel, config: JudgeConfig) -> str:
    try:
        reply = await judge.complete(SCHEMA_REQUEST, temperature=config.first_temperature)
    except JudgeError as error:
        return f"refused ({error})"
    return "supported" if follows_schema(reply, config) else "ignored"
