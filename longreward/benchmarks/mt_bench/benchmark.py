"""MT-Bench as a benchmark.

    <folder>/mt_bench/question.jsonl
    <folder>/mt_bench/model_answer/<model>.jsonl
    <folder>/mt_bench/reference_answer/<judge>.jsonl
    <folder>/mt_bench/model_judgment/<judge>_single.jsonl, <judge>_pair.jsonl

FastChat's `show_result` finds these files if `<folder>` is named `data`. The metrics are those of `show_result`, with
unscored verdicts counted:

    score                         mean of all ratings, 1 to 10
    turn_1, turn_2, category/…    mean of the ratings of one turn or category
    pairwise/win_rate             share of the pairs (a turn of a question) that are won in both orders
    pairwise/loss_rate            share that are lost in both orders
    pairwise/win_rate_adjusted    win rate with ties counting half; different winners in both orders are a tie
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from longreward.benchmarks.metrics import verdict_metric
from longreward.benchmarks.mt_bench.data import MtCase, read_cases
from longreward.benchmarks.mt_bench.fastchat import (
    pair_rows,
    read_answers,
    read_pairs,
    read_ratings,
    reference_answers,
    replace_rows,
    single_rows,
    write_answers,
)
from longreward.benchmarks.mt_bench.judge import compare_answers, load_templates, rate_answer
from longreward.benchmarks.types import (
    TOY_DATA,
    Answer,
    Benchmark,
    CaseScore,
    ChatClient,
    Completion,
    GenerationRequest,
    Message,
    Metric,
    OnProgress,
    Summary,
    Verdict,
    ignore_progress,
    join_turns,
    lower_limit,
)
from longreward.evaluation.statistics import IntervalOptions, mean
from longreward.judge import Judge
from longreward.judge.prompts import Parsing
from longreward.utils.concurrency import gather
from longreward.utils.jsonl import write_rows

MAX_NEW_TOKENS = 1024
TOY = TOY_DATA / "mt_bench"
_UNSAFE = re.compile(r"[^\w.\-]+")
Outcome = float | None  # 1: won, 0: lost, 0.5: tie, None: one of the two comparisons has no winner
PAIR_METRICS: Mapping[str, Callable[[float], float]] = {
    "win_rate_adjusted": lambda outcome: outcome,
    "win_rate": lambda outcome: float(outcome == 1),
    "loss_rate": lambda outcome: float(outcome == 0),
}


class MtBench(Benchmark[MtCase]):
    """MT-Bench: two-turn questions, rated turn by turn and optionally compared with another model's answers."""

    name = "mt_bench"
    files: ClassVar = {
        "questions": "question.jsonl",
        "references": "reference_answer/gpt-4.jsonl",
        "judge_prompts": "judge_prompts.jsonl",
    }
    max_score = 10.0

    def __init__(
        self,
        questions: Path = TOY / "question.jsonl",
        *,
        references: Path | None = None,
        judge_prompts: Path | None = None,
        baseline: Path | None = None,
        max_new_tokens: int | None = None,
        parsing: Parsing = "strict",
    ) -> None:
        """Read the files, all in FastChat's formats. Raises DataError.

        Args:
            references: Reference answers, required for the categories reasoning, math and coding. Default: those of
                the built-in questions, and none for others.
            judge_prompts: The published `judge_prompts.jsonl`; default: the built-in prompts.
            baseline: Another model's answers, named after it; with them, pairs are judged, too.
        """
        self._templates = load_templates(judge_prompts)
        self._parsing = parsing
        is_builtin = questions.parent == TOY
        if references is None and is_builtin:
            references = TOY / "reference_answer" / "reference.jsonl"
        self.cases = read_cases(questions, references)
        self._cases_by_id = {case.id: case for case in self.cases}
        self.opponent = baseline.stem if baseline is not None else None
        opponent_answers = read_answers(baseline, self.cases) if baseline is not None else []
        self._opponent_answers = {answer.case_id: answer for answer in opponent_answers}
        self._max_new_tokens = lower_limit(MAX_NEW_TOKENS, max_new_tokens)
        self.official = judge_prompts is not None and not is_builtin

    def case_text(self, case: MtCase) -> str:
        return "\n".join(case.turns)

    def question_and_document(self, case: MtCase) -> tuple[str, str | None]:
        return join_turns(case.turns), None

    async def answer(
        self, client: ChatClient, cases: Sequence[MtCase], *, on_progress: OnProgress = ignore_progress
    ) -> list[Answer]:
        """Generate the first turns of all cases, then the second turns after the model's own first turns.

        A case of two turns counts as half done after its first.
        """
        requests = [self._turn_request(case, ()) for case in cases]
        # All first turns are generated before any second turn, so that both form large batches.
        first = await client.generate(requests, on_progress=lambda done: on_progress(done // 2))
        turns = {case.id: [_stripped(completion)] for case, completion in zip(cases, first, strict=True)}
        two_turn_cases = [case for case in cases if len(case.turns) > 1]
        single_turn_count = len(cases) - len(two_turn_cases)
        if two_turn_cases:
            requests = [self._turn_request(case, (turns[case.id][0].text,)) for case in two_turn_cases]
            second = await client.generate(
                requests,
                on_progress=lambda done: on_progress(single_turn_count + (len(two_turn_cases) + done) // 2),
            )
            for case, completion in zip(two_turn_cases, second, strict=True):
                turns[case.id].append(_stripped(completion))
        on_progress(len(cases))
        return [Answer.from_completions(case.id, turns[case.id]) for case in cases]

    def read_answers(self, path: Path) -> list[Answer]:
        """Read another program's answers, to be judged as if the model had generated them now."""
        return read_answers(path, self.cases)

    async def judge_answer(self, judge: Judge, case: MtCase, answer: Answer) -> list[Verdict]:
        """Rate each turn of an answer; with a baseline, compare each turn in both orders, too."""
        queries = [rate_answer(judge, self._templates, case, answer, parsing=self._parsing)]
        if self.opponent is not None:
            opponent_turns = self._opponent_answers[case.id].turns
            comparison = compare_answers(
                judge, self._templates, case, answer, self.opponent, opponent_turns, parsing=self._parsing
            )
            queries.append(comparison)
        return [verdict for verdicts in await gather(queries) for verdict in verdicts]

    def read_judgments(self, folder: Path, *, model: str, judge: str) -> list[Verdict]:
        """Read the ratings of `model` from FastChat's files below `folder`, and its comparisons with the baseline.

        Raises DataError for a missing file of ratings or a malformed row.
        """
        path, judge = folder / self.name / "model_judgment", file_name(judge)
        verdicts = read_ratings(path / f"{judge}_single.jsonl", self._cases_by_id, model=model, parsing=self._parsing)
        pairs = path / f"{judge}_pair.jsonl"
        if self.opponent is not None and pairs.is_file():
            verdicts += read_pairs(pairs, self._cases_by_id, model=model, opponent=self.opponent, parsing=self._parsing)
        return verdicts

    def summarize(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], options: IntervalOptions) -> Summary:
        """Return `score`, turns and categories; with a baseline also `pairwise/…`."""
        cases = self._cases_by_id
        ratings = [verdict for verdict in verdicts if "opponent" not in verdict.metadata]
        pairs = [verdict for verdict in verdicts if "opponent" in verdict.metadata]
        groups: dict[str, list[Verdict]] = {"score": ratings}
        groups |= {f"turn_{turn}": [] for turn in sorted({int(verdict.metadata["turn"]) for verdict in ratings})}
        groups |= {f"category/{case.category}": [] for case in self.cases}
        scores: dict[str, list[float]] = {case.id: [] for case in self.cases}
        for verdict in ratings:
            groups[f"turn_{verdict.metadata['turn']}"].append(verdict)
            groups[f"category/{cases[verdict.case_id].category}"].append(verdict)
            if verdict.value is not None:
                scores[verdict.case_id].append(verdict.value)
        # `published` also accepts ratings outside the scale.
        bounds = (1.0, self.max_score) if self._parsing == "strict" else None
        metrics = [verdict_metric(name, group, options, bounds=bounds) for name, group in groups.items() if group]
        if pairs:
            metrics += _pair_metrics(pairs, options)
        prompt_tokens = {answer.case_id: max(answer.prompt_tokens, default=0) for answer in answers}
        return Summary(
            self.name,
            tuple(metrics),
            tuple(
                # The score of a case is the mean over its turns with a rating.
                CaseScore(case.id, case.category, prompt_tokens.get(case.id, 0), sum(turns) / len(turns))
                for case in self.cases
                if (turns := scores[case.id])
            ),
            tuple(verdict.value for verdict in ratings if verdict.value is not None),
        )

    def write_files(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """Write FastChat's files; judgments of this model are replaced, those of other models stay.

        Names of models and judges become valid file names: `org/model-7b` is written as `org_model-7b`.
        """
        folder, model = folder / self.name, file_name(model)
        questions = (
            {"question_id": case.question_id, "category": case.category, "turns": list(case.turns)}
            for case in self.cases
        )
        write_rows(folder / "question.jsonl", questions)
        write_answers(folder / "model_answer" / f"{model}.jsonl", answers, self._cases_by_id, model=model)
        if self.opponent is not None:
            path = folder / "model_answer" / f"{self.opponent}.jsonl"
            write_answers(path, self._opponent_answers.values(), self._cases_by_id, model=self.opponent)
        for judge in dict.fromkeys(verdict.judge for verdict in verdicts):
            judge_verdicts = [verdict for verdict in verdicts if verdict.judge == judge]
            path = folder / "reference_answer" / f"{file_name(judge)}.jsonl"
            write_answers(path, reference_answers(self.cases), self._cases_by_id, model="reference")
            single = single_rows(judge_verdicts, self._cases_by_id, model=model)
            replace_rows(folder / "model_judgment" / f"{file_name(judge)}_single.jsonl", single)
            pairs = pair_rows(judge_verdicts, self._cases_by_id, model=model)
            replace_rows(folder / "model_judgment" / f"{file_name(judge)}_pair.jsonl", pairs)

    def _turn_request(self, case: MtCase, previous: Sequence[str]) -> GenerationRequest:
        """Return the request for the next turn after the model's previous turns."""
        messages: list[Message] = []
        for question, reply in zip(case.turns, previous, strict=False):
            messages += [Message("user", question), Message("assistant", reply)]
        messages.append(Message("user", case.turns[len(previous)]))
        request_id = f"{case.id}/{len(previous) + 1}"
        return GenerationRequest(request_id, tuple(messages), case.temperature, self._max_new_tokens)


def file_name(name: str) -> str:
    """Return a valid file name: letters, digits and `.-_` stay, others become `_`."""
    return _UNSAFE.sub("_", name).strip("._") or "model"


def _stripped(completion: Completion) -> Completion:
    return replace(completion, text=completion.text.strip())


def pair_outcome(first: Outcome, second: Outcome) -> Outcome:
    """Combine both orders: a tie if either is a tie or they disagree, None if either has no winner.

    >>> pair_outcome(1.0, 1.0), pair_outcome(1.0, 0.0), pair_outcome(0.5, 1.0), pair_outcome(1.0, None)
    (1.0, 0.5, 0.5, None)
    """
    if first is None or second is None:
        return None
    return first if first == second else 0.5


def _pair_metrics(verdicts: Sequence[Verdict], options: IntervalOptions) -> list[Metric]:
    # By case, turn and repeat, since a pair that was judged again is a pair of its own; then by order.
    pairs: dict[tuple[str, int, int], dict[int, Outcome]] = defaultdict(dict)
    for verdict in verdicts:
        key = (verdict.case_id, verdict.metadata["turn"], verdict.metadata.get("repeat", 0))
        pairs[key][verdict.metadata["order"]] = verdict.value
    outcomes = [(case_id, pair_outcome(orders.get(1), orders.get(2))) for (case_id, _, _), orders in pairs.items()]
    metrics = []
    for name, points in PAIR_METRICS.items():
        values = [(case_id, points(outcome)) for case_id, outcome in outcomes if outcome is not None]
        estimate = mean(values, options, bounds=(0.0, 1.0))
        cases = len({verdict.case_id for verdict in verdicts})
        metrics.append(Metric(f"pairwise/{name}", estimate, cases, unscored=len(outcomes) - len(values)))
    return metrics
