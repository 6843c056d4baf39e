"""What is assumed where nothing was measured yet. Every number is said in docs/costs.md."""

import re
from collections.abc import Mapping

from longreward.planning.ranges import Range
from longreward.planning.reply_stats import ReplyStats
from longreward.utils.language import Language, detect_language

# Tokens of one answer: (low, expected, high). The prompts ask for a short analysis and a verdict.
ANSWERS: Mapping[str, Range] = {
    "helpfulness": Range(60, 150, 400),
    "logicality": Range(60, 150, 400),
    "completeness": Range(60, 150, 400),
    "support": Range(30, 80, 250),
    "extraction": Range(20, 150, 600),
}
STATEMENT_TOKENS = Range(20, 30, 45)  # of one statement in the answer that lists them
STATEMENTS_A_SENTENCE = Range(0.5, 1.0, 2.0)
STATEMENT = 25  # tokens of one statement in the question about its support
THOUGHT_SHARE = Range(0.1, 0.4, 1.0)  # of judge.thinking_tokens
RESPONSE_SHARE = Range(0.1, 0.5, 1.0)  # of sample.max_new_tokens, where neither responses nor answers are there
ANSWER_SHARE = Range(0.5, 1.0, 2.0)  # of the data's own answers, where responses are not there
EXTRACT_TOKENS = Range(0.0, 60, 300)  # of what one part of a document holds, in the question about completeness
FIRST_TOKEN_S, TOKENS_A_SECOND = 1.0, 50.0  # of one call; the offline judge takes OFFLINE_S
OFFLINE_S = 0.002
BATCH_HOURS = 24.0  # that a provider may take for one round


def answer_tokens(template: str, *, statements: Range, limit: int, thinking: int, habit: ReplyStats | None) -> Range:
    """Of one answer, thoughts among them; `limit` is the prompt's own."""
    if habit is not None and habit.completion_tokens.high > 0:
        return habit.completion_tokens
    spoken = STATEMENT_TOKENS * statements if template == "statements" else ANSWERS[template]
    capped = Range(min(spoken.low, limit), min(spoken.expected, limit), min(spoken.high, limit))
    return capped + THOUGHT_SHARE * float(thinking)


def statements_in(response: str, habit: ReplyStats | None) -> Range:
    """How many statements a judge will find in it: as many as it found in others, else about one a sentence."""
    if habit is not None and habit.statements is not None:
        return habit.statements
    return STATEMENTS_A_SENTENCE * float(sentences(response))


def sentences(text: str) -> int:
    """Of prose, lists and Chinese alike; 0 only in an empty text."""
    return len([piece for piece in SENTENCE_END.split(text) if piece.strip()])


def stand_in(number: int, tokens: float, query: str) -> str:
    """A response of about so many tokens that is not there yet; each number gives another text."""
    language = detect_language(query)
    count = max(round(tokens / SENTENCE_TOKENS), 1)
    return f"{number}: " + SENTENCES[language] * count


SENTENCE_END = re.compile(r"(?<=[.!?])\s+|[。！？；]|\n+")
SENTENCES: Mapping[Language, str] = {
    "en": "The document says in its second part that the bridge over the river was opened to the public then. ",
    "zh": "文件的第二部分指出，这座桥当时向公众开放了。",
}
SENTENCE_TOKENS = 22
