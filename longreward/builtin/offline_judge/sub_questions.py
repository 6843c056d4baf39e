"""Split a question into sub-questions, each with the type of value that answers it.

>>> [sub_question.answer_type for sub_question in split_question("How much did it cost, and who paid?")]
['money', 'person']
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, cast

from longreward.builtin.offline_judge.lexical import Sentence, Value, ValueType, parse_sentence, stem

AnswerType = Literal["when", "date", "year", "time", "money", "number", "person", "place", "polar", "anything"]
VALUE_TYPES: Mapping[AnswerType, Mapping[ValueType, float]] = {
    "when": {"date": 1.0, "year": 1.0, "time": 1.0, "number": 0.3},
    "date": {"date": 1.0, "year": 0.3},
    "year": {"year": 1.0, "number": 0.3},
    "time": {"time": 1.0, "number": 0.3},
    "money": {"money": 1.0, "number": 0.4},
    "number": {"number": 1.0, "money": 0.4, "year": 0.4},
}
"""The types of figures that answer each type of question, and how well they suit it."""


@dataclass(frozen=True)
class SubQuestion:
    """A question for one kind of value."""

    answer_type: AnswerType
    about: Sentence
    """The words that say of what."""
    question_names: frozenset[str] = frozenset()
    """The words of names in the whole question, which are no answers."""
    allowed: int = 1
    """How many values of this type the whole question asks for."""
    count: int = 1
    """How many values are asked for: 2 for "on which dates did it start and finish"."""
    unit: str = ""
    """The term for what is counted: of "minutes" in "how many minutes"."""

    @property
    def topic_words(self) -> frozenset[str]:
        """The words of `about` that are no part of a name."""
        return self.about.terms - self.about.name_terms

    @property
    def is_open(self) -> bool:
        """Whether it asks for more than a value: a summary, or a how or why in many words."""
        return self.answer_type == "anything" and (not self.about.terms or len(self.topic_words) > 4)

    def select_values(self, s: Sentence) -> list[Value]:
        """Return the figures of a sentence that could answer it, without those of the question."""
        types = VALUE_TYPES.get(self.answer_type, {})
        return [value for value in s.values if value.type in types and value.term not in self.about.terms]


@lru_cache(maxsize=4096)
def split_question(question: str) -> tuple[SubQuestion, ...]:
    """Return the sub-questions; one without a name is about the names of the sub-question before it."""
    sub_questions: list[SubQuestion] = []
    names = parse_sentence(question).name_terms
    for text in _BOUNDARY.split(question):
        about = parse_sentence(text.strip(" ,;，；?？"))
        generic = _GENERIC | _SUMMARY_WORDS if _SUMMARY.search(text) else _GENERIC
        about = replace(about, terms=about.terms - generic)
        answer_type, unit = _answer_type(text, sub_questions[-1].answer_type if sub_questions else "anything")
        if not about.terms and not (sub_questions and answer_type != "anything"):
            continue
        if not about.names and sub_questions:
            about = with_names(about, sub_questions[-1].about.names)
        count = 2 if _TWO_VALUES.search(text) else 1
        sub_questions.append(SubQuestion(answer_type, about, names, 1, count, unit))
    counts = Counter[AnswerType]()
    for q in sub_questions:
        counts[q.answer_type] += q.count
    return tuple(replace(q, allowed=counts[q.answer_type]) for q in sub_questions) or (
        SubQuestion("anything", replace(parse_sentence(question), terms=frozenset(), names=())),
    )


def polar_claim(question: Sentence, answer: Sentence) -> Sentence | None:
    """Return what a bare yes or no states about the question; None if the answer is another sentence."""
    match = _POLAR_ANSWER.fullmatch(answer.text)
    if match is None:
        return None
    return replace(question, negated=question.words if match["no"] or match["zh_no"] else frozenset())


def with_names(s: Sentence, names: tuple[frozenset[str], ...]) -> Sentence:
    """Return the sentence with names that it implies."""
    return replace(s, names=names + s.names, terms=s.terms.union(*names)) if names else s


def _answer_type(text: str, previous: AnswerType) -> tuple[AnswerType, str]:
    """Return the type of answer, and the term for what is counted; "which did" repeats the type before it."""
    match = _QUESTION_WORD.search(text)
    if match is None:
        return "polar" if _POLAR_QUESTION.search(text) else "anything", ""
    answer_type = cast("AnswerType", match.lastgroup or "anything")
    if answer_type == "anything" and _SAME_TYPE.search(text):
        return previous, ""
    unit = _UNIT.search(text) if answer_type == "number" else None
    return answer_type, stem(unit.group(1)) if unit else ""


_BOUNDARY = re.compile(
    r"[?？]|(?:[,，;；] *+|(?<! ) *+)\band (?=(?:(?:in|at|on|by|for|to|with|from|of) )?"
    r"(?:who|whom|whose|what|which|when|where|why|how)\b)"
    r"|[,;] (?=(?:who|whom|whose|what|which|when|where|why|how)\b)|[，；](?=.{0,12}(?:谁|什么|哪|何|多少|几|怎))",
    re.I,
)
_PERSONS = (
    "person|man|woman|boy|girl|author|writer|poet|director|actor|actress|singer|player|judge|expert|teacher|doctor|king|"
    "queen|president|minister|mayor|politician|neighbou?r|friend|brother|sister|father|mother|son|daughter|wife|husband|"
    "member|officer|leader|founder|owner|lawyer|engineer|keeper|dealer|[a-z]{3,}(?:ist|ian|eer)"
)
_QUESTION_WORD = re.compile(
    r"(?P<year>\b(?:which|what) year\b|哪.?年)|(?P<time>\b(?:which|what) time\b)"
    r"|(?P<date>\b(?:which|what)(?: is the| was the)?(?: \w+)? (?:dates?|days?)\b|哪.?天)"
    r"|(?P<when>\bwhen\b|何时|什么时候)"
    r"|(?P<money>\bhow much\b|\b(?:which|what)(?: \w+){0,5}? "
    r"(?:price|cost|sum|amount|wage|salary|fee|pay|budget|rent|subscription|income|payment)s?\b)"
    r"|(?P<number>\bhow (?:many|old|long|far|often|tall|large|big|high|deep|wide|heavy|fast|loud)\b"
    r"|\b(?:which|what)(?: \w+){0,3}? (?:number|percentage|share|size|weight|height|length|age)\b|多少|几)"
    rf"|(?P<person>\bwho(?:m|se)?\b|\b(?:which|what)(?: \w+)? (?:{_PERSONS})s?\b|谁|何人)"
    r"|(?P<place>\bwhere\b|\b(?:which|what)(?: \w+)? (?:city|town|country|place|village|state|county)\b"
    r"|哪里|哪儿|何处|何地)"
    r"|\b(?:what|which|why|how)\b|什么|为什么|如何|怎",
    re.I,
)
_POLAR_QUESTION = re.compile(
    r"^\W*(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|must|may)\b|[吗么]\W*$", re.I
)
_POLAR_ANSWER = re.compile(r"\W*(?:yes|(?P<no>no)|是的?|(?P<zh_no>不是?))\W*", re.I)
_SAME_TYPE = re.compile(r"\bwhich (?:did|does|do|was|is|were|will|one)\b", re.I)
_UNIT = re.compile(r"\bhow many (?:more |other |different )?([a-z]+)", re.I)
_TWO_VALUES = re.compile(r"\bwhich (?:two )?(?:dates|days|years|times|towns|cities|people)\b.*\band\b", re.I)
_GENERIC = frozenset().union(
    *(
        parse_sentence(text).terms
        for text in (
            "please give tell list describe explain discuss summarize summarise summary document text passage article "
            "paper author main key point detail content following question answer year date day time number kind",
            "请问 请 总结 概括 文章 文档 文中 主要 内容 什么 哪些 哪里 哪年 如何 为什么 怎么 多少 何时 何处 根据",
            "什么时候 谁 哪一年",
        )
    )
)
_SUMMARY = re.compile(r"\b(?:summar(?:y|i[sz])|overview)|总结|概括|概述|摘要", re.I)
_SUMMARY_WORDS = frozenset().union(  # "Now, write a one-page summary of all the news."
    *(
        parse_sentence(text).terms
        for text in (
            "now write one page brief short paragraph overview whole news report story meeting transcript",
            "会议总结 写一段总结 写一份总结 会议记录 内容进行总结 总结会议 新闻 报告 一下 概述 摘要 全文 本文",
        )
    )
)
