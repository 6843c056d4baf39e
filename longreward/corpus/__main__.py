"""`python -m longreward.corpus --out data/raw/builtin`: write the built-in corpus."""

import argparse
import sys
from pathlib import Path

from longreward.corpus.writing import DOCUMENTS, QUESTIONS_PER_DOCUMENT, write_corpus
from longreward.errors import StateError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m longreward.corpus", description="Write the built-in corpus.")
    parser.add_argument("--out", type=Path, required=True, help="folder for corpus.jsonl and gold.jsonl")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--questions-per-document", type=int, default=QUESTIONS_PER_DOCUMENT)
    arguments = parser.parse_args()
    try:
        written = write_corpus(
            arguments.out,
            seed=arguments.seed,
            documents=arguments.documents,
            questions_per_document=arguments.questions_per_document,
        )
    except StateError as error:
        sys.exit(str(error))
    print(f"{written.rows} questions on {written.documents} documents: {written.corpus}, {written.gold}")


if __name__ == "__main__":
    main()
