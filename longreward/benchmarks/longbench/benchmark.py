"""LongBench with LongReward's judge: each case is prompted once and graded against each of its references.

Cases are averaged into sets, sets into classes, and classes into one score. The published score files:

    longbench/preds/<model>.json    [{"idx": 0, "dataset": "qasper", "query": …, "answer": [references],
                                      "prediction": …}, …]
    longbench/scores/<model>.json   [{"scores": {set: {"gpt_score", "finish"}}, "class_scores": …, "avg_gpt_score": …,
                                      "finish": …}, then each row of the predictions with "score" and "gpt_usage"]

Scores are from 0 to 1 in the files and from 0 to 100 in the metrics.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from longreward.benchmarks.judge_prompts import SYSTEM, load_builtin_prompt, parse_marked_prompt
from longreward.benchmarks.longbench.data import LongBenchCase, read_cases
from longreward.benchmarks.longbench.metrics import automatic_metric, metric_name
from longreward.benchmarks.longbench.sets import (
    JUDGED_CLASSES,
    JUDGED_SETS,
    MAX_RATING,
    SETS,
    Grading,
    SetName,
    class_weights,
)
from longreward.benchmarks.metrics import macro_mean
from longreward.benchmarks.published_formats import (
    first_number_in_last_brackets,
    read_constant,
    strict_rating,
    write_json,
)
from longreward.benchmarks.types import (
    LONGREWARD_TEMPERATURE,
    TOY_DATA,
    Answer,
    Benchmark,
    CaseScore,
    GenerationRequest,
    JudgeOptions,
    Metric,
    Summary,
    Verdict,
    longreward_request,
)
from longreward.evaluation.statistics import IntervalOptions, Observation
from longreward.judge import Judge
from longreward.judge.prompt_template import PromptTemplate
from longreward.judge.prompts import Parsing
from longreward.utils.concurrency import gather

TOY = TOY_DATA / "longbench"
JUDGE_TOKENS = 1024
SCALE = 100.0
BOUNDS = (0.0, SCALE)
UNREADABLE_SCORE = 0.5  # the published code's value for an unreadable or filtered verdict
MARKERS: dict[Grading, dict[str, str]] = {
    "qa": {"$Q$": "question", "$A$": "reference", "$P$": "answer"},
    "summary": {"$A$": "reference", "$P$": "answer"},  # the judge of a summary does not see the request for it
}
FUNCTIONS: dict[Grading, str] = {"qa": "gpt_score_qa", "summary": "gpt_score_summ"}


class LongBench(Benchmark[LongBenchCase]):
    """LongBench from its published files, or from the built-in records by default."""

    name = "longbench"
    files: ClassVar = {"folder": "data", "templates": "dataset2prompt.json", "judge_code": "3_eval.py"}
    max_score = 100.0
    judge_options = JudgeOptions(max_attempts=5)

    def __init__(
        self,
        *,
        folder: Path = TOY,
        templates: Path = TOY / "dataset2prompt.json",
        judge_code: Path | None = None,
        sets: Sequence[SetName] | None = None,
        temperature: float = LONGREWARD_TEMPERATURE,
        max_new_tokens: int | None = None,
        parsing: Parsing = "strict",
    ) -> None:
        """Read the files.

        Args:
            folder: Contains `<set>.jsonl` for some or all sets.
            sets: The sets to run; default: all judged sets that `folder` contains.
            templates: The published `dataset2prompt.json`.
            judge_code: LongReward's `3_eval.py`, which contains the judge's prompts; default: the built-in prompts.
        """
        self.cases = read_cases(folder, templates, sets)
        self.prompts = load_prompts(judge_code)
        self._system = read_constant(judge_code, "system_prompt", str) if judge_code else SYSTEM
        self._max_new_tokens, self._temperature = max_new_tokens, temperature
        self._parsing = parsing
        self._cases_by_id = {case.id: case for case in self.cases}
        self.official = folder != TOY and all(prompt.official for prompt in self.prompts.values())

    def request(self, case: LongBenchCase) -> GenerationRequest:
        request = longreward_request(f"{self.name}/{case.id}", case.prompt, max_new_tokens=self._max_new_tokens)
        return replace(request, temperature=self._temperature)

    def question_and_document(self, case: LongBenchCase) -> tuple[str, str | None]:
        return case.query, case.context

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
        if self._parsing == "published":
            rating, missing = reply.value, UNREADABLE_SCORE
        else:
            rating, missing = strict_rating(reply.text, low=1, high=max_rating), None
            rating = None if reply.value is None else rating
        return Verdict.from_reply(
            case.id,
            f"reference {number}",
            request,
            reply,
            # Ratings from 1 to the maximum are scaled to 0 to 1, as in the published code.
            value=missing if rating is None else (rating - 1) / (max_rating - 1),
            unscored_reason=f"the last [[…]] is not a single integer from 1 to {max_rating}",
            metadata={
                "official": self.official,
                "attempts": reply.attempts,
                "prompt_tokens": reply.usage.prompt_tokens,
                "completion_tokens": reply.usage.completion_tokens,
                "rating": rating,
            },
        )

    def summarize(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], options: IntervalOptions) -> Summary:
        """Return the judge's metrics `score`, `class/<class>` and `set/<set>`, and those without a judge:
        `set/<set>/f1` or `set/<set>/rouge_l`, and their mean over the sets, `automatic`."""
        cases = self._cases_by_id
        # Only sets with answers take part, so that a subset of the sets can be measured.
        sets = [name for name in JUDGED_SETS if any(cases[answer.case_id].dataset == name for answer in answers)]
        judged: dict[SetName, list[Observation]] = {name: [] for name in sets}
        automatic: dict[SetName, list[Observation]] = {name: [] for name in sets}
        unscored = dict.fromkeys(sets, 0)
        for case_id, group in _by_case(verdicts).items():
            name = cases[case_id].dataset
            unscored[name] += sum(verdict.value is None for verdict in group)
            if (best := best_score(group)) is not None:
                judged[name].append((case_id, SCALE * best))
        for answer in answers:
            case = cases[answer.case_id]
            value = automatic_metric(SETS[case.dataset], answer.turns[0], case.answers)
            automatic[case.dataset].append((case.id, SCALE * value))

        groups = {"score": sets}
        for class_name in JUDGED_CLASSES:
            if members := [name for name in sets if SETS[name].class_name == class_name]:
                groups[f"class/{class_name}"] = members
        groups |= {f"set/{name}": [name] for name in sets}
        metrics = []
        for title, members in groups.items():
            weights = class_weights(members)
            metrics.append(
                Metric(
                    title,
                    macro_mean({name: judged[name] for name in members}, options, weights=weights, bounds=BOUNDS),
                    cases=sum(len(judged[name]) for name in members),
                    unscored=sum(unscored[name] for name in members),
                )
            )
        groups = {f"set/{name}/{metric_name(SETS[name])}": [name] for name in sets} | {"automatic": sets}
        for title, members in groups.items():
            estimate = macro_mean({name: automatic[name] for name in members}, options, bounds=BOUNDS)
            count = sum(len(automatic[name]) for name in members)
            metrics.append(Metric(title, estimate, cases=count, unscored=0))
        prompt_tokens = {answer.case_id: answer.prompt_tokens[0] for answer in answers}
        return Summary(
            self.name,
            tuple(metrics),
            tuple(
                CaseScore(case_id, name, prompt_tokens[case_id], score)
                for name in sets
                for case_id, score in judged[name]
            ),
            tuple(float(rating) for verdict in verdicts if (rating := verdict.metadata["rating"]) is not None),
        )

    def write_files(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """Write `longbench/preds/<model>.json` and `longbench/scores/<model>.json`."""
        texts = {answer.case_id: answer.turns[0] for answer in answers}
        by_case = _by_case(verdicts)
        predictions: list[dict[str, Any]] = []
        scored: list[dict[str, Any]] = []
        for idx, case in enumerate(self.cases):
            if case.id not in texts:
                continue
            row = {
                "idx": idx,
                "dataset": case.dataset,
                "query": case.query,
                "answer": list(case.answers),
                "prediction": texts[case.id],
            }
            predictions.append(row)
            if group := by_case.get(case.id):
                usage = {
                    "prompt_tokens": sum(verdict.metadata["prompt_tokens"] for verdict in group),
                    "completion_tokens": sum(verdict.metadata["completion_tokens"] for verdict in group),
                    "responses": [verdict.judgment for verdict in group],
                }
                scored.append(row | {"score": best_score(group) or 0.0, "gpt_usage": usage})
        model = model.rstrip("/").split("/")[-1]
        write_json(folder / self.name / "preds" / f"{model}.json", predictions)
        write_json(folder / self.name / "scores" / f"{model}.json", [_mean_scores(predictions, scored), *scored])


def load_prompts(judge_code: Path | None) -> dict[Grading, PromptTemplate]:
    """Load the two judge prompts from LongReward's `3_eval.py`, or the built-in prompts if the path is None."""
    if judge_code is None:
        return {
            grading: load_builtin_prompt(f"longbench_{grading}", template=f"longbench/{grading}") for grading in MARKERS
        }
    return {
        grading: parse_marked_prompt(
            read_constant(judge_code, "prompt_template", str, function=FUNCTIONS[grading]),
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


def best_score(verdicts: Iterable[Verdict]) -> float | None:
    """Return the best value over the references, at least 0 as in the published code; None if all are unscored."""
    return max((max(0.0, verdict.value) for verdict in verdicts if verdict.value is not None), default=None)


def _by_case(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    """Return the verdicts on each case without their prompts."""
    groups: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.case_id].append(replace(verdict, system="", prompt=""))
    return groups


def _mean_scores(rows: Sequence[Mapping[str, Any]], scored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scores: dict[SetName, dict[str, Any]] = {}
    for name in JUDGED_SETS:
        values = [row["score"] for row in scored if row["dataset"] == name]
        if values:  # the published code writes 0 for a set without an answer
            answered = sum(row["dataset"] == name for row in rows)
            scores[name] = {"gpt_score": _mean(values), "finish": len(values) == answered}
    by_class = {
        class_name: [score["gpt_score"] for name, score in scores.items() if SETS[name].class_name == class_name]
        for class_name in JUDGED_CLASSES
    }
    return {
        "scores": scores,
        "class_scores": {class_name: _mean(values) for class_name, values in by_class.items() if values},
        "avg_gpt_score": _mean([score["gpt_score"] for score in scores.values()]),
        "finish": len(scored) == len(rows),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
