"""Probe the judges before hours are spent on a run: their keys without any call, their servers with a tiny request.

check_keys(config)                        # raises ConfigError that names the variable to set
for result in await probe(config):
    print(result.ok, result.message)      # True  judge 'qwen' at http://localhost:8000/v1: answered, 9 tokens …
"""

import asyncio
import re
import time
from dataclasses import dataclass, replace

from longreward.chat_model import ChatReply
from longreward.errors import ConfigError, JudgeError, JudgeRefused, TransientFailure
from longreward.judge.config import JudgeConfig
from longreward.judge.http_client import MIN_WINDOW_TOKENS, WINDOW_ADVICE, HttpJudge, read_api_key
from longreward.judge.reasoning import has_reasoning, strip_reasoning
from longreward.judge.retry import MAX_BACKOFF_S, PROBE_REQUEST, backoff_s
from longreward.records import DIMENSIONS, Dimension

VERDICT = re.compile(r"\[\[\s*\d+\s*\]\]")
MAX_MODELS = 10


@dataclass(frozen=True)
class ProbeResult:
    """How one judge replied to a tiny request."""

    judge: str
    """The name that every score of this judge records."""
    ok: bool
    """Whether the judge is usable; if not, `message` says why and what to do."""
    message: str
    """One line: the judge, its address and the outcome. Contains no key."""
    tokens: int = 0
    """Completion tokens of the reply, reasoning included; 0 where the server does not report them."""
    seconds: float = 0.0
    """From the request to the reply, retries included."""
    advice: tuple[str, ...] = ()
    """What to change although it replied, a sentence each."""
    dimensions: tuple[Dimension, ...] = DIMENSIONS
    """The dimensions that it judges."""


def check_keys(config: JudgeConfig) -> None:
    """Raise ConfigError where a key that a judge needs is missing from the environment. Sends nothing."""
    for judge, _ in config.judges():
        read_api_key(judge)


async def probe(config: JudgeConfig, *, timeout_s: float = 60.0) -> list[ProbeResult]:
    """Send each distinct judge one tiny request, without the ledger; failures are results, not exceptions.

    A call gets at most `timeout_s` seconds (or the judge's own limit if that is shorter) and one retry.
    """
    return [replace(await _probe(judge, timeout_s), dimensions=dimensions) for judge, dimensions in config.judges()]


async def _probe(config: JudgeConfig, timeout_s: float) -> ProbeResult:
    if config.kind == "offline":
        return ProbeResult("offline", True, "the built-in offline stand-in: needs no server, and understands nothing")
    name = config.model or config.kind
    if config.mode == "batch_files":
        return ProbeResult(name, True, "its questions go into files for another program: no server")
    config = config.model_copy(update={"timeout_s": min(config.timeout_s, timeout_s)})
    started = time.monotonic()
    try:
        judge = HttpJudge(config)
    except ConfigError as error:
        return ProbeResult(name, False, str(error))
    try:
        reply = await _complete_with_retry(judge, config)
        seconds = time.monotonic() - started
        tokens = reply.usage.completion_tokens
        message = f"{judge.server}: answered, {tokens} tokens in {seconds:.1f} s"
        ok = VERDICT.search(strip_reasoning(reply)) is not None
        if not ok:
            cut = ", cut off while it was thinking" if reply.finish_reason == "length" else ""
            message += f", without the verdict that was asked for{cut}"
        advice = (*_reply_advice(config, judge, reply), *await _concurrency_advice(config, judge))
        return ProbeResult(judge.name, ok, message, tokens, seconds, advice)
    except JudgeError as error:
        message = str(error)
        models = await judge.list_models() if isinstance(error, JudgeRefused) else ()
        if models and name not in models:
            ellipsis = ", …" if len(models) > MAX_MODELS else ""
            message += f"; the server knows {', '.join(models[:MAX_MODELS])}{ellipsis}"
        return ProbeResult(name, False, message, seconds=time.monotonic() - started)
    finally:
        await judge.close()


async def _complete_with_retry(judge: HttpJudge, config: JudgeConfig) -> ChatReply:
    try:
        return await judge.complete(PROBE_REQUEST, temperature=config.first_temperature)
    except JudgeError as error:
        if error.transient is None or config.max_retries == 0:
            raise
        retry_after_s = min(error.transient.retry_after_s or 0.0, MAX_BACKOFF_S)
    # At most a few seconds, whatever the server asks for: somebody waits for the result.
    await asyncio.sleep(backoff_s(1, TransientFailure(retry_after_s=retry_after_s)))
    return await judge.complete(PROBE_REQUEST, temperature=config.first_temperature)


def _reply_advice(config: JudgeConfig, judge: HttpJudge, reply: ChatReply) -> list[str]:
    advice = []
    # A reply to such a small request reaches its token limit only if the model thinks.
    thinks = has_reasoning(reply) or reply.finish_reason == "length"
    if thinks and config.thinking_tokens == 0:
        advice.append(
            "it thinks before it answers: give it room with judge.thinking_tokens (4096, say), or switch that off in "
            "judge.extra_body"
        )
    if judge.window is not None:
        recommended = MIN_WINDOW_TOKENS + config.thinking_tokens
        if judge.window.tokens is None:
            advice.append(f"this Ollama does not tell its context window: {WINDOW_ADVICE.format(tokens=recommended)}")
        elif judge.window.tokens < recommended:
            advice.append(
                f"its context window is {judge.window.tokens:,} tokens, and it cuts longer prompts without a word: "
                f"{WINDOW_ADVICE.format(tokens=recommended)}"
            )
    return advice


async def _concurrency_advice(config: JudgeConfig, judge: HttpJudge) -> list[str]:
    slots = await judge.parallel_slots()
    if slots is None or slots >= config.max_concurrency:
        return []
    return [
        f"it works on {slots} requests at once, and judge.max_concurrency is {config.max_concurrency}: those that "
        f"wait count towards judge.timeout_s. Set judge.max_concurrency to {slots}"
    ]
