"""The natural corpus as files, for real models: `corpus.jsonl` and `gold.jsonl` as those of the built-in corpus.

    python -m longreward.builtin.natural_corpus --out data/raw/natural --train 300 --heldout 100

    corpus.jsonl  {"idx": 7, "query": …, "answer": <gold>, "context": …, "document": "train-field_notes-1-1"}
    gold.jsonl    {"idx": 7, "kind": "two", "genre": "field_notes", "query": …, "answer": …, "context": …,
                   "people": […], "facts": [{"subject": …, "attribute": …, "value": "43", …}], "document_facts": […]}

Both files have the same rows in the same order. Documents whose name begins with `heldout-` share no name, value or
question with the others; `prepare.heldout_documents: heldout-*` keeps them apart. Unlike the built-in corpus, the
answers have no faults: a real model makes its own.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from longreward.builtin.corpus import QUESTIONS_PER_DOCUMENT, WrittenCorpus, read_gold_rows, run_corpus_command
from longreward.builtin.natural_documents import (
    QUESTION_KINDS,
    NaturalDocument,
    NaturalQuestion,
    QuestionKind,
    make_natural_document,
)
from longreward.builtin.natural_gold import NaturalGoldRow, natural_row_from_json
from longreward.builtin.natural_values import Split
from longreward.utils.jsonl import open_atomic, to_line

TRAIN_DOCUMENTS, HELD_OUT_DOCUMENTS = 300, 100


def write_natural_corpus(
    folder: Path,
    *,
    seed: int = 1,
    train: int = TRAIN_DOCUMENTS,
    heldout: int = HELD_OUT_DOCUMENTS,
    questions_per_document: int = QUESTIONS_PER_DOCUMENT,
    kinds: Sequence[QuestionKind] = QUESTION_KINDS,
) -> WrittenCorpus:
    """Write both files to `folder`; the same arguments give the same bytes on every machine.

    Args:
        train: Number of documents for training.
        heldout: Number of documents for `evaluate`.
        kinds: Kinds of questions; a document has one of each in turn.

    Raises StateError if the files cannot be written.
    """
    sizes: dict[Split, int] = {"train": train, "heldout": heldout}
    rows: list[dict[str, Any]] = []
    gold_rows: list[dict[str, Any]] = []
    for split, number in ((split, number) for split, size in sizes.items() for number in range(size)):
        document = make_natural_document(split, number, seed=seed)
        for question in sample_natural_questions(document, questions_per_document, kinds):
            idx, asked = len(rows), {"query": question.query, "answer": question.answer, "context": document.text}
            rows.append({"idx": idx, **asked, "document": document.id})
            gold_rows.append(
                {
                    "idx": idx,
                    "kind": question.kind,
                    "genre": document.genre,
                    **asked,
                    "people": document.people,
                    "facts": [asdict(fact) for fact in question.facts],
                    "document_facts": [asdict(fact) for fact in document.facts],
                }
            )
    corpus = WrittenCorpus(folder / "corpus.jsonl", folder / "gold.jsonl", train + heldout, len(rows))
    for path, lines in ((corpus.corpus, rows), (corpus.gold, gold_rows)):
        with open_atomic(path) as file:
            file.writelines(map(to_line, lines))
    return corpus


def sample_natural_questions(
    document: NaturalDocument, count: int, kinds: Sequence[QuestionKind] = QUESTION_KINDS
) -> list[NaturalQuestion]:
    """Return up to `count` different questions, going through the kinds in turn."""
    rng = random.Random(f"longreward natural questions {document.id}")
    by_kind = {
        kind: rng.sample(pool, len(pool))
        for kind in kinds
        for pool in [[question for question in document.questions if question.kind == kind]]
    }
    questions: list[NaturalQuestion] = []
    while len(questions) < count and any(by_kind.values()):
        for kind in kinds:
            if by_kind[kind] and len(questions) < count:
                questions.append(by_kind[kind].pop())
    return questions


def read_natural_gold(path: Path) -> dict[int, NaturalGoldRow]:
    """Return the rows of the natural corpus's `gold.jsonl` by their idx; raises DataError, with the line."""
    return read_gold_rows(path, natural_row_from_json)


def is_natural_gold(path: Path) -> bool:
    """Return whether the first row of a file of gold facts is one of the natural corpus."""
    try:
        with path.open(encoding="utf-8") as file:
            return "context" in json.loads(file.readline())
    except (OSError, ValueError, TypeError, RecursionError):
        return False  # the reader of the built-in corpus reports what is wrong


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the natural corpus.")
    parser.add_argument("--out", type=Path, required=True, help="folder for corpus.jsonl and gold.jsonl")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", type=int, default=TRAIN_DOCUMENTS, help="documents for training")
    parser.add_argument("--heldout", type=int, default=HELD_OUT_DOCUMENTS, help="held-out documents")
    parser.add_argument("--questions-per-document", type=int, default=QUESTIONS_PER_DOCUMENT)
    parser.add_argument("--kinds", nargs="+", choices=get_args(QuestionKind), default=QUESTION_KINDS)
    run_corpus_command(parser, write_natural_corpus)


if __name__ == "__main__":
    main()
