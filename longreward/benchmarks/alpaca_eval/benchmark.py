"""The judge's prompt: the published one, a file in ChatML, or our own."""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import starmap
from pathlib import Path

from longreward.benchmarks import single_turn
from longreward.benchmarks.alpaca_eval import summary
from longreward.benchmarks.alpaca_eval.data import AlpacaCase, read_cases
from longreward.benchmarks.alpaca_eval.length_control import read_gamed
from longreward.benchmarks.judge_prompts import load_builtin_prompt, parse_marked_prompt
from longreward.benchmarks.types import Answer, ChatClient, IntervalOptions, JudgeOptions, OnProgress, Summary, Verdict
from longreward.chat_model import parse_logprobs
from longreward.errors import DataError
from longreward.judge import Judge
from longreward.judge.prompt_template import PromptTemplate
from longreward.utils.concurrency import gather, with_progress

TEMPLATE = "alpaca_eval"
SLOTS = {"{instruction}": "instruction", "{output_1}": "output_1", "{output_2}": "output_2"}


def load_prompt(path: Path | None) -> tuple[str, PromptTemplate]:
    """The system prompt, and the prompt; `path` is `alpaca_eval_clf.txt`, None takes ours.

    DataError where the file cannot be read or is no conversation of one system and one user turn.
    """
    if path is None:
        return "", load_builtin_prompt("alpaca_eval", template=TEMPLATE)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    turns = [turn.partition("\n") for turn in text.split("<|im_start|>")[1:]]
    if [role.strip() for role, _, _ in turns] != ["system", "user"]:
        raise DataError(f"{path} is no prompt with a system and a user turn in ChatML; fetch it anew")
    system, user = (content.partition("<|im_end|>")[0].strip() for _, _, content in turns)
    return system, parse_marked_prompt(user, SLOTS, template=TEMPLATE, source=path)


# Which of two answers a judge prefers, from the probabilities of one token; and in which order it was shown them.
#
#     the judge's first token: {"m": -0.02, "M": -4.05}   → 2 - 0.98 = 1.02: the answer shown first, as `m`, is better
#
# A preference lies between 1, the baseline's answer is better, and 2, the model's is; the model's win share is the
# preference less 1.


FIRST, SECOND = "m", "M"
TOP_LOGPROBS = 5
EQUAL = 1.5
"""The preference between two answers of the same text, which no judge is asked about."""


@dataclass(frozen=True)
class ShownPreference:
    """A preference among the two as they were shown: 1, the first is better, to 2; `exact` as published code reads."""

    exact: float | None  # None: neither name is among the likeliest tokens, or the server gives no probabilities
    strict: float | None  # from the answer's text where there are no probabilities
    weighed: bool  # whether there were


def parse_preference(text: str) -> ShownPreference:
    """What the judge prefers.

    >>> read_shown('{"text": "M", "top_logprobs": [{"m": -3.0, "M": -3.0}]}')
    Shown(exact=1.5, strict=1.5, weighed=True)
    >>> read_shown("M")
    Shown(exact=None, strict=2.0, weighed=False)
    """
    answer = parse_logprobs(text)
    if answer.top_logprobs:
        value = _weighted(answer.top_logprobs[0].get(FIRST), answer.top_logprobs[0].get(SECOND))
        return ShownPreference(value, value, weighed=True)
    said = answer.text.strip().strip(".\"'`")
    return ShownPreference(None, {FIRST: 1.0, SECOND: 2.0}.get(said), weighed=False)


def is_switched(instruction: str, *, seed: int = 0) -> bool:
    """Whether the model's answer is shown first: drawn from the instruction alone, as the library `alpaca_eval` does.

    >>> [is_switched(text) for text in ("a", "b", "c", "d")]
    [True, True, False, False]
    """
    return random.Random(f"is_switched_outputs{instruction}{seed}").choices([False, True], k=1)[0]


def unswitched(preference: float | None, switched: bool) -> float | None:
    """The preference among baseline and model, from that among the two as shown."""
    return 3 - preference if switched and preference is not None else preference


def _weighted(first: float | None, second: float | None) -> float | None:
    """2 less the first's share of both probabilities; a token that is not among the likeliest has none."""
    if first is None and second is None:
        return None
    if first is None or second is None:
        return 2.0 if first is None else 1.0
    # As a logistic of the difference, which neither overflows nor divides 0 by 0.
    odds = second - first
    return 2 - (1 / (1 + math.exp(odds)) if odds < 700 else 0.0)


# AlpacaEval 2: each instruction answered once, and held against the baseline's answer by the probability of one token.
#
# The judge sees both answers in an order drawn from the instruction, and says `m` or `M`; the probabilities of the two
# are the preference. An answer equal to the baseline's is a draw that no judge is asked about.


BUILTIN = Path(__file__).parents[2] / "builtin" / "benchmarks" / "alpaca_eval"
MAX_NEW_TOKENS, JUDGE_TOKENS = 2048, 1


class AlpacaEval:
    """AlpacaEval 2 with its files read; the built-in instructions where none are given."""

    name = "alpaca_eval"
    top = 100.0
    judging = JudgeOptions(temperature=1.0, retry_temperature=1.0, attempts=1)
    """The published temperature, which no probability depends on; it does not ask again."""

    def __init__(
        self,
        *,
        baseline: Path = BUILTIN / "alpaca_eval_gpt4_baseline.json",
        judge_prompt: Path | None = None,
        gamed: Path | None = None,
        temperature: float = 0.0,
        seed: int = 42,
        max_new_tokens: int | None = None,
    ) -> None:
        """`baseline` is `alpaca_eval_gpt4_baseline.json`, `judge_prompt` `alpaca_eval_clf.txt` (None: our own prompt),
        `gamed` `df_gamed.csv` (None: the length-controlled rate is the minimal one; the built-in set has its own).

        Answers have up to 2,048 tokens, or fewer with `max_new_tokens`. Published leaderboards leave the temperature
        to each model; here it is 0.
        """
        self.cases = read_cases(baseline)
        self.system, self.prompt = load_prompt(judge_prompt)
        if gamed is None and baseline.parent == BUILTIN:
            gamed = BUILTIN / "df_gamed.csv"
        self._gamed = None if gamed is None else read_gamed(gamed)
        self._temperature, self._seed, self._max_new_tokens = temperature, seed, max_new_tokens
        self._by_id = {case.id: case for case in self.cases}
        self.official = judge_prompt is not None and gamed is not None and baseline.parent != BUILTIN

    async def answer(self, speaker: ChatClient, cases: Sequence[AlpacaCase], *, tell: OnProgress) -> list[Answer]:
        """Each answer as the model gave it."""
        asks = [
            single_turn.ask(
                f"{self.name}/{case.id}",
                case.instruction,
                temperature=self._temperature,
                max_new_tokens=single_turn.at_most(MAX_NEW_TOKENS, self._max_new_tokens),
                max_prompt_tokens=None,
                seed=self._seed,
            )
            for case in cases
        ]
        return await single_turn.answers(speaker, [case.id for case in cases], asks, tell)

    async def judge(
        self, judge: Judge, items: Sequence[tuple[AlpacaCase, Answer]], *, tell: OnProgress
    ) -> list[tuple[Verdict, ...]]:
        """One verdict for each answer."""

        async def one(case: AlpacaCase, answer: Answer) -> tuple[Verdict, ...]:
            return (await self._verdict(judge, case, answer.turns[0]),)

        return await gather(starmap(with_progress(one, tell), items))

    def summarise(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], intervals: IntervalOptions) -> Summary:
        """`win_rate`, `length_controlled` (`length_controlled_minimal` without `df_gamed.csv`), `discrete_win_rate`,
        `length` in characters, and `without_probabilities`: the percentage that was read from the bare letter."""
        return summary.summarise(self.name, self._by_id, self._gamed, answers, verdicts, intervals)

    def write(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """The library's `model_outputs.json` and `annotations.json`."""
        summary.write(folder / self.name, self._by_id, answers, verdicts, model=model)

    async def _verdict(self, judge: Judge, case: AlpacaCase, output: str) -> Verdict:
        if output == case.output:
            more = self._more(EQUAL, switched=False, weighed=False, identical=True)
            return Verdict(case.id, "preference", TEMPLATE, "", "", "", exact=0.5, strict=0.5, more=more)
        switched = is_switched(case.instruction)
        first, second = (output, case.output) if switched else (case.output, output)
        slots = {"instruction": case.instruction, "output_1": first, "output_2": second}
        asked = self.prompt.request(slots, system=self.system, max_tokens=JUDGE_TOKENS)
        question = replace(asked, top_logprobs=TOP_LOGPROBS)
        reading = await judge.query(question, lambda text: parse_preference(text).strict)
        shown = parse_preference(reading.text)
        exact, strict = unswitched(shown.exact, switched), unswitched(shown.strict, switched)
        return Verdict(
            case.id,
            "preference",
            question.template,
            question.system,
            question.text,
            reading.text,
            exact=None if exact is None else exact - 1,
            strict=None if strict is None else strict - 1,
            reason=None if strict is not None else reading.reason or "neither m nor M is among the likeliest tokens",
            judge=reading.judge,
            created=time.time(),
            more=self._more(strict, switched=switched, weighed=shown.weighed, identical=False),
        )

    def _more(self, preference: float | None, **told: bool) -> dict[str, object]:
        return {"preference": preference, "official": self.prompt.official, **told}
