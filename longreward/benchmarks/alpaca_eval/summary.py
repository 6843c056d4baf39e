"""AlpacaEval's figures: win rates, weighted and by counting, raw and under equal lengths."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from longreward.benchmarks.alpaca_eval.data import AlpacaCase
from longreward.benchmarks.alpaca_eval.length_control import AnswerLengths, GamedBaselines, length_controlled
from longreward.benchmarks.metrics import mean_estimate, verdict_metric
from longreward.benchmarks.types import Answer, CaseValue, IntervalOptions, Metric, Summary, Verdict
from longreward.chat_model import parse_logprobs
from longreward.evaluation.statistics import Estimate
from longreward.utils.jsonl import open_atomic

SCALE = 100.0
BOUNDS = (0.0, SCALE)
Mode = Literal["exact", "strict"]


def summarise(
    name: str,
    cases: Mapping[str, AlpacaCase],
    gamed: GamedBaselines | None,
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    intervals: IntervalOptions,
) -> Summary:
    """The headline is the win rate; `length_controlled` (or `…_minimal`) stands beside it where it can be fitted."""
    said = {answer.case_id: answer for answer in answers}
    whole = verdict_metric("win_rate", verdicts, intervals, scale=SCALE, bounds=BOUNDS)
    unscored = whole.unscored
    figures = [whole]
    modes: tuple[Mode, Mode] = ("exact", "strict")
    fits = _controlled(cases, gamed, said, verdicts, intervals)
    if any(fits):
        title = "length_controlled" if gamed is not None else "length_controlled_minimal"
        figures.append(Metric(title, fits[0], fits[1], cases=whole.cases, unscored=unscored))
    counted = [
        mean_estimate(
            [(v.case_id, SCALE * _discrete(share)) for v in verdicts if (share := _share(v, m)) is not None],
            intervals,
            bounds=BOUNDS,
        )
        for m in modes
    ]
    figures.append(Metric("discrete_win_rate", counted[0], counted[1], cases=whole.cases, unscored=unscored))
    length = mean_estimate([(answer.case_id, float(len(answer.turns[0]))) for answer in answers], intervals)
    figures.append(Metric("length", length, length, cases=len(answers), unscored=0))
    bare = [v for v in verdicts if not v.more["identical"]]
    without = mean_estimate([(v.case_id, SCALE * (not v.more["weighed"])) for v in bare], intervals, bounds=BOUNDS)
    figures.append(Metric("without_probabilities", without, without, cases=len(bare), unscored=0))
    scored = [(verdict, verdict.strict) for verdict in verdicts if verdict.strict is not None]
    return Summary(
        name,
        tuple(figures),
        tuple(
            CaseValue(v.case_id, cases[v.case_id].category, said[v.case_id].prompt_tokens[0], SCALE * share)
            for v, share in scored
        ),
        tuple(1 + share for _, share in scored),
    )


def _controlled(
    cases: Mapping[str, AlpacaCase],
    gamed: GamedBaselines | None,
    said: Mapping[str, Answer],
    verdicts: Sequence[Verdict],
    intervals: IntervalOptions,
) -> tuple[Estimate | None, Estimate | None]:
    """The length-controlled rate under both readings, which are one fit where the readings are equal."""
    ordered = sorted(verdicts, key=lambda verdict: cases[verdict.case_id].index)

    def of(mode: Mode) -> Estimate | None:
        measured = [
            AnswerLengths(case.index, len(case.output), len(said[case.id].turns[0]), _share(verdict, mode))
            for verdict in ordered
            for case in [cases[verdict.case_id]]
        ]
        return length_controlled(measured, gamed, intervals)

    exact = of("exact")
    return exact, exact if all(each.exact == each.strict for each in verdicts) else of("strict")


def _share(verdict: Verdict, mode: Mode) -> float | None:
    return verdict.exact if mode == "exact" else verdict.strict


def _discrete(share: float) -> float:
    """A win, a loss, or half of each.

    >>> _discrete(0.51), _discrete(0.5), _discrete(0.2)
    (1.0, 0.5, 0.0)
    """
    return 0.5 if share == 0.5 else float(share > 0.5)


# The library's own files: `model_outputs.json` and `annotations.json`, which its leaderboard reads.


ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"


def write(
    folder: Path,
    cases: Mapping[str, AlpacaCase],
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    *,
    model: str,
) -> None:
    """`<model>/model_outputs.json` and `<model>/<annotator>/annotations.json`, in the order of the instructions.

    The annotator has the published one's name where its prompt was used, else it is called `longreward`.
    """
    said = {answer.case_id: answer.turns[0] for answer in answers}
    told = [case for case in cases.values() if case.id in said]
    outputs = [
        {"dataset": c.dataset, "instruction": c.instruction, "output": said[c.id], "generator": model} for c in told
    ]
    place = folder / model.replace("/", "_")
    _write(place / "model_outputs.json", outputs)
    judged = {verdict.case_id: verdict for verdict in verdicts}
    official = bool(verdicts) and all(verdict.more["official"] for verdict in verdicts)
    annotator = ANNOTATOR if official else "longreward"
    rows = [_annotation(c, said[c.id], judged[c.id], annotator, model) for c in told if c.id in judged]
    _write(place / annotator / "annotations.json", rows)


def _annotation(case: AlpacaCase, output: str, verdict: Verdict, annotator: str, model: str) -> dict[str, Any]:
    return {
        "instruction": case.instruction,
        "output_1": case.output,
        "generator_1": case.generator,
        "dataset": case.dataset,
        "output_2": output,
        "generator_2": model,
        "annotator": annotator,
        "preference": verdict.more["preference"],
        "preference_price_per_example": None,
        "preference_time_per_example": None,
        "preference_raw_completion": _completion(verdict.judgment) if verdict.judgment else None,
    }


def _completion(judgment: str) -> dict[str, Any]:
    """As the library keeps a choice of the OpenAI protocol, which it can read anew."""
    answer = parse_logprobs(judgment)
    tops = [[{"token": t, "logprob": p} for t, p in token.items()] for token in answer.top_logprobs]
    content = [{"token": answer.text, "top_logprobs": top} for top in tops]
    return {"text": answer.text, "logprobs": {"content": content} if content else None}


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with open_atomic(path) as file:
        file.write(json.dumps(rows, indent=2) + "\n")  # ASCII: half a surrogate pair is no UTF-8
