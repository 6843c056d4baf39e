"""LongBench-Chat as the paper measures with it: each case asked once, graded by a judge, and summed up.

Prompts are asked whole, at temperature 1.0, with seed 42 for each. The judge is asked at temperature 0, at most five
times until its last `[[…]]` holds a number: that is the rating. The score is the sum over 50 cases, divided by 5.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import starmap
from pathlib import Path

from longreward.benchmarks import estimates, rating, single_turn
from longreward.benchmarks.longbench_chat import files
from longreward.benchmarks.longbench_chat.cases import LongBenchChatCase, load_cases
from longreward.benchmarks.longbench_chat.prompts import load_prompt
from longreward.benchmarks.published_code import text_in
from longreward.benchmarks.types import (
    Answer,
    CaseValue,
    ChatClient,
    Figure,
    Intervals,
    Judging,
    Summary,
    Tell,
    Verdict,
)
from longreward.judge import Judge
from longreward.judge.prompt_template import SYSTEM
from longreward.utils.concurrency import gather, with_progress

BUILTIN = Path(__file__).parents[2] / "builtin" / "benchmarks" / "longbench_chat"
MAX_NEW_TOKENS, MAX_PROMPT_TOKENS, TEMPERATURE, SEED = 1024, 64_000, 1.0, 42
JUDGE_TOKENS = 1024
LOWEST, HIGHEST = 1, 10
SCALE = 10.0
"""Of a mean rating: the sum of 50 cases divided by 5 is 10 times their mean, and so we take it for any number."""


class LongBenchChat:
    """LongBench-Chat with its files read; the built-in cases where none are given."""

    name = "longbench_chat"
    top = 100.0
    judging = Judging(temperature=0.0, retry_temperature=0.0, attempts=5)

    def __init__(
        self,
        *,
        cases: Path = BUILTIN / "test_cases.json",
        few_shots: Path = BUILTIN / "few_shots.json",
        judge_prompt: Path | None = None,
        judge_code: Path | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        """`judge_prompt` is the published `prompt_fs.txt`, `judge_code` the `eval.py` with the judge's system prompt;
        None: ours. DataError where a file is not what it should be.

        `max_new_tokens` lowers the limit of 1,024 tokens an answer.
        """
        self.cases = load_cases(cases, few_shots)
        self.prompt = load_prompt(judge_prompt)
        self._system = text_in(judge_code, "system_prompt") if judge_code else SYSTEM
        self._max_new_tokens = single_turn.at_most(MAX_NEW_TOKENS, max_new_tokens)
        self._by_id = {case.id: case for case in self.cases}
        self.official = self.prompt.official and judge_code is not None and cases != BUILTIN / "test_cases.json"

    async def answer(
        self, speaker: ChatClient, cases: Sequence[LongBenchChatCase], *, tell: Tell = lambda done: None
    ) -> list[Answer]:
        """Each answer as the model gave it; its newlines become spaces where it is judged."""
        asks = [
            single_turn.ask(
                f"{self.name}/{case.id}",
                case.prompt,
                temperature=TEMPERATURE,
                max_new_tokens=self._max_new_tokens,
                max_prompt_tokens=MAX_PROMPT_TOKENS,
                seed=SEED,
            )
            for case in cases
        ]
        return await single_turn.answers(speaker, [case.id for case in cases], asks, tell)

    async def judge(
        self, judge: Judge, items: Sequence[tuple[LongBenchChatCase, Answer]], *, tell: Tell = lambda done: None
    ) -> list[tuple[Verdict, ...]]:
        """One verdict for each answer."""

        async def one(case: LongBenchChatCase, answer: Answer) -> tuple[Verdict, ...]:
            return (await self._verdict(judge, case, answer),)

        return await gather(starmap(with_progress(one, tell), items))

    def summarise(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], intervals: Intervals) -> Summary:
        """`score` over all cases, 0 to 100, and one by language. `exact` has none where a case stayed unread: the
        published code cannot sum up then."""
        lengths = {answer.case_id: answer.prompt_tokens[0] for answer in answers}
        groups = {"score": list(verdicts)}
        for verdict in verdicts:
            groups.setdefault(f"language/{self._by_id[verdict.case_id].category}", []).append(verdict)
        read = [(verdict, verdict.strict) for verdict in verdicts if verdict.strict is not None]
        return Summary(
            self.name,
            tuple(_figure(name, group, intervals) for name, group in groups.items()),
            tuple(
                CaseValue(each.case_id, self._by_id[each.case_id].category, lengths[each.case_id], strict * SCALE)
                for each, strict in read
            ),
            tuple(strict for _, strict in read),
        )

    def write(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """`longbench_chat/predictions/<model>.txt` and `…/scores/<model>.json`, as the published code leaves them."""
        files.write(folder, self._by_id, answers, verdicts, model=model)

    async def _verdict(self, judge: Judge, case: LongBenchChatCase, answer: Answer) -> Verdict:
        slots = {"question": case.query, "reference": case.reference, "answer": files.on_one_line(answer.turns[0])}
        for number, shot in enumerate(case.shots, start=1):
            slots |= {f"example_{number}": shot.answer, f"rating_{number}": shot.score}
        question = self.prompt.ask(slots, system=self._system, max_tokens=JUDGE_TOKENS)
        reading = await judge.query(question, rating.published)
        strict = None if reading.value is None else rating.as_asked(reading.text, low=LOWEST, high=HIGHEST)
        return Verdict(
            case.id,
            "answer",
            question.template,
            question.system,
            question.text,
            reading.text,
            exact=None if reading.value is None else float(reading.value),
            strict=None if strict is None else float(strict),
            reason=None if strict is not None else reading.reason or NOT_AS_ASKED,
            judge=reading.judge,
            created=time.time(),
            more={
                "official": self.official,
                "tries": reading.attempts,
                "tokens": reading.usage.prompt_tokens + reading.usage.completion_tokens,
                "score": reading.value or "none",
            },
        )


NOT_AS_ASKED = f"the last [[…]] holds no whole number from {LOWEST} to {HIGHEST} alone"


def _figure(name: str, verdicts: Sequence[Verdict], intervals: Intervals) -> Figure:
    figure = estimates.figure(name, verdicts, intervals, scale=SCALE, bounds=(0.0, SCALE * HIGHEST))
    return replace(figure, exact=None) if any(each.exact is None for each in verdicts) else figure
