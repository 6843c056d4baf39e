"""Toy versions of LongBench-Chat, LongBench, AlpacaEval and FactScore, in the formats of the published files.

    python -m longreward.builtin.toy_data      # writes builtin/benchmarks again, with the same bytes on every machine

The corpus's generator makes them from documents that are in no training data. LongBench-Chat has longer documents and
three example answers with scores by the share of right facts; LongBench has a few records of one data set of each
class. AlpacaEval's instructions contain a short register with their question, and the baseline's answers some of its
facts; its `df_gamed.csv` is random, so that the length-controlled win rate can be computed.
"""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from longreward.builtin.documents import Document, make_document
from longreward.builtin.grammar import Fact
from longreward.builtin.questions import (
    format_question,
    gold_answer,
    sample_questions,
    with_wrong_value,
)
from longreward.utils.jsonl import to_line

FOLDER = Path(__file__).parent / "benchmarks"
LONGBENCH_CHAT_CASES, LONGBENCH_RECORDS, ALPACA_EVAL_CASES, FACTSCORE_CASES = 12, 4, 16, 8
LONGBENCH_TEMPLATES = {
    "multifieldqa_en": "{context}\n\n{input}",
    "hotpotqa": "{context}\n\n{input}",
    "multi_news": "{context}\n\nWhat did the members of this society do, and when was it?",
}
GAMED_COLUMNS = ("index", "model", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline")


def write_toy_data(folder: Path) -> None:
    """Write the files of all toy benchmarks to `folder`."""
    cases, shots = zip(*(_chat_case(number) for number in range(1, LONGBENCH_CHAT_CASES + 1)), strict=True)
    _write_json(folder / "longbench_chat/test_cases.json", cases)
    _write_json(folder / "longbench_chat/few_shots.json", shots)
    _write_json(folder / "longbench/dataset2prompt.json", LONGBENCH_TEMPLATES)
    data_sets = (
        ("multifieldqa_en", _single_document_rows()),
        ("hotpotqa", _multi_document_rows()),
        ("multi_news", _summary_rows()),
    )
    for name, rows in data_sets:
        lines = (to_line(_longbench_record(name, number, *row)) for number, row in enumerate(rows, start=1))
        _write(folder / f"longbench/{name}.jsonl", "".join(lines))
    alpaca_eval = [_alpaca_eval_case(number) for number in range(ALPACA_EVAL_CASES)]
    _write(folder / "alpaca_eval/alpaca_eval_gpt4_baseline.json", json.dumps(alpaca_eval, indent=1) + "\n")
    _write(folder / "alpaca_eval/df_gamed.csv", "\n".join([",".join(GAMED_COLUMNS), *_gamed_rows()]) + "\n")
    factscore = (to_line(_factscore_case(number)) for number in range(1, FACTSCORE_CASES + 1))
    _write(folder / "factscore/cases.jsonl", "".join(factscore))


def _chat_case(number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a case, and answers in which all, some and none of the facts are right."""
    document = make_document(f"longbench-chat-{number}", people=10, scenes=4)
    rng = random.Random(f"longreward longbench-chat {number}")
    facts = next(facts for facts in sample_questions(rng, document, 8) if len(facts) >= 2)
    counts = (len(facts), rng.randrange(1, len(facts)), 0)
    answers = [
        {"answer": _partly_wrong_answer(rng, document, facts, right=right), "score": 1 + round(9 * right / len(facts))}
        for right in counts
    ]
    query = format_question(facts)
    case = {"idx": number, "prompt": f"{document.text}\n\n{query}", "query": query, "answer": gold_answer(facts)}
    return case, answers


def _partly_wrong_answer(rng: random.Random, document: Document, facts: Sequence[Fact], *, right: int) -> str:
    return gold_answer([*facts[:right], *(with_wrong_value(rng, document, fact) for fact in facts[right:])])


def _single_document_rows() -> Iterator[tuple[str, str, list[str]]]:
    """Yield question, context and references: a fact of a document, as a sentence and as a value."""
    for number in range(1, LONGBENCH_RECORDS + 1):
        document = make_document(f"longbench-single-{number}")
        fact = random.Random(number).choice(document.facts)
        yield format_question([fact]), document.text, [fact.sentence, fact.value]


def _multi_document_rows() -> Iterator[tuple[str, str, list[str]]]:
    """Yield questions about a fact of each of two documents."""
    for number in range(1, LONGBENCH_RECORDS + 1):
        documents = [make_document(f"longbench-multi-{number}-{part}", people=4) for part in (1, 2)]
        facts = [random.Random(number).choice(document.facts) for document in documents]
        passages = [f"Passage {n}:\n{document.text}" for n, document in enumerate(documents, start=1)]
        yield format_question(facts), "\n".join(passages), [gold_answer(facts)]


def _summary_rows() -> Iterator[tuple[str, str, list[str]]]:
    """Yield documents without a question; the reference summary is the first fact of each member."""
    for number in range(1, LONGBENCH_RECORDS + 1):
        document = make_document(f"longbench-news-{number}")
        first_facts = {fact.subject: fact for fact in reversed(document.facts)}
        yield "", document.text, [gold_answer([first_facts[name] for name in document.people])]


def _longbench_record(name: str, number: int, query: str, context: str, answers: Sequence[str]) -> dict[str, Any]:
    return {
        "input": query,
        "context": context,
        "answers": list(answers),
        "length": len(context.split()),
        "dataset": name,
        "language": "en",
        "all_classes": None,
        "_id": f"{name}-{number}",
    }


def _alpaca_eval_case(number: int) -> dict[str, str]:
    document = make_document(f"alpaca-eval-{number}", people=3, facts_per_person=4, scenes=1)
    rng = random.Random(f"longreward alpaca-eval {number}")
    (facts,) = sample_questions(rng, document, 1)
    stated = [fact if rng.random() < 0.7 else with_wrong_value(rng, document, fact) for fact in facts]
    return {
        "dataset": f"registers_{1 + number % 2}",
        "instruction": f"{document.text}\n\n{format_question(facts)}",
        "output": gold_answer(stated),
        "generator": "longreward_baseline",
    }


def _gamed_rows() -> Iterator[str]:
    rng = random.Random("longreward alpaca-eval gamed")
    difficulties = [rng.gauss(0, 1) for _ in range(ALPACA_EVAL_CASES)]
    for model, shift in (("longreward_baseline_concise", 1.0), ("longreward_baseline_verbose", -1.0)):
        for index, difficulty in enumerate(difficulties):
            length = rng.gauss(shift, 0.5)
            preference = min(1.0, max(0.0, 0.5 - 0.2 * length + rng.gauss(0, 0.1)))
            yield f"{index},{model},{preference:.4f},{length:.4f},{difficulty:.4f},False"


def _factscore_case(number: int) -> dict[str, str]:
    document = make_document(f"factscore-{number}", people=8, scenes=4)
    rng = random.Random(f"longreward factscore {number}")
    facts = next(facts for facts in sample_questions(rng, document, 8) if len(facts) >= 2)
    query, answer = format_question(facts), gold_answer(facts)
    return {"idx": str(number), "context": document.text, "query": query, "answer": answer}


def _write_json(path: Path, value: Any) -> None:
    _write(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write_toy_data(FOLDER)
