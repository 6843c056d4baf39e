"""The built-in corpus as files: `corpus.jsonl` in the published SFT format, `gold.jsonl` with the true answers.

    python -m longreward.builtin.corpus --out data/raw/builtin

    corpus.jsonl  {"idx": 7, "query": "Where was …?", "answer": <with faults>, "context": …, "document": "builtin-1-3"}
    gold.jsonl    {"idx": 7, "answer": <gold>, "facts": [["Mara Voss", "birthplace", "Kelden"]], "document_facts": […],
                   "scenery": […]}

Both files have the same rows in the same order. The answers of `corpus.jsonl` contain errors, as those of an imperfect
model (`questions.py`); only `gold.jsonl` has the true ones.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

from longreward.builtin.documents import make_document
from longreward.builtin.gold import GoldRow
from longreward.builtin.grammar import Fact
from longreward.builtin.questions import faulty_answer, format_question, gold_answer, sample_questions
from longreward.errors import DataError, StateError
from longreward.utils.jsonl import open_atomic, to_line

DOCUMENTS, QUESTIONS_PER_DOCUMENT = 500, 4
T = TypeVar("T")


@dataclass(frozen=True)
class WrittenCorpus:
    """The paths of the two files and the size of the corpus."""

    corpus: Path
    gold: Path
    documents: int
    rows: int


def write_corpus(
    folder: Path,
    *,
    seed: int = 1,
    documents: int = DOCUMENTS,
    questions_per_document: int = QUESTIONS_PER_DOCUMENT,
) -> WrittenCorpus:
    """Write both files to `folder`; the same arguments give the same bytes on every machine.

    Raises StateError if they cannot be written.
    """
    rows: list[dict[str, Any]] = []
    gold_rows: list[dict[str, Any]] = []
    for number in range(documents):
        document = make_document(f"builtin-{seed}-{number}")
        rng = random.Random(f"longreward questions {document.id}")
        for facts in sample_questions(rng, document, questions_per_document):
            rows.append(
                {
                    "idx": len(rows),
                    "query": format_question(facts),
                    "answer": faulty_answer(rng, document, facts),
                    "context": document.text,
                    "document": document.id,
                }
            )
            gold_rows.append(
                {
                    "idx": len(gold_rows),
                    "answer": gold_answer(facts),
                    "facts": [astuple(fact) for fact in facts],
                    "document_facts": [astuple(fact) for fact in (*document.facts, *document.background)],
                    "scenery": document.scenery,
                }
            )
    corpus = WrittenCorpus(folder / "corpus.jsonl", folder / "gold.jsonl", documents, len(rows))
    for path, lines in ((corpus.corpus, rows), (corpus.gold, gold_rows)):
        with open_atomic(path) as file:
            file.writelines(map(to_line, lines))
    return corpus


def read_gold(path: Path) -> dict[int, GoldRow]:
    """Return the rows of a `gold.jsonl` by their idx; raises DataError, with the line, for any other row."""
    return read_gold_rows(path, _gold_from_json)


def read_gold_rows(path: Path, parse: Callable[[dict[str, Any]], T]) -> dict[int, T]:
    """Return the parsed rows of a file of gold facts by their idx; raises DataError, with the line, for a bad row."""
    rows: dict[int, T] = {}
    try:
        # `splitlines` also splits at U+2028 and others, which a JSON string may contain.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows[row["idx"]] = parse(row)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not a row of gold.jsonl ({error!r})") from error
    return rows


def _gold_from_json(row: dict[str, Any]) -> GoldRow:
    return GoldRow(
        idx=row["idx"],
        answer=row["answer"],
        facts=tuple(Fact(*fact) for fact in row["facts"]),
        document_facts=tuple(Fact(*fact) for fact in row["document_facts"]),
        scenery=tuple(row["scenery"]),
    )


def run_corpus_command(parser: argparse.ArgumentParser, write: Callable[..., WrittenCorpus]) -> None:
    """Write a corpus and print its size; the options of the command are `--out` and parameters of `write`."""
    options = vars(parser.parse_args())
    try:
        written = write(options.pop("out"), **options)
    except StateError as error:
        sys.exit(str(error))
    print(f"{written.rows} questions on {written.documents} documents: {written.corpus}, {written.gold}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the built-in corpus.")
    parser.add_argument("--out", type=Path, required=True, help="folder for corpus.jsonl and gold.jsonl")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--questions-per-document", type=int, default=QUESTIONS_PER_DOCUMENT)
    run_corpus_command(parser, write_corpus)


if __name__ == "__main__":
    main()
