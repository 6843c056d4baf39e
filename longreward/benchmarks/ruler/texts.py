"""The texts that RULER's prompts consist of: templates, haystacks, vocabularies and questions.

    constants.py          the templates, from RULER's repository (parsed, never executed)
    niah.py               its needle and its noise sentences (the same)
    nounlist.txt, adjectivelist.txt, verblist.txt    the word lists of the package `wonderwords`
    english_words.json    {"0": "word", …}: more words, for long contexts
    PaulGrahamEssays.json {"text": "…"}, written by RULER's download_paulgraham_essay.py
    squad.json            SQuAD 2.0's dev-v2.0.json
    hotpotqa.json         HotpotQA's hot_dev_distractor_v1.json

A built-in text replaces each missing file, so that scores are not comparable to published ones. SQuAD and HotpotQA have
no replacement.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from longreward.benchmarks.published_formats import read_constant, read_json, read_text
from longreward.benchmarks.ruler.tasks import Family, TaskName
from longreward.builtin import word_lists
from longreward.builtin.documents import make_document
from longreward.errors import DataError

T = TypeVar("T")

PUBLISHED = {"constants", "niah", "nounlist", "adjectivelist", "verblist", "english_words", "PaulGrahamEssays"}
BUILTIN_NAMES = (*word_lists.PLACES, *word_lists.FIRST_NAMES, *word_lists.SURNAMES)
BUILTIN_ESSAYS = 40  # about 20,000 words
_SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]


@dataclass(frozen=True)
class Template:
    """The prompt of a family of tasks and the text that its answers start with."""

    prompt: str
    answer_prefix: str


TEMPLATES: dict[Family, Template] = {
    # "Some" and "are" become singular for a single value, see generator.py.
    "niah": Template(
        "Some secret {type_needle_v} are mentioned in the text below. A question about this follows.\n{context}\n"
        "What are all the secret {type_needle_v} of {query} in the text?",
        " In the text, the secret {type_needle_v} of {query} are",
    ),
    "variable_tracking": Template(
        "The text below assigns values to variables. Follow the assignments.\n\n{context}\n"
        "Question: Which variables have the value {query} at the end of the text?",
        " Answer: {num_v} variables have the value {query}: ",
    ),
    "common_words_extraction": Template(
        "This numbered list repeats some words more often than others.\n{context}\n"
        "Question: Which 10 words does the list repeat most often?",
        " Answer: The 10 most frequent words of the list:",
    ),
    "freq_words_extraction": Template(
        "Count the words of this artificial language. {context}\n"
        "Question: Which three words are the most frequent, apart from the dots? Reply with the words alone.",
        " Answer: The three most frequent words:",
    ),
    "qa": Template(
        "Use the documents to answer the question below. Reply with the answer alone.\n\n{context}\n\n"
        "Use the documents to answer the question. Reply with the answer alone.\n\nQuestion: {query}",
        " Answer:",
    ),
}
NEEDLE = "One of the secret {type_needle_v} of {key} is {value}."
NOISE = "The road is long. The field is wide. The lake is calm. On we walk. Then home and out once more."


@dataclass(frozen=True)
class Question:
    """A question with its references and the documents that it is about."""

    query: str
    references: tuple[str, ...]
    gold: tuple[int, ...]  # indices of documents
    related: tuple[int, ...] = ()
    """Documents from the same article: the first distractors."""


@dataclass(frozen=True)
class QaSet:
    """Questions over a shared collection of documents."""

    questions: tuple[Question, ...]
    documents: tuple[str, ...]


@dataclass(frozen=True)
class RulerTexts:
    """Everything that prompts are generated from."""

    templates: Mapping[Family, Template]
    needle: str
    noise: str
    essay_words: tuple[str, ...]
    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    words: tuple[str, ...]
    more_words: tuple[str, ...]
    """For lists of more words than `words` has."""
    qa: Mapping[TaskName, QaSet]
    official: bool
    """Whether all texts except those of `qa` are the published ones."""


def read_texts(files: Mapping[str, Path]) -> RulerTexts:
    """Read the published files by the names above without suffix; built-in texts replace the others.

    Raises DataError for a malformed file.
    """

    def read(name: str, parse: Callable[[Path], T], default: T) -> T:
        if name not in files:
            return default
        try:
            return parse(files[name])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{files[name]} does not have the published format ({type(error).__name__}: {error}); fetch it again"
            ) from error

    nouns = read("nounlist", _read_words, word_lists.THINGS)
    adjectives = read("adjectivelist", _read_words, word_lists.ADJECTIVES)
    verbs = read("verblist", _read_words, BUILTIN_NAMES)
    qa: dict[TaskName, QaSet | None] = {
        "qa_1": read("squad", _read_squad, None),
        "qa_2": read("hotpotqa", _read_hotpotqa, None),
    }
    return RulerTexts(
        templates=read("constants", _read_templates, TEMPLATES),
        needle=read("niah", lambda path: read_constant(path, "needle", str), NEEDLE),
        noise=read("niah", lambda path: read_constant(path, "haystack", str), NOISE),
        essay_words=read("PaulGrahamEssays", lambda path: tuple(read_json(path)["text"].split()), _builtin_essays()),
        adjectives=adjectives,
        nouns=nouns,
        words=tuple(sorted({*nouns, *adjectives, *verbs})),
        more_words=read("english_words", lambda path: tuple(read_json(path).values()), _pseudo_words()),
        qa={task: qa_set for task, qa_set in qa.items() if qa_set is not None},
        official={*files} >= PUBLISHED,
    )


def _read_templates(path: Path) -> Mapping[Family, Template]:
    tasks = read_constant(path, "TASKS", dict)
    return {family: Template(tasks[family]["template"], tasks[family]["answer_prefix"]) for family in TEMPLATES}


def _read_words(path: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in read_text(path).splitlines() if line.strip())


def _builtin_essays() -> tuple[str, ...]:
    documents = (make_document(f"ruler-{number}").text for number in range(BUILTIN_ESSAYS))
    return tuple(word for text in documents for word in text.split())


def _pseudo_words() -> tuple[str, ...]:
    """Return 343,000 words of three syllables."""
    return tuple(f"{a}{b}{c}" for a in _SYLLABLES for b in _SYLLABLES for c in _SYLLABLES)


def _read_squad(path: Path) -> QaSet:
    articles = read_json(path)["data"]
    paragraphs = [[paragraph["context"] for paragraph in article["paragraphs"]] for article in articles]
    documents = sorted({context for contexts in paragraphs for context in contexts})
    index = {document: number for number, document in enumerate(documents)}
    questions = [
        Question(
            question["question"],
            tuple(answer["text"] for answer in question["answers"]),
            gold=(index[paragraph["context"]],),
            related=tuple(index[context] for context in contexts if context != paragraph["context"]),
        )
        for article, contexts in zip(articles, paragraphs, strict=True)
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
        if not question["is_impossible"]
    ]
    return QaSet(tuple(questions), tuple(documents))


def _read_hotpotqa(path: Path) -> QaSet:
    rows = read_json(path)
    contexts = [[f"{title}\n{''.join(sentences)}" for title, sentences in row["context"]] for row in rows]
    documents = sorted({document for context in contexts for document in context})
    index = {document: number for number, document in enumerate(documents)}
    questions = [
        Question(row["question"], (row["answer"],), gold=tuple(index[document] for document in context))
        for row, context in zip(rows, contexts, strict=True)
    ]
    return QaSet(tuple(questions), tuple(documents))
