"""LongBench as its authors evaluate it: 21 sets, their own prompts, limits and metrics, greedy answers and no judge.

    <set>.jsonl            {"input", "context", "answers": [references], "length", "all_classes": [labels] or null, …}
    <set>_e.jsonl          the same for LongBench-E: thirteen sets with evenly distributed lengths
    dataset2prompt.json    {"qasper": "… {context} … {input} …", …}
    dataset2maxlen.json    {"qasper": 128, …}

The prediction files are those of LongBench's `pred.py`, so that its `eval.py` computes the same scores from them:

    longbench_official/pred/<model>/<set>.jsonl    {"pred", "answers", "all_classes", "length"}
    longbench_official/pred/<model>/result.json    {"qasper": 31.25, …}; `pred_e` and scores by length for LongBench-E

Source: Bai et al. 2023, "LongBench" (arXiv 2308.14508), and THUDM/LongBench.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal, get_args

from longreward.benchmarks.longbench.data import (
    LongBenchRecord,
    present_sets,
    read_numbered,
    read_template,
    substitute_slots,
)
from longreward.benchmarks.longbench.metrics import automatic_metric, metric_name
from longreward.benchmarks.longbench.sets import CLASSES, EXTENDED_SETS, SETS, SetName, class_weights
from longreward.benchmarks.metrics import macro_mean
from longreward.benchmarks.published_formats import parse_text, parse_texts, read_json, write_json
from longreward.benchmarks.types import (
    TOY_DATA,
    Answer,
    Benchmark,
    CaseScore,
    GenerationRequest,
    Message,
    Metric,
    Summary,
    Verdict,
    lower_limit,
)
from longreward.errors import DataError
from longreward.evaluation.statistics import IntervalOptions, Observation
from longreward.judge.prompts import Parsing
from longreward.utils.jsonl import Row, RowError, write_rows

TOY = TOY_DATA / "longbench_official"
SCALE = 100.0
BOUNDS = (0.0, SCALE)
FIRST_LINE_ONLY = frozenset(("trec", "triviaqa", "samsum", "lsht"))
"""Few-shot sets: a model that continues the pattern writes further examples after its answer."""
WITHOUT_CHAT_TEMPLATE = FIRST_LINE_ONLY | {"lcc", "repobench-p"}
LengthRange = Literal["0-4k", "4-8k", "8k+"]
LENGTH_RANGES: tuple[LengthRange, ...] = get_args(LengthRange)


@dataclass(frozen=True)
class OfficialCase(LongBenchRecord):
    """One record of one set."""

    template: str
    query: str  # empty in sets whose template has the question
    answers: tuple[str, ...]  # references; the best match counts
    labels: tuple[str, ...] | None  # all classes of a classification set
    length: int  # of the context, in words, or characters in Chinese sets

    @property
    def prompt(self) -> str:
        """The prompt for the model."""
        return substitute_slots(self.template, context=self.context, query=self.query)

    @property
    def length_range(self) -> LengthRange:
        """The range by which LongBench-E reports."""
        return LENGTH_RANGES[(self.length >= 4000) + (self.length >= 8000)]


class LongBenchOfficial(Benchmark[OfficialCase]):
    """LongBench or LongBench-E with its own protocol."""

    name = "longbench_official"
    files: ClassVar = {
        "folder": "data",
        "templates": "official/dataset2prompt.json",
        "limits": "official/dataset2maxlen.json",
    }
    max_score = SCALE
    uses_judge = False

    def __init__(
        self,
        *,
        folder: Path = TOY,
        templates: Path = TOY / "dataset2prompt.json",
        limits: Path = TOY / "dataset2maxlen.json",
        sets: Sequence[SetName] | None = None,
        extended: bool = False,
        temperature: float = 0.0,
        chat_template: Literal["published", "always"] = "published",
        max_new_tokens: int | None = None,
        parsing: Parsing = "strict",
    ) -> None:
        """Read the files.

        Args:
            folder: Contains `<set>.jsonl`, or `<set>_e.jsonl` if `extended`.
            sets: The sets to run; default: all that `folder` contains.
            extended: LongBench-E, with metrics by length.
            chat_template: `published`: the few-shot and code sets are continued without the model's chat template.
            parsing: Has no effect, because no judge's reply is parsed.
        """
        suffix = "_e" if extended else ""
        names = sets if sets is not None else present_sets(folder, EXTENDED_SETS if extended else (*SETS,), suffix)
        maxima = read_json(limits)
        self.cases: list[OfficialCase] = []
        self._max_new_tokens: dict[SetName, int] = {}
        for name in names:
            limit = maxima.get(name) if isinstance(maxima, Mapping) else None
            if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
                raise DataError(f"{limits}: the limit of {name} is {limit!r}, expected a number of tokens")
            self._max_new_tokens[name] = lower_limit(limit, max_new_tokens)
            parse = partial(_parse_case, name=name, template=read_template(templates, name))
            self.cases += read_numbered(folder / f"{name}{suffix}.jsonl", parse)
        self._cases_by_id = {case.id: case for case in self.cases}
        self._extended, self._temperature = extended, temperature
        self._always_chat = chat_template == "always"
        self.official = folder != TOY and temperature == 0 and max_new_tokens is None and not self._always_chat

    def request(self, case: OfficialCase) -> GenerationRequest:
        return GenerationRequest(
            f"{self.name}/{case.id}",
            (Message("user", case.prompt),),
            self._temperature,
            self._max_new_tokens[case.dataset],
            seed=42,
            chat=self._always_chat or case.dataset not in WITHOUT_CHAT_TEMPLATE,
        )

    def question_and_document(self, case: OfficialCase) -> tuple[str, str | None]:
        """Return the input and the context; the set's template, with its slot {context}, where there is no input."""
        return case.query.strip() or case.template, case.context

    def case_score(self, case: OfficialCase, answer: Answer) -> float:
        """Return the metric of the case's set, from 0 to 100."""
        text = answer.turns[0]
        if case.dataset in FIRST_LINE_ONLY:
            text = text.lstrip("\n").split("\n")[0]
        return SCALE * automatic_metric(SETS[case.dataset], text, case.answers, case.labels or ())

    def summarize(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], options: IntervalOptions) -> Summary:
        """Return `score` (mean over the classes), `class/<class>` and `set/<set>/<metric>`, means over their sets, and
        for LongBench-E `length/<range>`, means over the sets that have such cases."""
        scored = [(case := self._cases_by_id[answer.case_id], self.case_score(case, answer)) for answer in answers]
        sets = [name for name in SETS if any(case.dataset == name for case, _ in scored)]
        by_set: dict[SetName, list[Observation]] = {name: [] for name in sets}
        by_length: dict[str, dict[str, list[Observation]]] = {name: {} for name in LENGTH_RANGES}
        for case, score in scored:
            by_set[case.dataset].append((case.id, score))
            by_length[case.length_range].setdefault(case.dataset, []).append((case.id, score))
        groups = {"score": sets}
        for class_name in CLASSES:
            if members := [name for name in sets if SETS[name].class_name == class_name]:
                groups[f"class/{class_name}"] = members
        groups |= {f"set/{name}/{metric_name(SETS[name])}": [name] for name in sets}
        metrics = [
            _mean_metric(title, {name: by_set[name] for name in members}, options, class_weights(members))
            for title, members in groups.items()
        ]
        if self._extended:
            metrics += [
                _mean_metric(f"length/{title}", values, options) for title, values in by_length.items() if values
            ]
        prompt_tokens = {answer.case_id: answer.prompt_tokens[0] for answer in answers}
        case_scores = (CaseScore(case.id, case.dataset, prompt_tokens[case.id], score) for case, score in scored)
        return Summary(self.name, tuple(metrics), tuple(case_scores), ratings=())

    def write_files(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """Write `<set>.jsonl` and `result.json` below `longbench_official/pred/<model>` (LongBench-E: `pred_e`)."""
        model = model.rstrip("/").split("/")[-1]
        folder = folder / self.name / ("pred_e" if self._extended else "pred") / model
        results: dict[str, Any] = {}
        texts = {answer.case_id: answer for answer in answers}
        for name in self._max_new_tokens:
            cases = [case for case in self.cases if case.dataset == name and case.id in texts]
            if not cases:
                continue
            rows = (
                {
                    "pred": texts[case.id].turns[0],
                    "answers": [*case.answers],
                    "all_classes": None if case.labels is None else [*case.labels],
                    "length": case.length,
                }
                for case in cases
            )
            write_rows(folder / f"{name}.jsonl", rows)
            scores = [(case.length_range, self.case_score(case, texts[case.id])) for case in cases]
            groups = {key: [score for length, score in scores if length == key] for key in LENGTH_RANGES}
            means = {key: round(fmean(group), 2) if group else None for key, group in groups.items()}
            results[name] = means if self._extended else round(fmean(score for _, score in scores), 2)
        write_json(folder / "result.json", results)


def _mean_metric(
    name: str,
    groups: Mapping[str, Sequence[Observation]],
    options: IntervalOptions,
    weights: Mapping[str, float] | None = None,
) -> Metric:
    estimate = macro_mean(groups, options, weights=weights, bounds=BOUNDS)
    return Metric(name, estimate, cases=sum(map(len, groups.values())), unscored=0)


def _parse_case(row: Row, *, name: SetName, template: str) -> OfficialCase:
    """Parse one record, without its number."""
    labels = parse_texts(row, "all_classes") if SETS[name].metric == "classification" else None
    length = row.get("length")
    if not isinstance(length, int) or isinstance(length, bool):
        raise RowError(f"length is {length!r}, expected a whole number")
    context, query = parse_text(row, "context"), parse_text(row, "input")
    answers = parse_texts(row, "answers")
    return OfficialCase(name, 0, template, query, answers, labels, length, read_context=lambda: context)
