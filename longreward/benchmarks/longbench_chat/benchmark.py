"""LongBench-Chat's cases and their scored example answers, in the published files.

test_cases.json   [{"idx": 1, "prompt": "<document>\n\n<question>", "query": …, "answer": …}, …]
few_shots.json    [[{"answer": …, "score": 10}, {…}, {…}], …]     the case of idx n has the list at place n - 1
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import starmap
from pathlib import Path
from typing import Any

from longreward.benchmarks import metrics, parsers, single_turn
from longreward.benchmarks.judge_prompts import SYSTEM, load_builtin_prompt, parse_positional_prompt
from longreward.benchmarks.parsers import read_string_constant
from longreward.benchmarks.types import (
    Answer,
    CaseValue,
    ChatClient,
    IntervalOptions,
    JudgeOptions,
    Metric,
    OnProgress,
    Summary,
    Verdict,
)
from longreward.errors import DataError
from longreward.judge import Judge
from longreward.judge.prompt_template import PromptTemplate
from longreward.utils.concurrency import gather, with_progress
from longreward.utils.jsonl import open_atomic
from longreward.utils.language import detect_language

SHOTS = 3


@dataclass(frozen=True)
class Shot:
    """An answer that was scored before, as the judge is shown it; `score` as it is written in the file."""

    answer: str
    score: str


@dataclass(frozen=True)
class LongBenchChatCase:
    """One question about one long text."""

    idx: int
    prompt: str  # the whole of what the model is asked: the text, a blank line, the question
    query: str
    reference: str
    shots: tuple[Shot, Shot, Shot]

    @property
    def id(self) -> str:
        return str(self.idx)

    @property
    def category(self) -> str:
        """The question's language, told by its script: `en` or `zh`."""
        return detect_language(self.query)


def load_cases(cases: Path, few_shots: Path) -> tuple[LongBenchChatCase, ...]:
    """All cases in the order of their file; DataError names the file and the entry that is not as above."""
    rows, shots = _listed(cases), load_shots(few_shots)
    found = [_case(row, shots, f"{cases}, entry {place}", few_shots) for place, row in enumerate(rows, start=1)]
    seen: set[int] = set()
    for place, case in enumerate(found, start=1):
        if case.idx in seen:
            raise DataError(f"{cases}, entry {place}: the idx {case.idx} was there before; give each case its own")
        seen.add(case.idx)
    return tuple(found)


def load_shots(few_shots: Path) -> tuple[tuple[Shot, Shot, Shot], ...]:
    """The example answers of each case, in the order of the file."""
    return tuple(
        _shots(group, f"{few_shots}, entry {place}") for place, group in enumerate(_listed(few_shots), start=1)
    )


def _case(row: Any, shots: Sequence[tuple[Shot, Shot, Shot]], where: str, few_shots: Path) -> LongBenchChatCase:
    if not isinstance(row, Mapping):
        raise DataError(f"{where} is a JSON {type(row).__name__}, expected an object")
    idx = row.get("idx")
    if not isinstance(idx, int) or isinstance(idx, bool) or idx < 1:
        raise DataError(f"{where}: idx is {idx!r}, expected a whole number from 1")
    if idx > len(shots):
        raise DataError(f"{where}: idx is {idx}, and {few_shots} has scored answers for {len(shots)} cases only")
    prompt, query, reference = (_text(row, key, where) for key in ("prompt", "query", "answer"))
    return LongBenchChatCase(idx, prompt, query, reference, shots[idx - 1])


def _shots(group: Any, where: str) -> tuple[Shot, Shot, Shot]:
    if not isinstance(group, list) or len(group) != SHOTS or not all(isinstance(each, Mapping) for each in group):
        raise DataError(f'{where}: expected a list of {SHOTS} objects like {{"answer": "…", "score": 7}}')
    first, second, third = (_shot(each, where) for each in group)
    return first, second, third


def _shot(row: Mapping[str, Any], where: str) -> Shot:
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float | str) or not str(score).strip():
        raise DataError(f"{where}: a score is {score!r}, expected a number from 1 to 10")
    return Shot(_text(row, "answer", where), str(score))


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {key} is {value!r}, expected a text")
    return value


def _listed(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, list) or not found:
        raise DataError(f"{path} must hold a JSON list with an entry for each case")
    return found


# The judge's prompt: the published `prompt_fs.txt` where it is given, else ours.


TEMPLATE = "longbench_chat"
EXAMPLES = tuple(name for number in range(1, SHOTS + 1) for name in (f"example_{number}", f"rating_{number}"))
SLOTS = ("question", "reference", *EXAMPLES, "answer")


def load_prompt(published: Path | None) -> PromptTemplate:
    """With the slots `question`, `reference`, `example_1`, `rating_1`, …, `answer`; DataError for another file."""
    if published is None:
        return load_builtin_prompt("longbench_chat", template=TEMPLATE)
    try:
        text = published.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"LongBench-Chat's judge prompt {published} cannot be read: {error}") from error
    return parse_positional_prompt(text, SLOTS, template=TEMPLATE, source=published)


# The files that LongBench-Chat's published code leaves: a line for each answer, and the scores with their sum.
#
# longbench_chat/predictions/<model>.txt   one answer a line
# longbench_chat/scores/<model>.json       [{"idx": 1, "query": …, "prediction": …, "gpt_analysis": …, "score": "8", …},
#                                           …, {"total_score": 71.2, "total_tokens": 51234}]


def on_one_line(text: str) -> str:
    """An answer as it is judged: stripped, its newlines turned to spaces.

    >>> on_one_line(" In 1861.\\n\\nIt was built of stone.\\n")
    'In 1861.  It was built of stone.'
    """
    return _LINE_END.sub(" ", text.strip())


def write_files(
    folder: Path,
    cases: Mapping[str, LongBenchChatCase],
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    *,
    model: str,
) -> None:
    """Both files below `folder`, in the order of `answers`; StateError where the disk refuses."""
    folder, file = folder / "longbench_chat", model.rstrip("/").split("/")[-1]
    by_case = {verdict.case_id: verdict for verdict in verdicts}
    with open_atomic(folder / "predictions" / f"{file}.txt") as lines:
        lines.writelines(on_one_line(answer.turns[0]) + "\n" for answer in answers)
    rows = [_row(cases[each.case_id], each, by_case[each.case_id]) for each in answers if each.case_id in by_case]
    scores = [row["score"] for row in rows]
    # The published sum is over 50 cases; for other numbers it is scaled to as many.
    total = "none" if "none" in scores or not rows else sum(map(float, scores)) / len(rows) * 10
    rows.append({"total_score": total, "total_tokens": sum(row["used_tokens"] for row in rows)})
    with open_atomic(folder / "scores" / f"{file}.json") as out:
        json.dump(rows, out, indent=2, ensure_ascii=False)


def _row(case: LongBenchChatCase, answer: Answer, verdict: Verdict) -> dict[str, Any]:
    return {
        "idx": case.idx,
        "query": case.query,
        "answer": case.reference,
        "prediction": on_one_line(answer.turns[0]),
        "gpt_analysis": verdict.judgment,
        "score": verdict.more["score"],
        "used_tokens": verdict.more["tokens"],
    }


_LINE_END = re.compile(r"\r\n|[\n\r]")  # the published file would take a lone \r for the end of an answer


# LongBench-Chat as the paper measures with it: each case asked once, graded by a judge, and summed up.
#
# Prompts are asked whole, at temperature 1.0, with seed 42 for each. The judge is asked at temperature 0, at most five
# times until its last `[[…]]` holds a number: that is the rating. The score is the sum over 50 cases, divided by 5.


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
    judging = JudgeOptions(temperature=0.0, retry_temperature=0.0, attempts=5)

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
        self._system = read_string_constant(judge_code, "system_prompt") if judge_code else SYSTEM
        self._max_new_tokens = single_turn.at_most(MAX_NEW_TOKENS, max_new_tokens)
        self._by_id = {case.id: case for case in self.cases}
        self.official = self.prompt.official and judge_code is not None and cases != BUILTIN / "test_cases.json"

    async def answer(
        self, speaker: ChatClient, cases: Sequence[LongBenchChatCase], *, tell: OnProgress = lambda done: None
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
        self, judge: Judge, items: Sequence[tuple[LongBenchChatCase, Answer]], *, tell: OnProgress = lambda done: None
    ) -> list[tuple[Verdict, ...]]:
        """One verdict for each answer."""

        async def one(case: LongBenchChatCase, answer: Answer) -> tuple[Verdict, ...]:
            return (await self._verdict(judge, case, answer),)

        return await gather(starmap(with_progress(one, tell), items))

    def summarise(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], intervals: IntervalOptions) -> Summary:
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
        write_files(folder, self._by_id, answers, verdicts, model=model)

    async def _verdict(self, judge: Judge, case: LongBenchChatCase, answer: Answer) -> Verdict:
        slots = {"question": case.query, "reference": case.reference, "answer": on_one_line(answer.turns[0])}
        for number, shot in enumerate(case.shots, start=1):
            slots |= {f"example_{number}": shot.answer, f"rating_{number}": shot.score}
        question = self.prompt.request(slots, system=self._system, max_tokens=JUDGE_TOKENS)
        reading = await judge.query(question, parsers.first_number_in_last_brackets)
        strict = None if reading.value is None else parsers.strict_rating(reading.text, low=LOWEST, high=HIGHEST)
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


def _figure(name: str, verdicts: Sequence[Verdict], intervals: IntervalOptions) -> Metric:
    figure = metrics.verdict_metric(name, verdicts, intervals, scale=SCALE, bounds=(0.0, SCALE * HIGHEST))
    return replace(figure, exact=None) if any(each.exact is None for each in verdicts) else figure
