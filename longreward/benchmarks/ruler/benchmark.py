"""RULER with a model's own tokenizer: the mean score at each length, and the effective length.

Every prompt is as long as it can be without exceeding its length, which includes the chat template and the answer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, get_args

from longreward.benchmarks.metrics import macro_mean
from longreward.benchmarks.ruler.generator import CaseGenerator, RulerCase, Sample
from longreward.benchmarks.ruler.tasks import (
    CASES,
    FAMILIES,
    LENGTHS,
    MAX_NEW_TOKENS,
    SEED,
    THRESHOLD,
    TaskName,
    match_score,
)
from longreward.benchmarks.ruler.texts import read_texts
from longreward.benchmarks.types import (
    Answer,
    Benchmark,
    CaseScore,
    ChatClient,
    GenerationRequest,
    Message,
    Metric,
    OnProgress,
    Summary,
    Verdict,
    ignore_progress,
    lower_limit,
)
from longreward.errors import ConfigError, DataError
from longreward.evaluation.statistics import Estimate, IntervalOptions, Observation
from longreward.judge.prompts import Parsing

SCALE = 100.0
BOUNDS = (0.0, SCALE)


class Ruler(Benchmark[RulerCase]):
    """RULER with its published texts, or with built-in ones by default."""

    name = "ruler"
    files: ClassVar = {
        "constants": "constants.py",
        "niah": "niah.py",
        "nounlist": "nounlist.txt",
        "adjectivelist": "adjectivelist.txt",
        "verblist": "verblist.txt",
        "english_words": "english_words.json",
        "PaulGrahamEssays": "PaulGrahamEssays.json",
        "squad": "squad.json",
        "hotpotqa": "hotpotqa.json",
    }
    max_score = SCALE
    uses_judge = False

    def __init__(
        self,
        *,
        tasks: Sequence[TaskName] | None = None,
        lengths: Sequence[int] = LENGTHS,
        cases: int = CASES,
        threshold: float = THRESHOLD,
        seed: int = SEED,
        temperature: float = 0.0,
        chat_template: Literal["always", "never"] = "always",
        max_new_tokens: int | None = None,
        parsing: Parsing = "strict",
        **files: Path,  # by the keys of `files`
    ) -> None:
        """Read the texts and generate all questions with their references.

        Args:
            tasks: The tasks to run; default: all whose files are there.
            cases: The number of cases for each task and length.
            threshold: The score that the effective length requires.
            chat_template: `never`: the model continues the prompt as it is (base models).
            parsing: Has no effect, because no judge's reply is parsed.
        """
        texts = read_texts(files)
        self._tasks = tuple(
            task for task in (tasks or get_args(TaskName)) if FAMILIES[task] != "qa" or tasks or task in texts.qa
        )
        if missing := [task for task in self._tasks if FAMILIES[task] == "qa" and task not in texts.qa]:
            raise DataError(
                f"benchmark.ruler.tasks: {', '.join(missing)} needs squad.json (qa_1) or hotpotqa.json (qa_2) in "
                "<benchmark.files>/ruler: longreward benchmarks fetch --only ruler"
            )
        self._generator = CaseGenerator(texts, seed)
        self._lengths, self._threshold, self._temperature = tuple(lengths), threshold, temperature
        self._chat, self._max_new_tokens = chat_template == "always", max_new_tokens
        self._sizes: dict[tuple[str, TaskName, int], int] = {}
        self.cases = [
            self._generator.build_case(task, length, number)
            for length in self._lengths
            for task in self._tasks
            for number in range(1, cases + 1)
        ]
        self._cases_by_id = {case.id: case for case in self.cases}
        self.official = (
            texts.official and {*self._tasks} == {*get_args(TaskName)} and temperature == 0 and max_new_tokens is None
        )

    def case_text(self, case: RulerCase) -> str:
        """Return the shortest form of a case, because its haystack depends on the model's tokenizer."""
        return self._shortest_sample(case).prompt

    def question_and_document(self, case: RulerCase) -> tuple[str, str | None]:
        """Return what follows the haystack in the prompt, and the haystack of the shortest form."""
        sample = self._shortest_sample(case)
        return sample.prompt.rpartition(sample.context)[2].strip(), sample.context

    def _shortest_sample(self, case: RulerCase) -> Sample:
        return self._generator.sample(case, self._generator.minimum_size(case))

    async def answer(
        self, client: ChatClient, cases: Sequence[RulerCase], *, on_progress: OnProgress = ignore_progress
    ) -> list[Answer]:
        """Fit the prompts to the client's tokenizer and generate the answers.

        Raises ConfigError if a length exceeds the client's window, DataError if a task does not fit into a length.
        """
        if (longest := max(self._lengths)) > client.window:
            raise ConfigError(
                f"benchmark.ruler.lengths: {longest:,} tokens are more than the model's window of {client.window:,}; "
                "leave longer lengths out, or raise policy.window, and the limit of the server, if the model can"
            )
        requests = [self._fit(client, case) for case in cases]
        completions = await client.generate(requests, on_progress=on_progress)
        return [
            Answer.from_completions(case.id, [completion]) for case, completion in zip(cases, completions, strict=True)
        ]

    def _request(self, case: RulerCase, size: int) -> GenerationRequest:
        sample = self._generator.sample(case, size)
        return GenerationRequest(
            f"{self.name}/{case.id}",
            (Message("user", sample.prompt),),
            self._temperature,
            self._limit(case),
            seed=42,
            chat=self._chat,
            answer_prefix=sample.answer_prefix,
        )

    def _limit(self, case: RulerCase) -> int:
        return lower_limit(MAX_NEW_TOKENS[FAMILIES[case.task]], self._max_new_tokens)

    def _fit(self, client: ChatClient, case: RulerCase) -> GenerationRequest:
        """Return the longest request of a case that does not exceed its length.

        As in RULER, the size is searched for the first case of each task and length, and lowered for longer cases.
        """
        key = client.name, case.task, case.length
        if key not in self._sizes:
            self._sizes[key] = self._largest_size(client, self._cases_by_id[f"{case.task}/{case.length}/1"])
        minimum = self._generator.minimum_size(case)
        size = max(self._sizes[key], minimum)
        while (excess := self._excess(client, case, request := self._request(case, size))) > 0:
            if size == minimum:
                raise DataError(
                    f"benchmark.ruler.lengths: {case.length:,} tokens are {excess:,} too few for the shortest "
                    f"context of {case.id}; leave the task or the length out"
                )
            size = max(minimum, size - max(1, size * excess // (case.length + excess)))
        return request

    def _largest_size(self, client: ChatClient, case: RulerCase) -> int:
        low = high = self._generator.minimum_size(case)
        while self._excess(client, case, self._request(case, high)) <= 0:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            fits = self._excess(client, case, self._request(case, middle)) <= 0
            low, high = (middle, high) if fits else (low, middle)
        return low

    @staticmethod
    def _excess(client: ChatClient, case: RulerCase, request: GenerationRequest) -> int:
        """Return the tokens of prompt and answer beyond the case's length."""
        return client.count_tokens(request) + request.max_new_tokens - case.length

    def summarize(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], options: IntervalOptions) -> Summary:
        """Return `score` (mean over the lengths), `effective_length`, `length/<tokens>` (mean over the tasks) and
        `task/<task>` (mean over the lengths)."""
        groups: dict[tuple[int, TaskName], list[Observation]] = {}
        case_scores = []
        for answer in answers:
            case = self._cases_by_id[answer.case_id]
            score = SCALE * match_score(case.task, answer.turns[0], case.references)
            groups.setdefault((case.length, case.task), []).append((case.id, score))
            case_scores.append(CaseScore(case.id, case.category, case.length, score))

        def mean(name: str, members: Sequence[tuple[int, TaskName]]) -> Metric:
            # Every task has the same number of cases at every length, so the mean over groups is RULER's.
            by_group = {f"{task}/{length}": groups[length, task] for length, task in members}
            estimate = macro_mean(by_group, options, bounds=BOUNDS)
            return Metric(name, estimate, cases=sum(map(len, by_group.values())), unscored=0)

        lengths = sorted({length for length, _ in groups})
        by_length = [mean(f"length/{length}", [key for key in groups if key[0] == length]) for length in lengths]
        by_task = [
            mean(f"task/{task}", keys) for task in self._tasks if (keys := [key for key in groups if key[1] == task])
        ]
        curve = [
            (length, metric.estimate)
            for length, metric in zip(lengths, by_length, strict=True)
            if metric.estimate is not None
        ]
        effective = Metric(
            "effective_length",
            effective_length(curve, self._threshold),
            cases=len(case_scores),
            unscored=0,
            is_score=False,
        )
        return Summary(
            self.name,
            (mean("score", [*groups]), effective, *by_length, *by_task),
            tuple(case_scores),
            ratings=(),
            curve=tuple((length, estimate.value) for length, estimate in curve),
        )


def effective_length(curve: Sequence[tuple[int, Estimate]], threshold: float) -> Estimate:
    """Return the largest length up to which no score is below `threshold`; 0 if there is none.

    The interval has the effective lengths by the ends of the scores' intervals.
    """

    def largest(scores: Sequence[tuple[int, float]]) -> float:
        passed = 0
        for length, score in sorted(scores):
            if score < threshold:
                break
            passed = length
        return float(passed)

    return Estimate(
        largest([(length, estimate.value) for length, estimate in curve]),
        largest([(length, estimate.low) for length, estimate in curve]),
        largest([(length, estimate.high) for length, estimate in curve]),
        documents=len(curve),
    )
