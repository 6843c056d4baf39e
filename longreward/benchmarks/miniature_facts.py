"""The built-in AlpacaEval and FactScore: questions about societies that never were, in the published files' formats.

    python -m longreward.benchmarks.miniature_facts   # writes builtin/alpaca_eval and builtin/factscore anew

AlpacaEval's instructions hold a short register with their question, and the baseline's answers some of its facts.
`df_gamed.csv` is drawn, not measured: it is there so that the whole of the length control runs. The same bytes on every
machine.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from longreward.corpus.documents import make_document
from longreward.corpus.grammar import Fact
from longreward.corpus.questions import absent_value, ask, draw_questions, gold_answer
from longreward.jsonl import to_line

FOLDER = Path(__file__).parent / "builtin"
INSTRUCTIONS, QUESTIONS = 16, 8
COLUMNS = ("index", "model", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline")


def write(folder: Path) -> None:
    """All files of both, below `folder`."""
    cases = [_instruction(number) for number in range(INSTRUCTIONS)]
    _write(folder / "alpaca_eval/alpaca_eval_gpt4_baseline.json", json.dumps(cases, indent=1) + "\n")
    _write(folder / "alpaca_eval/df_gamed.csv", "\n".join([",".join(COLUMNS), *_gamed()]) + "\n")
    _write(folder / "factscore/cases.jsonl", "".join(_question(number) for number in range(1, QUESTIONS + 1)))


def _instruction(number: int) -> dict[str, str]:
    document = make_document(f"alpaca-eval-{number}", people=3, facts_per_person=4, scenes=1)
    rng = random.Random(f"longreward alpaca-eval {number}")
    (facts,) = draw_questions(rng, document, 1)
    told = [
        fact if rng.random() < 0.7 else Fact(fact.subject, fact.relation, absent_value(rng, document, fact.relation))
        for fact in facts
    ]
    return {
        "dataset": f"registers_{1 + number % 2}",
        "instruction": f"{document.text}\n\n{ask(facts)}",
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
    facts = next(facts for facts in draw_questions(rng, document, 8) if len(facts) >= 2)
    return to_line({"idx": str(number), "context": document.text, "query": ask(facts), "answer": gold_answer(facts)})


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(FOLDER)
