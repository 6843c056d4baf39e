"""LongBench as LongReward measures with it: each case asked once, graded against each of its references, and averaged.

The best grade over the references counts. The mean over a set's cases is the set's score, the mean over its sets a
class's, the mean over the classes the headline; all go from 0 to 100.
"""

import time
from collections.abc import Sequence
from itertools import starmap
from pathlib import Path
from typing import cast

from longreward.benchmarks import rating, single_turn
from longreward.benchmarks.longbench import files, summary
from longreward.benchmarks.longbench.cases import LongBenchCase, load_cases
from longreward.benchmarks.longbench.prompts import load_prompts
from longreward.benchmarks.longbench.sets import HIGHEST, MAX_NEW_TOKENS, SETS, Limits, SetName
from longreward.benchmarks.published_code import text_in
from longreward.benchmarks.types import Answer, ChatClient, Intervals, Judging, Summary, Tell, Verdict
from longreward.judge import Judge
from longreward.judge.prompt_template import SYSTEM
from longreward.utils.concurrency import gather, with_progress

BUILTIN = Path(__file__).parents[2] / "builtin" / "benchmarks" / "longbench"
MAX_PROMPT_TOKENS, JUDGE_TOKENS = 64_000, 1024
UNREAD = 0.5
"""What the published code takes for a verdict that stays unreadable or is filtered."""


class LongBench:
    """LongBench with its files read; the built-in records where none are given."""

    name = "longbench"
    top = 100.0
    judging = Judging(temperature=0.0, retry_temperature=0.0, attempts=5)

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
        self._system = text_in(judge_prompts, "system_prompt") if judge_prompts else SYSTEM
        self._limits: Limits = limits
        self._temperature, self._seed, self._max_new_tokens = temperature, seed, max_new_tokens
        self._by_id = {case.id: case for case in self.cases}
        self.official = folder != BUILTIN and all(prompt.official for prompt in self.prompts.values())

    async def answer(
        self, speaker: ChatClient, cases: Sequence[LongBenchCase], *, tell: Tell = lambda done: None
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
        self, judge: Judge, items: Sequence[tuple[LongBenchCase, Answer]], *, tell: Tell = lambda done: None
    ) -> list[tuple[Verdict, ...]]:
        """A verdict for each reference of each case."""

        async def one(case: LongBenchCase, answer: Answer) -> tuple[Verdict, ...]:
            places = range(len(case.answers))
            return tuple(await gather(self._verdict(judge, case, answer, place) for place in places))

        return await gather(starmap(with_progress(one, tell), items))

    def summarise(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], intervals: Intervals) -> Summary:
        """`score`, `class/<class>` and `set/<set>` as judged; `set/<set>/f1` or `…/rouge_l`, and their mean over the
        sets as `automatic`, which no judge takes part in."""
        return summary.summarise(self.name, self._by_id, answers, verdicts, intervals)

    def write(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """`longbench/preds/<model>.json` and `…/scores/<model>.json`, as the published code leaves them."""
        files.write(folder, self._by_id, answers, verdicts, model=model)

    def _limit(self, name: SetName) -> int:
        own = MAX_NEW_TOKENS if self._limits == "longreward" else SETS[name].tokens
        return single_turn.at_most(own, self._max_new_tokens)

    async def _verdict(self, judge: Judge, case: LongBenchCase, answer: Answer, place: int) -> Verdict:
        grading = SETS[case.dataset].grading
        prompt, top = self.prompts[grading], HIGHEST[grading]
        slots = {"question": case.query, "reference": case.answers[place], "answer": answer.turns[0]}
        question = prompt.ask(
            {slot: slots[slot] for slot in prompt.slots}, system=self._system, max_tokens=JUDGE_TOKENS
        )
        reading = await judge.query(question, whole)
        strict = None if reading.value is None else rating.as_asked(reading.text, low=1, high=top)
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
    found = rating.published(text)
    return int(found) if found is not None and "." not in found else None
