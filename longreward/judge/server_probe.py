"""Is the judge there? Looked at before hours are spent: the keys without any call, the servers with a tiny question.

check_keys(config)                  # raises ConfigError that names the variable to set
for found in await probe(config):
    print(found.ok, found.told)     # True  judge 'qwen' at http://localhost:8000/v1: answered, 9 tokens in 0.4 s
"""

import asyncio
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from longreward.chat_model import ChatReply, ChatRequest
from longreward.errors import ConfigError, JudgeError, JudgeRefused, TransientFailure
from longreward.judge.config import JudgeConfig
from longreward.judge.http_client import MIN_WINDOW_TOKENS, WINDOW_ADVICE, read_api_key
from longreward.judge.reasoning import has_reasoning, strip_reasoning
from longreward.judge.retry import LONGEST_PAUSE_S, backoff_s
from longreward.records import DIMENSIONS, Dimension

if TYPE_CHECKING:
    from longreward.judge.http_client import HttpJudge


def check_keys(config: JudgeConfig) -> None:
    """Raises ConfigError where a key that a judge needs is not in the environment. Calls nobody."""
    for judge, _ in config.judges():
        read_api_key(judge)


@dataclass(frozen=True)
class ProbeResult:
    """What one judge did with a tiny question."""

    judge: str
    """Its name, as every score will carry it."""
    ok: bool
    """Whether it can be worked with; where not, `told` says why and what to do."""
    told: str
    """One line for people: who, where, and how it went. Holds no key."""
    tokens: int = 0
    """Completion tokens of the answer, thoughts among them; 0 where the server does not say."""
    seconds: float = 0.0
    """From the question to the answer, retries among it."""
    advice: tuple[str, ...] = ()
    """What to change although it answered, a sentence each."""
    dimensions: tuple[Dimension, ...] = DIMENSIONS
    """What it judges."""


async def probe(config: JudgeConfig, *, timeout_s: float = 60.0) -> list[ProbeResult]:
    """Asks each distinct judge one tiny question, past the ledger; never raises for what a judge does.

    A call gets at most `timeout_s` (or the judge's own limit where that is shorter) and one retry.
    """
    return [replace(await _probe(judge, timeout_s), dimensions=own) for judge, own in config.judges()]


async def _probe(config: JudgeConfig, timeout_s: float) -> ProbeResult:
    if config.kind == "offline":
        return ProbeResult("offline", True, "the built-in offline stand-in: needs no server, and understands nothing")
    if config.mode == "batch_files":
        return ProbeResult(
            config.model or config.kind, True, "its questions go into files for another program: no server"
        )
    from longreward.judge.http_client import HttpJudge

    hasty = config.model_copy(update={"timeout_s": min(config.timeout_s, timeout_s)})
    name, started = config.model or config.kind, time.monotonic()
    try:
        judge = HttpJudge(hasty)
    except ConfigError as error:
        return ProbeResult(name, False, str(error))
    try:
        answer = await _asked(judge, hasty)
        found = _judged(config, judge, answer, time.monotonic() - started)
        slots = await judge.slots()
        if slots is None or slots >= config.max_concurrency:
            return found
        advice = (
            f"it works on {slots} requests at once, and judge.max_concurrency is {config.max_concurrency}: those that "
            f"wait count towards judge.timeout_s. Set judge.max_concurrency to {slots}"
        )
        return replace(found, advice=(*found.advice, advice))
    except JudgeError as error:
        known = await judge.models() if isinstance(error, JudgeRefused) else ()
        return ProbeResult(name, False, f"{error}{_list(name, known)}", seconds=time.monotonic() - started)
    finally:
        await judge.close()


async def _asked(judge: "HttpJudge", config: JudgeConfig) -> ChatReply:
    try:
        return await judge.complete(PROBE_REQUEST, temperature=config.first_temperature)
    except JudgeError as error:
        if error.transient is None or config.max_retries == 0:
            raise
        await asyncio.sleep(
            backoff_s(1, TransientFailure(retry_after_s=min(error.transient.retry_after_s or 0.0, LONGEST_PAUSE_S)))
        )
    return await judge.complete(PROBE_REQUEST, temperature=config.first_temperature)


def _judged(config: JudgeConfig, judge: "HttpJudge", answer: ChatReply, seconds: float) -> ProbeResult:
    tokens = answer.usage.completion_tokens
    told = f"{judge.where}: answered, {tokens} tokens in {seconds:.1f} s"
    found = ProbeResult(judge.name, True, told, tokens, seconds, tuple(_advice(config, judge, answer)))
    if VERDICT.search(strip_reasoning(answer)):
        return found
    cut = ", cut off while it was thinking" if answer.finish_reason == "length" else ""
    return replace(found, ok=False, told=f"{told}, without the verdict that was asked for{cut}")


def _advice(config: JudgeConfig, judge: "HttpJudge", answer: ChatReply) -> list[str]:
    advice = []
    thinks = has_reasoning(answer) or answer.finish_reason == "length"  # so much on a question as small as this
    if thinks and config.thinking_tokens == 0:
        advice.append(
            "it thinks before it answers: give it room with judge.thinking_tokens (4096, say), or switch that off in "
            "judge.extra_body"
        )
    if judge.window is not None:
        wanted = MIN_WINDOW_TOKENS + config.thinking_tokens
        if judge.window.tokens is None:
            advice.append(f"this Ollama does not tell its context window: {WINDOW_ADVICE.format(wanted=wanted)}")
        elif judge.window.tokens < wanted:
            advice.append(
                f"its context window is {judge.window.tokens:,} tokens, and it cuts longer prompts without a word: "
                f"{WINDOW_ADVICE.format(wanted=wanted)}"
            )
    return advice


def _list(name: str, known: tuple[str, ...]) -> str:
    if not known or name in known:
        return ""
    return f"; the server knows {', '.join(known[:10])}{', …' if len(known) > 10 else ''}"


# Short, and in the grammar of the ratings: who cannot do this cannot judge. The limit is that of the shortest template.
PROBE_REQUEST = ChatRequest(
    template="probe",
    slots={},
    text="Which number is larger, 2 or 3? End with that number in double square brackets, as in [[5]].",
    prompt_hash="",
    max_tokens=512,
)
VERDICT = re.compile(r"\[\[\s*\d+\s*\]\]")
