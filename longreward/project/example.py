"""The worked example of a new project: short texts, and questions on them that name their text's file.

    questions.jsonl    {"idx": 0, "query": "Who …?", "answer": "…", "context_file": "documents/heron-guild.txt"}
    documents/heron-guild.txt

It is the shape that a user's own data has: texts as they are, and one line a question.
"""

import itertools
import json
import random
import re
from typing import Any

from longreward.corpus.documents import make_document
from longreward.corpus.inventory import SOCIETIES, SOCIETY_KINDS
from longreward.corpus.questions import ask, draw_questions, faulty_answer

DOCUMENTS, QUESTIONS_PER_DOCUMENT = 24, 4


def example_files() -> dict[str, str]:
    """The questions and the texts, by path below data/raw; the same on every machine.

    They are written in the words of the tiny base model, which knows few others. As in the built-in corpus, the answers
    are those of an imperfect model.
    """
    texts: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for number in itertools.count():
        document = make_document(f"example-{number}")
        name = f"documents/{_subject(document.text)}.txt"
        if name in texts:
            continue
        if len(texts) == DOCUMENTS:
            break
        texts[name] = document.text + "\n"
        rng = random.Random(f"longreward example {number}")
        for facts in draw_questions(rng, document, QUESTIONS_PER_DOCUMENT):
            answer = faulty_answer(rng, document, facts)
            rows.append({"idx": len(rows), "query": ask(facts), "answer": answer, "context_file": name})
    return {"questions.jsonl": "".join(json.dumps(row) + "\n" for row in rows), **texts}


def _subject(text: str) -> str:
    """The society that a text is about, as a file's name."""
    found = re.search(rf"({'|'.join(SOCIETIES)}) ({'|'.join(SOCIETY_KINDS)})", text)
    assert found, "a document of the corpus names its society"
    return "-".join(found.groups()).lower()
