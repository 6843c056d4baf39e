"""LongBench as LongReward measures with it: each case asked once, graded against each of its references, and averaged.

The best grade over the references counts. The mean over a set's cases is the set's score, the mean over its sets a
class's, the mean over the classes the headline; all go from 0 to 100.
"""

import time
from collections.abc import Sequence
from itertools import starmap
from pathlib import Path
from typing import cast

from longreward.benchmarks import parsers, single_turn
from longreward.benchmarks.judge_prompts import SYSTEM, load_builtin_prompt, parse_marked_prompt
from longreward.benchmarks.longbench import summary
from longreward.benchmarks.longbench.data import (
    HIGHEST,
    MAX_NEW_TOKENS,
    SETS,
    Grading,
    Limits,
    LongBenchCase,
    SetName,
    load_cases,
)
from longreward.benchmarks.parsers import read_string_constant
from longreward.benchmarks.types import Answer, ChatClient, IntervalOptions, JudgeOptions, OnProgress, Summary, Verdict
from longreward.judge import Judge
from longreward.judge.prompt_template import PromptTemplate
from longreward.utils.concurrency import gather, with_progress

BUILTIN = Path(__file__).parents[2] / "builtin" / "benchmarks" / "longbench"
MAX_PROMPT_TOKENS, JUDGE_TOKENS = 64_000, 1024
UNREAD = 0.5
"""What the published code takes for a verdict that stays unreadable or is filtered."""


class LongBench:
    """LongBench with its files read; the built-in records where none are given."""

    name = "longbench"
    top = 100.0
    judging = JudgeOptions(temperature=0.0, retry_temperature=0.0, attempts=5)

    def __init__(
        self,
        *,
        folder: Path = BUILTIN,
        templates: Path = BUILTIN / "dataset2prompt.json",
        judge_prompts: Path | None = None,
        sets: Sequence[str] | None = None,
        limits: Limits = "longreward",
        temperature: float = 1.0,
        seed: int = 42,
        max_new_tokens: int | None = None,
    ) -> None:
        """`folder` holds `<set>.jsonl` of some or all sets, `templates` is `dataset2prompt.json`, `judge_prompts`
        LongReward's `3_eval.py` (None: our own prompts). `sets`: None takes all that are there.

        Answers have up to 1,024 tokens as with `longreward`, or with `longbench` as many as LongBench gives each set;
        `max_new_tokens` lowers either. The published code leaves the temperature to each model's own chat method.
        """
        self.cases = load_cases(folder, templates, cast("Sequence[SetName] | None", sets))
        self.prompts = load_prompts(judge_prompts)
        self._system = read_string_constant(judge_prompts, "system_prompt") if judge_prompts else SYSTEM
        self._limits: Limits = limits
        self._temperature, self._seed, self._max_new_tokens = temperature, seed, max_new_tokens
        self._by_id = {case.id: case for case in self.cases}
        self.official = folder != BUILTIN and all(prompt.official for prompt in self.prompts.values())

    async def answer(
        self, speaker: ChatClient, cases: Sequence[LongBenchCase], *, tell: OnProgress = lambda done: None
    ) -> list[Answer]:
        """Each answer as the model gave it."""
        asks = [
            single_turn.ask(
                f"{self.name}/{case.id}",
                case.prompt,
                temperature=self._temperature,
                max_new_tokens=self._limit(case.dataset),
                max_prompt_tokens=MAX_PROMPT_TOKENS,
                seed=self._seed,
            )
            for case in cases
        ]
        return await single_turn.answers(speaker, [case.id for case in cases], asks, tell)

    async def judge(
        self, judge: Judge, items: Sequence[tuple[LongBenchCase, Answer]], *, tell: OnProgress = lambda done: None
    ) -> list[tuple[Verdict, ...]]:
        """A verdict for each reference of each case."""

        async def one(case: LongBenchCase, answer: Answer) -> tuple[Verdict, ...]:
            places = range(len(case.answers))
            return tuple(await gather(self._verdict(judge, case, answer, place) for place in places))

        return await gather(starmap(with_progress(one, tell), items))

    def summarise(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], intervals: IntervalOptions) -> Summary:
        """`score`, `class/<class>` and `set/<set>` as judged; `set/<set>/f1` or `…/rouge_l`, and their mean over the
        sets as `automatic`, which no judge takes part in."""
        return summary.summarise(self.name, self._by_id, answers, verdicts, intervals)

    def write(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """`longbench/preds/<model>.json` and `…/scores/<model>.json`, as the published code leaves them."""
        summary.write(folder, self._by_id, answers, verdicts, model=model)

    def _limit(self, name: SetName) -> int:
        own = MAX_NEW_TOKENS if self._limits == "longreward" else SETS[name].tokens
        return single_turn.at_most(own, self._max_new_tokens)

    async def _verdict(self, judge: Judge, case: LongBenchCase, answer: Answer, place: int) -> Verdict:
        grading = SETS[case.dataset].grading
        prompt, top = self.prompts[grading], HIGHEST[grading]
        slots = {"question": case.query, "reference": case.answers[place], "answer": answer.turns[0]}
        question = prompt.request(
            {slot: slots[slot] for slot in prompt.slots}, system=self._system, max_tokens=JUDGE_TOKENS
        )
        reading = await judge.query(question, whole)
        strict = None if reading.value is None else parsers.strict_rating(reading.text, low=1, high=top)
        return Verdict(
            case.id,
            f"reference {place + 1}",
            question.template,
            question.system,
            question.text,
            reading.text,
            exact=UNREAD if reading.value is None else (reading.value - 1) / (top - 1),
            strict=None if strict is None else (strict - 1) / (top - 1),
            reason=None if strict is not None else reading.reason or f"the last [[…]] holds no 1 to {top} alone",
            judge=reading.judge,
            created=time.time(),
            more={
                "official": self.official,
                "tries": reading.attempts,
                "prompt_tokens": reading.usage.prompt_tokens,
                "completion_tokens": reading.usage.completion_tokens,
                "rating": strict,
            },
        )


def whole(text: str) -> int | None:
    """The rating as the published code reads it. It breaks off at a fraction, which we take for unreadable.

    >>> whole("[[3]]"), whole("[[7]]"), whole("[[2.5]]"), whole("[[good]]")
    (3, 7, None, None)
    """
    found = parsers.first_number_in_last_brackets(text)
    return int(found) if found is not None and "." not in found else None


# The judge's two prompts: LongReward's where its evaluation code is given, else ours.
#
# The published prompts are no files but texts within `evaluation/LongBench/3_eval.py`.


MARKERS: dict[Grading, dict[str, str]] = {
    "qa": {"$Q$": "question", "$A$": "reference", "$P$": "answer"},
    "summary": {"$A$": "reference", "$P$": "answer"},  # a summary is graded without the request for it
}
FUNCTIONS: dict[Grading, str] = {"qa": "gpt_score_qa", "summary": "gpt_score_summ"}


def load_prompts(published: Path | None) -> dict[Grading, PromptTemplate]:
    """Both prompts; DataError where the published file is not what it should be."""
    if published is None:
        return {
            grading: load_builtin_prompt(f"longbench_{grading}", template=f"longbench/{grading}") for grading in MARKERS
        }
    return {
        grading: parse_marked_prompt(
            read_string_constant(published, "prompt_template", function=FUNCTIONS[grading]),
            MARKERS[grading],
            template=f"longbench/{grading}",
            source=published,
        )
        for grading in MARKERS
    }
