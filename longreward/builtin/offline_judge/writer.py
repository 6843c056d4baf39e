"""The offline stand-in as a writer: it asks by templates and answers with sentences of the document.

It asks about what the document names, spread over its length, and answers with what bears on the question. Modest, but
grounded, the same each time, and enough to see everything work without network or key.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from longreward.builtin.offline_judge.lexical import Sentence, parse_sentence, split_sentences
from longreward.builtin.offline_judge.overlap import evidence_sentences, relevance
from longreward.utils.language import Language, detect_language

T = TypeVar("T")


def questions(slots: Mapping[str, str]) -> str:
    """Up to `count` questions of one kind: about the whole document, about what it names, about two such things."""
    document, kind, count = slots["document"], slots["kind"], int(slots["count"])
    language = detect_language(document)
    whole, about = FORMS[language][kind]
    asked = [whole] if whole else []
    subjects = _subjects(document, language, with_numbers=kind == "extraction")
    wanted = count - len(asked)
    if kind == "reasoning":
        pairs = list(zip(subjects[0::2], subjects[1::2], strict=False))
        asked += [about.format(first, second) for first, second in _spread(pairs, wanted)]
    else:
        asked += [about.format(subject) for subject in _spread(subjects, wanted)]
    return "\n".join(f"<question>{text}</question>" for text in asked[:count]) or "<no_question/>"


def answer(slots: Mapping[str, str]) -> str:
    """The sentences that bear most on the question, as many as the length allows, in the order of the document."""
    document, limit = slots["document"], int(slots["length"])
    language = detect_language(document)
    question = parse_sentence(slots["question"])
    figures = bool(_FIGURES.search(slots["question"]))
    stated = [s for s in evidence_sentences(document) if _is_statement(s) and (s.numbers or not figures)]
    if slots["question"] in {FORMS[each]["summary"][0] for each in FORMS}:
        mean = sum(map(_length, stated)) / max(len(stated), 1)
        ranked = list(_spread(stated, max(1, int(limit / max(mean, 1)))))
    else:
        bearing = [(-relevance(question, s), place) for place, s in enumerate(stated)]
        ranked = [stated[place] for share, place in sorted(bearing) if share < 0]
    chosen: list[Sentence] = []
    length = 0
    for each in ranked:
        length += _length(each)
        if length > limit and chosen:
            break
        chosen.append(each)
    if not chosen:
        return "<unanswerable/>"
    kept = {id(each) for each in chosen}
    texts = [_plain(each.text) for each in stated if id(each) in kept]
    return f"<answer>{('' if language == 'zh' else ' ').join(texts)}</answer>"


RULES: dict[str, Callable[[Mapping[str, str]], str]] = {
    "synthesis/questions": questions,
    "synthesis/answer": answer,
}
FORMS: Mapping[Language, Mapping[str, tuple[str, str]]] = {  # about the whole document, and about a subject of it
    "en": {
        "general": ("", "What does the document tell about {}?"),
        "summary": ("Summarise the document.", "Summarise what the document tells about {}."),
        "reasoning": ("", "What does the document tell about {}, and what about {}?"),
        "extraction": ("", "Which dates and numbers does the document give about {}?"),
    },
    "zh": {
        "general": ("", "关于{}，文档说了什么？"),
        "summary": ("请概括这份文档的主要内容。", "请概括文档中关于{}的内容。"),
        "reasoning": ("", "关于{}，文档说了什么？关于{}呢？"),
        "extraction": ("", "关于{}，文档给出了哪些日期和数字？"),
    },
}


def _subjects(document: str, language: Language, *, with_numbers: bool) -> list[str]:
    """What sentences are about, each once, in the order of the document."""
    found = (
        _subject(s, language) for s in split_sentences(document) if _is_statement(s) and (s.numbers or not with_numbers)
    )
    return list(dict.fromkeys(subject for subject in found if subject))


def _subject(s: Sentence, language: Language) -> str:
    """The first name, else what stands before a verb that is easy to tell; nothing where there is neither."""
    if language == "zh":
        opening = _HAN_OPENING.match(s.text)
        return opening.group(1) if opening else ""
    name = _NAME.search(s.text)
    if name:
        return name.group()
    opening = _OPENING.match(s.text)
    return opening.group(1)[0].lower() + opening.group(1)[1:] if opening else ""


def _is_statement(s: Sentence) -> bool:
    """A finished sentence of some words: no heading, label or question."""
    return s.finished and len(s.terms) > 2 and not s.text.rstrip().endswith(("?", "？"))


def _spread(items: Sequence[T], count: int) -> "Iterator[T]":
    """`count` of the items at even distances, and no more than there are."""
    count = max(0, min(count, len(items)))
    return (items[place * len(items) // count] for place in range(count))


def _length(s: Sentence) -> int:
    """In words; in Chinese, characters."""
    return len(s.text) if detect_language(s.text) == "zh" else len(s.text.split())


def _plain(text: str) -> str:
    """On one line, without the signs of which tags and verdicts are made."""
    return " ".join(text.split()).translate(_NEUTRAL)


_FIGURES = re.compile(r"dates and numbers|日期和数字")  # as FORMS ask for them
_NEUTRAL = str.maketrans("[]<>", "()‹›")
_NAME = re.compile(
    r"\b(?!(?:The|A|An|In|On|At|By|As|He|She|It|They|We|When|Where|Who|Which|What|How|This|That|These|Those|But|And)\b)"
    r"[A-Z]\w+(?: [A-Z]\w+)+|(?<=[a-z,] )[A-Z][a-z]{2,}\b"
)
_OPENING = re.compile(r"(The [a-z]+(?: [a-z]+)?) (?:is|are|was|were|has|have|had|will|must|may|can)\b")
_HAN_OPENING = re.compile(r"([\u4e00-\u9fffA-Za-z]{2,12}?)(?=(?:位于|建于|始建|出生|[是在于有为被由现，,年]))")
