"""Evidence for paraphrased statements in a real document, with real embeddings (all-mpnet-base-v2)."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from longreward.retrieval import RetrieverConfig, open_retriever
from longreward.retrieval.chunking import split_text
from longreward.utils.token_spans import SimpleTokenizer

pytestmark = pytest.mark.real

# A quote that locates the evidence in the document of the published example (line breaks and spaces are equal), and a
# statement in other words. Passages were sampled at equal distances, before any retriever was run.
STATEMENTS = [
    ("neglected, abused, hungry", "Many pupils arrive without having been looked after at home and cannot work well."),
    (
        "integrate and modify skills to",
        "Experienced practitioners adapt their techniques and later invent some of their own.",
    ),
    (
        "used to merge the two concepts",
        "The author joins looking at oneself and questioning one's work under one name.",
    ),
    ("a matter of `stance and dance", "Another scholar compares the attitude of such a teacher with a dance."),
    (
        "to be fair is to be inconsistent",
        "Justice may require that a teacher does not treat every case in the same way.",
    ),
    ("culturally and personally `sculpted", "What we live through is shaped by our background and can mislead us."),
    (
        "inevitable uncertainties, dilemmas",
        "Educators should set aside quiet hours to think over hard everyday choices.",
    ),
    ("tool for examining personal biases", "Keeping a diary helps to notice prejudices towards pupils."),
    (
        "viewing life in the classroom as beyond",
        "Those who never question themselves feel that events in class are a matter of luck.",
    ),
    (
        "better positioned to challenge current",
        "Staff who served the institution well are taken more seriously when they criticise it.",
    ),
    ("process is not prescriptive in nature", "There are no fixed rules for looking inward."),
    ("aggression as a cry for help", "An attack by a pupil can be understood as a request for support."),
    (
        "the sight of a snake",
        "People react to a reptile with fear or with delight, depending on their history with it.",
    ),
    ("operate on `automatic pilot", "Without thinking, instructors may answer rudely and make a quarrel worse."),
    (
        "the channel to changing beliefs is",
        "Convictions cannot be altered straight away, only by looking at what is taken for granted.",
    ),
    ("picture of the perfect teacher", "Trying to be flawless causes much of the strain in this job."),
    ("level embodies core beliefs", "The most basic layer holds religion, ethics and ideas about the meaning of life."),
    (
        "student is not acting against me",
        "Misconduct should not be taken as a personal attack, because it comes from needs.",
    ),
    ("desire to revert to the familiar", "When old convictions fall away, people want to return to what they know."),
    ("look for a ready-made solution", "Some people escape from doubt by adopting somebody else's recipe."),
]


@pytest.fixture(scope="module")
def document() -> str:
    if "LONGREWARD_REFERENCE" not in os.environ:
        pytest.skip("LONGREWARD_REFERENCE names no folder with the published example")
    path = Path(os.environ["LONGREWARD_REFERENCE"]) / "longreward" / "sft.jsonl"
    return str(json.loads(path.read_text(encoding="utf-8").splitlines()[0])["context"])


async def count_hits(document: str, ledger: Path, **fields: Any) -> int:
    """Return for how many statements a chunk with the evidence is among the first five."""
    chunks = split_text(document, 128, SimpleTokenizer())
    retriever = open_retriever(RetrieverConfig(**fields), ledger=ledger)
    index = retriever.index([document[chunk.start : chunk.end] for chunk in chunks])
    results = await index.search([statement for _, statement in STATEMENTS], 5)
    await retriever.close()
    hits = 0
    for (quote, _), numbers in zip(STATEMENTS, results, strict=True):
        match = re.search(r"\s+".join(map(re.escape, quote.split())), document)
        assert match is not None, quote
        hits += any(chunks[n].start < match.end() and chunks[n].end > match.start() for n in numbers)
    return hits


async def test_embeddings_and_hybrid_retrieve_more_paraphrases_than_bm25(
    model_path: Any, document: str, tmp_path: Path
) -> None:
    model = {"model": str(model_path("mpnet")), "device": "cpu"}
    ledger = tmp_path / "ledger.sqlite"
    bm25 = await count_hits(document, ledger)
    embeddings = await count_hits(document, ledger, kind="local", **model)
    hybrid = await count_hits(document, ledger, kind="hybrid", **model)
    assert embeddings >= bm25 + 4, (bm25, hybrid, embeddings)
    assert hybrid >= bm25 + 4, (bm25, hybrid, embeddings)
