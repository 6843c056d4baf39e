"""LongBench-Chat: real questions about long texts; the judge sees three example answers that people scored.

As in the paper: the model is prompted at temperature 1.0 with seed 42; the judge answers at temperature 0 with up to
five attempts; the rating is the first number in its last `[[…]]`; the score is the sum over 50 cases divided by 5.

    test_cases.json   [{"idx": 1, "prompt": "<document>\\n\\n<question>", "query": …, "answer": …}, …]
    few_shots.json    [[{"answer": …, "score": 10}, {…}, {…}], …]     entry n - 1 belongs to the case with idx n
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from longreward.benchmarks.judge_prompts import SYSTEM, load_builtin_prompt, parse_positional_prompt
from longreward.benchmarks.metrics import verdict_metric
from longreward.benchmarks.published_formats import (
    first_number_in_last_brackets,
    parse_text,
    read_constant,
    read_json_list,
    read_text,
    strict_rating,
    write_json,
)
from longreward.benchmarks.types import (
    TOY_DATA,
    Answer,
    Benchmark,
    CaseScore,
    GenerationRequest,
    JudgeOptions,
    Summary,
    Verdict,
    longreward_request,
)
from longreward.evaluation.statistics import IntervalOptions
from longreward.judge import Judge
from longreward.judge.prompt_template import PromptTemplate
from longreward.judge.prompts import Parsing
from longreward.utils.jsonl import RowError, open_atomic
from longreward.utils.language import detect_language

TOY = TOY_DATA / "longbench_chat"
TEMPLATE = "longbench_chat"  # the offline judge has a rule for this name
JUDGE_TOKENS = 1024
MIN_RATING, MAX_RATING = 1, 10
SCALE = 10.0  # the sum of 50 ratings divided by 5 is 10 times their mean; used for any number of cases
SHOTS = 3
SLOTS = (
    "question",
    "reference",
    *(slot for number in range(1, SHOTS + 1) for slot in (f"example_{number}", f"rating_{number}")),
    "answer",
)
# str.splitlines would also split at form feeds and Unicode separators, which the published code keeps.
_LINE_END = re.compile(r"\r\n|[\n\r]")


@dataclass(frozen=True)
class Shot:
    """A scored example answer; `score` as written in the file."""

    answer: str
    score: str


@dataclass(frozen=True)
class LongBenchChatCase:
    """One question about one long text."""

    idx: int
    prompt: str  # the text, a blank line, the question
    query: str
    reference: str
    shots: tuple[Shot, ...]

    @property
    def id(self) -> str:
        return str(self.idx)

    @property
    def category(self) -> str:
        """The language of the question by its script: `en` or `zh`."""
        return detect_language(self.query)


class LongBenchChat(Benchmark[LongBenchChatCase]):
    """LongBench-Chat from its published files, or from the built-in cases by default."""

    name = "longbench_chat"
    files: ClassVar = {
        "cases": "test_cases.json",
        "few_shots": "few_shots.json",
        "judge_prompt": "prompt_fs.txt",
        "judge_code": "eval.py",
    }
    max_score = 100.0
    judge_options = JudgeOptions(max_attempts=5)

    def __init__(
        self,
        *,
        cases: Path = TOY / "test_cases.json",
        few_shots: Path = TOY / "few_shots.json",
        judge_prompt: Path | None = None,
        judge_code: Path | None = None,
        max_new_tokens: int | None = None,
        parsing: Parsing = "strict",
    ) -> None:
        """Read the files.

        Args:
            judge_prompt: The published `prompt_fs.txt`; default: the built-in prompt.
            judge_code: The published `eval.py`, which contains the judge's system prompt; default: the built-in one.
        """
        self.cases = read_cases(cases, few_shots)
        self.prompt = load_prompt(judge_prompt)
        self._system = read_constant(judge_code, "system_prompt", str) if judge_code else SYSTEM
        self._max_new_tokens = max_new_tokens
        self._parsing = parsing
        self._cases_by_id = {case.id: case for case in self.cases}
        self.official = self.prompt.official and judge_code is not None and cases != TOY / "test_cases.json"

    def request(self, case: LongBenchChatCase) -> GenerationRequest:
        return longreward_request(f"{self.name}/{case.id}", case.prompt, max_new_tokens=self._max_new_tokens)

    def question_and_document(self, case: LongBenchChatCase) -> tuple[str, str | None]:
        return case.query, case.prompt.removesuffix(case.query).rstrip()

    async def judge_answer(self, judge: Judge, case: LongBenchChatCase, answer: Answer) -> list[Verdict]:
        """Rate one answer; its newlines become spaces, as in the published code."""
        slots = {"question": case.query, "reference": case.reference, "answer": on_one_line(answer.turns[0])}
        for number, shot in enumerate(case.shots, start=1):
            slots |= {f"example_{number}": shot.answer, f"rating_{number}": shot.score}
        request = self.prompt.request(slots, system=self._system, max_tokens=JUDGE_TOKENS)
        reply = await judge.query(request, first_number_in_last_brackets)
        if reply.value is None or self._parsing == "published":
            rating = None if reply.value is None else float(reply.value)
        else:
            rating = strict_rating(reply.text, low=MIN_RATING, high=MAX_RATING)
        verdict = Verdict.from_reply(
            case.id,
            "answer",
            request,
            reply,
            value=None if rating is None else float(rating),
            unscored_reason=f"the last [[…]] is not a single integer from {MIN_RATING} to {MAX_RATING}",
            metadata={
                "official": self.official,
                "attempts": reply.attempts,
                "tokens": reply.usage.prompt_tokens + reply.usage.completion_tokens,
                "score": reply.value or "none",
            },
        )
        return [verdict]

    def summarize(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], options: IntervalOptions) -> Summary:
        """Return `score` from 0 to 100 and `language/en`, `language/zh`."""
        prompt_tokens = {answer.case_id: answer.prompt_tokens[0] for answer in answers}
        groups = {"score": list(verdicts)}
        for verdict in verdicts:
            groups.setdefault(f"language/{self._cases_by_id[verdict.case_id].category}", []).append(verdict)
        ratings = [(verdict.case_id, verdict.value) for verdict in verdicts if verdict.value is not None]
        metrics = []
        for name, group in groups.items():
            metric = verdict_metric(name, group, options, scale=SCALE, bounds=(0.0, SCALE * MAX_RATING))
            # The published code fails on a case without a rating, so that there is no score.
            failed = self._parsing == "published" and metric.unscored > 0
            metrics.append(replace(metric, estimate=None) if failed else metric)
        return Summary(
            self.name,
            tuple(metrics),
            tuple(
                CaseScore(case_id, self._cases_by_id[case_id].category, prompt_tokens[case_id], rating * SCALE)
                for case_id, rating in ratings
            ),
            tuple(rating for _, rating in ratings),
        )

    def write_files(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """Write `longbench_chat/predictions/<model>.txt` and `longbench_chat/scores/<model>.json`."""
        folder, model = folder / self.name, model.rstrip("/").split("/")[-1]
        verdict_by_case = {verdict.case_id: verdict for verdict in verdicts}
        with open_atomic(folder / "predictions" / f"{model}.txt") as file:
            file.writelines(on_one_line(answer.turns[0]) + "\n" for answer in answers)
        rows: list[dict[str, Any]] = []
        for answer in answers:
            if (verdict := verdict_by_case.get(answer.case_id)) is not None:
                case = self._cases_by_id[answer.case_id]
                rows.append(
                    {
                        "idx": case.idx,
                        "query": case.query,
                        "answer": case.reference,
                        "prediction": on_one_line(answer.turns[0]),
                        "gpt_analysis": verdict.judgment,
                        "score": verdict.metadata["score"],
                        "used_tokens": verdict.metadata["tokens"],
                    }
                )
        scores = [row["score"] for row in rows]
        total = "none" if "none" in scores or not rows else sum(map(float, scores)) / len(rows) * SCALE
        rows.append({"total_score": total, "total_tokens": sum(row["used_tokens"] for row in rows)})
        write_json(folder / "scores" / f"{model}.json", rows)


def load_prompt(path: Path | None) -> PromptTemplate:
    """Load the published `prompt_fs.txt`, or the built-in prompt if the path is None."""
    if path is None:
        return load_builtin_prompt("longbench_chat", template=TEMPLATE)
    return parse_positional_prompt(read_text(path), SLOTS, template=TEMPLATE, source=path)


def read_cases(cases: Path, few_shots: Path) -> tuple[LongBenchChatCase, ...]:
    """Read all cases, in the order of their file. Raises DataError with file and entry."""
    shots = read_json_list(few_shots, _parse_shots)
    indices: set[int] = set()

    def parse(row: Any, index: int) -> LongBenchChatCase:
        prompt, query, reference = (parse_text(row, key, allow_blank=False) for key in ("prompt", "query", "answer"))
        idx = row.get("idx")
        if not isinstance(idx, int) or isinstance(idx, bool) or idx < 1:
            raise RowError(f"idx is {idx!r}, expected an integer from 1")
        if idx > len(shots):
            raise RowError(f"idx is {idx}, but {few_shots} has entries for {len(shots)} cases only")
        if idx in indices:
            raise RowError(f"duplicate idx {idx}")
        indices.add(idx)
        return LongBenchChatCase(idx, prompt, query, reference, shots[idx - 1])

    return tuple(read_json_list(cases, parse))


def _parse_shots(group: Any, index: int) -> tuple[Shot, ...]:
    if not isinstance(group, list) or len(group) != SHOTS:
        raise RowError(f'expected a list of {SHOTS} objects like {{"answer": "…", "score": 7}}')
    shots = []
    for row in group:
        answer, score = parse_text(row, "answer", allow_blank=False), row.get("score")
        if isinstance(score, bool) or not isinstance(score, int | float | str) or not str(score).strip():
            raise RowError(f"score is {score!r}, expected a number from 1 to 10")
        shots.append(Shot(answer, str(score)))
    return tuple(shots)


def on_one_line(text: str) -> str:
    """Strip a text and replace its newlines by spaces.

    >>> on_one_line(" In 1861.\\n\\nIt was built of stone.\\n")
    'In 1861.  It was built of stone.'
    """
    return _LINE_END.sub(" ", text.strip())
