"""MT-Bench as a benchmark: its questions and prompts read, its model and its judge asked, its files written.

    <folder>/mt_bench/question.jsonl
    <folder>/mt_bench/model_answer/<model>.jsonl
    <folder>/mt_bench/reference_answer/<judge>.jsonl
    <folder>/mt_bench/model_judgment/<judge>_single.jsonl, <judge>_pair.jsonl

With `<folder>` named `data`, these are the places where FastChat's `show_result` looks for them.
"""

import re
import time
from collections.abc import Sequence
from itertools import starmap
from pathlib import Path

from longreward.benchmarks.mt_bench.data import MtCase, read_cases
from longreward.benchmarks.mt_bench.fastchat import (
    pair_rows,
    read_answers,
    read_pairs,
    read_single,
    reference_answer,
    replace_rows,
    single_rows,
    write_answers,
)
from longreward.benchmarks.mt_bench.judge import compare, grade, load_templates
from longreward.benchmarks.mt_bench.summary import summarise
from longreward.benchmarks.single_turn import at_most
from longreward.benchmarks.types import (
    Answer,
    ChatClient,
    Completion,
    GenerationRequest,
    IntervalOptions,
    JudgeOptions,
    Message,
    OnProgress,
    Summary,
    Verdict,
)
from longreward.judge import Judge
from longreward.utils.concurrency import gather, with_progress
from longreward.utils.jsonl import Row, write_rows

MAX_NEW_TOKENS = 1024
BUILTIN = Path(__file__).parents[2] / "builtin" / "benchmarks" / "mt_bench"


class MtBench:
    """`Benchmark[MtCase]`. Without `judge_prompts` ours are used; with `baseline`, pairs are judged besides.

    `references` is a file of reference answers, `baseline` one of another model's answers, named after it: both as
    FastChat writes them. Raises DataError where a file cannot be used or lacks a question.
    """

    name = "mt_bench"
    top = 10.0
    judging = JudgeOptions(temperature=0.0, retry_temperature=0.0, attempts=1)

    def __init__(
        self,
        questions: Path,
        *,
        references: Path | None = None,
        judge_prompts: Path | None = None,
        baseline: Path | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        self._templates = load_templates(judge_prompts)
        self.cases = read_cases(questions, references)
        self._by_id = {case.id: case for case in self.cases}
        self._rival = baseline.stem if baseline is not None else ""
        rivals = read_answers(baseline, self.cases) if baseline is not None else []
        self._rivals = {answer.case_id: answer for answer in rivals}
        self._max_new_tokens = at_most(MAX_NEW_TOKENS, max_new_tokens)
        self.official = judge_prompts is not None and questions.resolve() != BUILTIN / "question.jsonl"

    async def answer(
        self, speaker: ChatClient, cases: Sequence[MtCase], *, tell: OnProgress = lambda done: None
    ) -> list[Answer]:
        """The first turns of all cases at once, then the second ones after the model's own first.

        A case whose first turn is answered counts as half done.
        """
        first = await speaker.say([self._ask(case, ()) for case in cases], tell=lambda done: tell(done // 2))
        said = {case.id: [each] for case, each in zip(cases, first, strict=True)}
        longer = [case for case in cases if len(case.turns) > 1]
        shorter = len(cases) - len(longer)
        if longer:
            asks = [self._ask(case, (said[case.id][0].text.strip(),)) for case in longer]
            second = await speaker.say(asks, tell=lambda done: tell(shorter + (len(longer) + done) // 2))
            for case, each in zip(longer, second, strict=True):
                said[case.id].append(each)
        tell(len(cases))
        return [_answer(case, said[case.id]) for case in cases]

    def read_answers(self, path: Path) -> list[Answer]:
        """Answers that others wrote, to be judged as if the model had just given them."""
        return read_answers(path, self.cases)

    async def judge(
        self, judge: Judge, items: Sequence[tuple[MtCase, Answer]], *, tell: OnProgress = lambda done: None
    ) -> list[tuple[Verdict, ...]]:
        """A verdict on each turn of each answer, and with a baseline two more, all asked at once."""

        async def judged(case: MtCase, answer: Answer) -> tuple[Verdict, ...]:
            calls = [grade(judge, self._templates, case, answer)]
            if self._rivals:
                calls.append(compare(judge, self._templates, case, answer, self._rival, self._rivals[case.id].turns))
            return tuple(verdict for each in await gather(calls) for verdict in each)

        return await gather(starmap(with_progress(judged, tell), items))

    def read_judgments(self, folder: Path, *, model: str, judge: str) -> list[Verdict]:
        """The verdicts that stand in FastChat's files below `folder`, single ones and those against the baseline.

        `model` as the rows name it. Raises DataError where the file of single judgments is missing or a row is bad.
        """
        path, judge = folder / self.name / "model_judgment", file_name(judge)
        found = read_single(path / f"{judge}_single.jsonl", self._by_id, model=model)
        pairs = path / f"{judge}_pair.jsonl"
        if self._rival and pairs.is_file():
            found += read_pairs(pairs, self._by_id, model=model, rival=self._rival)
        return found

    def summarise(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], intervals: IntervalOptions) -> Summary:
        """`score`, the turns, the categories; with a baseline also `pairwise/…`."""
        return summarise(self._by_id, answers, verdicts, intervals)

    def write(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """FastChat's files. Judgments of other models by the same judge stay, those of this model are replaced.

        Names of models and judges become those of files: `org/model-7b` is written as `org_model-7b`.
        """
        place, name = folder / self.name, file_name(model)
        write_rows(place / "question.jsonl", map(_question_row, self.cases))
        write_answers(place / "model_answer" / f"{name}.jsonl", answers, self._by_id, model=name)
        if self._rivals:
            path = place / "model_answer" / f"{self._rival}.jsonl"
            write_answers(path, self._rivals.values(), self._by_id, model=self._rival)
        for judge in dict.fromkeys(verdict.judge for verdict in verdicts):
            self._write_references(place / "reference_answer" / f"{file_name(judge)}.jsonl")
            own = [verdict for verdict in verdicts if verdict.judge == judge]
            start = place / "model_judgment" / file_name(judge)
            replace_rows(Path(f"{start}_single.jsonl"), single_rows(own, self._by_id, model=name))
            replace_rows(Path(f"{start}_pair.jsonl"), pair_rows(own, self._by_id, model=name))

    def _write_references(self, path: Path) -> None:
        """The reference answers under the judge's name, where FastChat looks for them."""
        known = [reference_answer(case) for case in self.cases if case.references]
        write_answers(path, known, self._by_id, model="reference")

    def _ask(self, case: MtCase, said: tuple[str, ...]) -> GenerationRequest:
        """The next turn, after the turns that the model has said."""
        messages: list[Message] = []
        for asked, answered in zip(case.turns, said, strict=False):
            messages += [Message("user", asked), Message("assistant", answered)]
        messages.append(Message("user", case.turns[len(said)]))
        name = f"{case.id}/{len(said) + 1}"
        return GenerationRequest(name, tuple(messages), case.temperature, self._max_new_tokens)


def file_name(name: str) -> str:
    """The name of a model or judge as that of a file: letters, digits, and `.-_` stay, others become `_`."""
    return _UNSAFE.sub("_", name).strip("._") or "model"


def _answer(case: MtCase, said: Sequence[Completion]) -> Answer:
    return Answer(
        case_id=case.id,
        turns=tuple(each.text.strip() for each in said),
        tokens=tuple(each.tokens for each in said),
        finish_reasons=tuple(each.finish_reason for each in said),
        prompt_tokens=tuple(each.prompt_tokens for each in said),
        cut=any(each.cut for each in said),
        created=time.time(),
    )


def _question_row(case: MtCase) -> Row:
    return {"question_id": case.question_id, "category": case.category, "turns": list(case.turns)}


_UNSAFE = re.compile(r"[^\w.\-]+")
