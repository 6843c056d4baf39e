"""Is the judge there? Looked at before hours are spent: the keys without any call, the servers with a tiny question.

check_keys(config)                  # raises ConfigError that names the variable to set
for found in await probe(config):
    print(found.ok, found.told)     # True  judge 'qwen' at http://localhost:8000/v1: answered, 9 tokens in 0.4 s
"""

import re
import time
from dataclasses import dataclass

from longreward.errors import ConfigError, JudgeError
from longreward.judging.chat import Answer, ChatModel, Question
from longreward.judging.config import JudgeConfig
from longreward.judging.judge import open_model
from longreward.judging.keys import key_of


def check_keys(config: JudgeConfig) -> None:
    """Raises ConfigError where a key that a judge needs is not in the environment. Calls nobody."""
    key_of(config)


@dataclass(frozen=True)
class Probe:
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


async def probe(config: JudgeConfig, *, timeout_s: float = 60.0) -> list[Probe]:
    """Asks each distinct judge one tiny question, past the ledger; never raises for what a judge does.

    A call gets at most `timeout_s` (or the judge's own limit where that is shorter) and one retry.
    """
    return [await _probe(config, timeout_s)]


async def _probe(config: JudgeConfig, timeout_s: float) -> Probe:
    name = config.model or config.kind
    if config.kind == "offline":
        return Probe("offline", True, "the built-in offline stand-in: needs no server, and understands nothing")
    hasty = config.model_copy(
        update={"timeout_s": min(config.timeout_s, timeout_s), "max_retries": min(config.max_retries, 1)}
    )
    started = time.monotonic()
    try:
        model = open_model(hasty)
        answer = await _ask(model, config.first_temperature)
    except (ConfigError, JudgeError) as error:
        return Probe(name, False, str(error), seconds=time.monotonic() - started)
    seconds = time.monotonic() - started
    return _judged(model, answer, seconds)


async def _ask(model: ChatModel, temperature: float) -> Answer:
    try:
        return await model.answer(QUESTION, temperature=temperature)
    finally:
        await model.close()


def _judged(model: ChatModel, answer: Answer, seconds: float) -> Probe:
    tokens = answer.usage.completion_tokens
    told = f"judge {model.name!r}: answered, {tokens} tokens in {seconds:.1f} s"
    if not VERDICT.search(answer.text):
        return Probe(model.name, False, f"{told}, without the verdict that was asked for", tokens, seconds)
    return Probe(model.name, True, told, tokens, seconds)


# Short, and in the grammar of the ratings: who cannot do this cannot judge. The limit is that of the shortest template.
QUESTION = Question(
    template="probe",
    slots={},
    text="Which number is larger, 2 or 3? End with that number in double square brackets, as in [[5]].",
    prompt_hash="",
    max_tokens=512,
)
VERDICT = re.compile(r"\[\[\s*\d+\s*\]\]")
