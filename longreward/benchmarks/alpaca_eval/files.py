"""The library's own files: `model_outputs.json` and `annotations.json`, which its leaderboard reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longreward.benchmarks.alpaca_eval.cases import AlpacaCase
from longreward.benchmarks.types import Answer, Verdict
from longreward.chat_model import parse_logprobs
from longreward.utils.jsonl import open_atomic

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
    tops = [[{"token": t, "logprob": p} for t, p in token.items()] for token in answer.tokens]
    content = [{"token": answer.text, "top_logprobs": top} for top in tops]
    return {"text": answer.text, "logprobs": {"content": content} if content else None}


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with open_atomic(path) as file:
        file.write(json.dumps(rows, indent=2) + "\n")  # ASCII: half a surrogate pair is no UTF-8
