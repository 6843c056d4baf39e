"""LongBench with LongReward's judge: each case is prompted once and graded against each of its references."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from longreward.benchmarks.judge_prompts import SYSTEM, load_builtin_prompt, parse_marked_prompt
from longreward.benchmarks.longbench.data import MAX_RATING, SETS, Grading, LongBenchCase, read_cases
from longreward.benchmarks.longbench.summary import score_files, summarize
from longreward.benchmarks.published_formats import (
    first_number_in_last_brackets,
    read_string_constant,
    strict_rating,
    write_json,
)
from longreward.benchmarks.types import (
    TOY_DATA,
    Answer,
    Benchmark,
    Files,
    GenerationRequest,
    IntervalOptions,
    JudgeOptions,
    Summary,
    Verdict,
    longreward_request,
)
from longreward.judge import Judge
from longreward.judge.prompt_template import PromptTemplate
from longreward.utils.concurrency import gather

TOY = TOY_DATA / "longbench"
JUDGE_TOKENS = 1024
UNREADABLE_SCORE = 0.5  # the published code's value for an unreadable or filtered verdict
MARKERS: dict[Grading, dict[str, str]] = {
    "qa": {"$Q$": "question", "$A$": "reference", "$P$": "answer"},
    "summary": {"$A$": "reference", "$P$": "answer"},  # the judge of a summary does not see the request for it
}
FUNCTIONS: dict[Grading, str] = {"qa": "gpt_score_qa", "summary": "gpt_score_summ"}


class LongBench(Benchmark[LongBenchCase]):
    """LongBench from its published files, or from the built-in records by default."""

    name = "longbench"
    max_score = 100.0
    judge_options = JudgeOptions(max_attempts=5)

    def __init__(
        self,
        *,
        folder: Path = TOY,
        templates: Path = TOY / "dataset2prompt.json",
        judge_code: Path | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        """Read the files.

        Args:
            folder: Contains `<set>.jsonl` for some or all sets.
            templates: The published `dataset2prompt.json`.
            judge_code: LongReward's `3_eval.py`, which contains the judge's prompts; default: the built-in prompts.
        """
        self.cases = read_cases(folder, templates)
        self.prompts = load_prompts(judge_code)
        self._system = read_string_constant(judge_code, "system_prompt") if judge_code else SYSTEM
        self._max_new_tokens = max_new_tokens
        self._cases_by_id = {case.id: case for case in self.cases}
        self.official = folder != TOY and all(prompt.official for prompt in self.prompts.values())

    @classmethod
    def load(cls, files: Files, *, max_new_tokens: int | None = None) -> Self:
        if not files:
            return cls(max_new_tokens=max_new_tokens)
        return cls(
            folder=files["data/qasper.jsonl"].parent,
            templates=files["dataset2prompt.json"],
            judge_code=files.get("3_eval.py"),
            max_new_tokens=max_new_tokens,
        )

    def request(self, case: LongBenchCase) -> GenerationRequest:
        return longreward_request(f"{self.name}/{case.id}", case.prompt, max_new_tokens=self._max_new_tokens)

    async def judge_answer(self, judge: Judge, case: LongBenchCase, answer: Answer) -> list[Verdict]:
        """Grade one answer against each reference."""
        return await gather(
            self._judge_reference(judge, case, answer, number) for number in range(1, len(case.answers) + 1)
        )

    async def _judge_reference(self, judge: Judge, case: LongBenchCase, answer: Answer, number: int) -> Verdict:
        grading = SETS[case.dataset].grading
        prompt, max_rating = self.prompts[grading], MAX_RATING[grading]
        slots = {"question": case.query, "reference": case.answers[number - 1], "answer": answer.turns[0]}
        slots = {slot: slots[slot] for slot in prompt.slots}
        request = prompt.request(slots, system=self._system, max_tokens=JUDGE_TOKENS)
        reply = await judge.query(request, parse_integer_rating)
        # Ratings from 1 to the maximum are scaled to 0 to 1, as in the published code.
        strict = None if reply.value is None else strict_rating(reply.text, low=1, high=max_rating)
        return Verdict.from_reply(
            case.id,
            f"reference {number}",
            request,
            reply,
            exact=UNREADABLE_SCORE if reply.value is None else (reply.value - 1) / (max_rating - 1),
            strict=None if strict is None else (strict - 1) / (max_rating - 1),
            unscored_reason=f"the last [[…]] is not a single integer from 1 to {max_rating}",
            metadata={
                "official": self.official,
                "attempts": reply.attempts,
                "prompt_tokens": reply.usage.prompt_tokens,
                "completion_tokens": reply.usage.completion_tokens,
                "rating": strict,
            },
        )

    def summarize(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], options: IntervalOptions) -> Summary:
        """Return the judge's metrics `score`, `class/<class>` and `set/<set>`, and those without a judge:
        `set/<set>/f1` or `set/<set>/rouge_l`, and their mean over the sets, `automatic`."""
        return summarize(self.name, self._cases_by_id, answers, verdicts, options)

    def write_files(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """Write `longbench/preds/<model>.json` and `longbench/scores/<model>.json`."""
        predictions, scores = score_files(self._cases_by_id, answers, verdicts)
        model = model.rstrip("/").split("/")[-1]
        write_json(folder / self.name / "preds" / f"{model}.json", predictions)
        write_json(folder / self.name / "scores" / f"{model}.json", scores)


def load_prompts(judge_code: Path | None) -> dict[Grading, PromptTemplate]:
    """Load the two judge prompts from LongReward's `3_eval.py`, or the built-in prompts if the path is None."""
    if judge_code is None:
        return {
            grading: load_builtin_prompt(f"longbench_{grading}", template=f"longbench/{grading}") for grading in MARKERS
        }
    return {
        grading: parse_marked_prompt(
            read_string_constant(judge_code, "prompt_template", function=FUNCTIONS[grading]),
            MARKERS[grading],
            template=f"longbench/{grading}",
            source=judge_code,
        )
        for grading in MARKERS
    }


def parse_integer_rating(text: str) -> int | None:
    """Parse the rating as the published code does. It fails at a fraction, which counts as unreadable here.

    >>> parse_integer_rating("[[3]]"), parse_integer_rating("[[2.5]]"), parse_integer_rating("[[good]]")
    (3, None, None)
    """
    number = first_number_in_last_brackets(text)
    return int(number) if number is not None and "." not in number else None
