"""The built-in LongBench-Chat and LongBench: registers of societies that never were, in the published files' formats.

    python -m longreward.builtin.toy_data      # writes builtin/longbench_chat and builtin/longbench anew

They are made by the built-in corpus's generator from documents that no training sees: longer ones for LongBench-Chat,
with three example answers that are scored by how many of the asked facts they give; a few records of one set of each
class for LongBench. The same bytes on every machine.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from longreward.builtin.documents import Document, make_document
from longreward.builtin.grammar import Fact
from longreward.builtin.questions import absent_value, format_question, gold_answer, sample_questions
from longreward.utils.jsonl import to_line

FOLDER = Path(__file__).parent / "benchmarks"
CASES, PEOPLE, RECORDS = 12, 10, 4
TEMPLATES = {
    "multifieldqa_en": "{context}\n\n{input}",
    "hotpotqa": "{context}\n\n{input}",
    "multi_news": "{context}\n\nWhat did the members of this society do, and when was it?",
}


def write_longbench(folder: Path) -> None:
    """All files of both, below `folder`."""
    cases, shots = zip(*(_chat_case(number) for number in range(1, CASES + 1)), strict=True)
    _write_longbench(folder / "longbench_chat" / "test_cases.json", _json(cases))
    _write_longbench(folder / "longbench_chat" / "few_shots.json", _json(shots))
    _write_longbench(folder / "longbench" / "dataset2prompt.json", _json(TEMPLATES))
    for name, rows in (("multifieldqa_en", _single()), ("hotpotqa", _multi()), ("multi_news", _news())):
        lines = (to_line(_record(name, place, *row)) for place, row in enumerate(rows, start=1))
        _write_longbench(folder / "longbench" / f"{name}.jsonl", "".join(lines))


def _chat_case(number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A case, and its answers of which all, some and none of the facts are right."""
    document = make_document(f"longbench-chat-{number}", people=PEOPLE, scenes=4)
    rng = random.Random(f"longreward longbench-chat {number}")
    facts = next(facts for facts in sample_questions(rng, document, 8) if len(facts) >= 2)
    right = rng.randrange(1, len(facts))
    answers = [_answer(rng, document, facts, right=share) for share in (len(facts), right, 0)]
    scores = [1 + round(9 * share / len(facts)) for share in (len(facts), right, 0)]
    query = format_question(facts)
    case = {"idx": number, "prompt": f"{document.text}\n\n{query}", "query": query, "answer": gold_answer(facts)}
    return case, [{"answer": a, "score": s} for a, s in zip(answers, scores, strict=True)]


def _answer(rng: random.Random, document: Document, facts: Sequence[Fact], *, right: int) -> str:
    told = [
        fact if place < right else Fact(fact.subject, fact.relation, absent_value(rng, document, fact.relation))
        for place, fact in enumerate(facts)
    ]
    return gold_answer(told)


def _single() -> Iterator[tuple[str, str, list[str]]]:
    """Question, context, references: one fact of one document, as a sentence or bare."""
    for number in range(1, RECORDS + 1):
        fact = random.Random(number).choice((document := make_document(f"longbench-single-{number}")).facts)
        yield format_question([fact]), document.text, [fact.sentence, fact.value]


def _multi() -> Iterator[tuple[str, str, list[str]]]:
    """A fact of each of two documents."""
    for number in range(1, RECORDS + 1):
        documents = [make_document(f"longbench-multi-{number}-{part}", people=4) for part in (1, 2)]
        facts = [random.Random(number).choice(document.facts) for document in documents]
        passages = [f"Passage {n}:\n{document.text}" for n, document in enumerate(documents, start=1)]
        yield format_question(facts), "\n".join(passages), [gold_answer(facts)]


def _news() -> Iterator[tuple[str, str, list[str]]]:
    """No question, and as a summary the first fact of each member."""
    for number in range(1, RECORDS + 1):
        document = make_document(f"longbench-news-{number}")
        first = {fact.subject: fact for fact in reversed(document.facts)}
        yield "", document.text, [gold_answer([first[name] for name in document.people])]


def _record(name: str, place: int, query: str, context: str, answers: Sequence[str]) -> dict[str, Any]:
    return {
        "input": query,
        "context": context,
        "answers": list(answers),
        "length": len(context.split()),
        "dataset": name,
        "language": "en",
        "all_classes": None,
        "_id": f"{name}-{place}",
    }


def _json(value: Sequence[Any] | Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def _write_longbench(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write_longbench(FOLDER)


# The built-in AlpacaEval and FactScore: questions about societies that never were, in the published files' formats.
#
#     python -m longreward.builtin.toy_data   # writes builtin/alpaca_eval and builtin/factscore anew
#
# AlpacaEval's instructions hold a short register with their question, and the baseline's answers some of its facts.
# `df_gamed.csv` is drawn, not measured: it is there so that the whole of the length control runs. The
# same bytes on every machine.


INSTRUCTIONS, QUESTIONS = 16, 8
COLUMNS = ("index", "model", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline")


def write_alpaca_and_factscore(folder: Path) -> None:
    """All files of both, below `folder`."""
    cases = [_instruction(number) for number in range(INSTRUCTIONS)]
    _write(folder / "alpaca_eval/alpaca_eval_gpt4_baseline.json", json.dumps(cases, indent=1) + "\n")
    _write(folder / "alpaca_eval/df_gamed.csv", "\n".join([",".join(COLUMNS), *_gamed()]) + "\n")
    _write(folder / "factscore/cases.jsonl", "".join(_question(number) for number in range(1, QUESTIONS + 1)))


def _instruction(number: int) -> dict[str, str]:
    document = make_document(f"alpaca-eval-{number}", people=3, facts_per_person=4, scenes=1)
    rng = random.Random(f"longreward alpaca-eval {number}")
    (facts,) = sample_questions(rng, document, 1)
    told = [
        fact if rng.random() < 0.7 else Fact(fact.subject, fact.relation, absent_value(rng, document, fact.relation))
        for fact in facts
    ]
    return {
        "dataset": f"registers_{1 + number % 2}",
        "instruction": f"{document.text}\n\n{format_question(facts)}",
        "output": gold_answer(told),
        "generator": "longreward_baseline",
    }


def _gamed() -> Iterator[str]:
    rng = random.Random("longreward alpaca-eval gamed")
    hard = [rng.gauss(0, 1) for _ in range(INSTRUCTIONS)]
    for model, shift in (("longreward_baseline_concise", 1.0), ("longreward_baseline_verbose", -1.0)):
        for index in range(INSTRUCTIONS):
            longer = rng.gauss(shift, 0.5)
            preference = min(1.0, max(0.0, 0.5 - 0.2 * longer + rng.gauss(0, 0.1)))
            yield f"{index},{model},{preference:.4f},{longer:.4f},{hard[index]:.4f},False"


def _question(number: int) -> str:
    document = make_document(f"factscore-{number}", people=8, scenes=4)
    rng = random.Random(f"longreward factscore {number}")
    facts = next(facts for facts in sample_questions(rng, document, 8) if len(facts) >= 2)
    return to_line(
        {"idx": str(number), "context": document.text, "query": format_question(facts), "answer": gold_answer(facts)}
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write_alpaca_and_factscore(FOLDER)
