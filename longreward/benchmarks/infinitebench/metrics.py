"""The metrics of ∞Bench's tasks, from 0 to 1, with the rules of its `compute_scores.py`.

`math_calc` (30,000 tokens of answer) and `longbook_sum_eng` (ROUGE-Lsum) are left out.
"""

import re
from collections.abc import Sequence
from typing import Literal

from longreward.benchmarks.longbench.metrics import character_f1, f1

TaskName = Literal[
    "passkey",
    "number_string",
    "kv_retrieval",
    "longbook_choice_eng",
    "longbook_qa_eng",
    "longbook_qa_chn",
    "longdialogue_qa_eng",
    "math_find",
    "code_run",
    "code_debug",
]
CHOICE_TASKS: frozenset[TaskName] = frozenset(("longbook_choice_eng", "code_debug"))
_DIGITS, _NUMBER = re.compile("[0-9]+"), re.compile(r"\d+\.\d+|\d+")
_PUNCTUATION = "\n:\"'.,?!{}"


def task_score(task: TaskName, answer: str, references: Sequence[str]) -> float:
    """Return the score of an answer; the first reference counts, for questions about books the best one.

    Args:
        references: In CHOICE_TASKS the text of the correct choice and its letter.

    >>> task_score("passkey", "The pass key is 71432.", ["71432"]), task_score("math_find", "about 3.0", ["3"])
    (1.0, 1.0)
    """
    reference = references[0]
    match task:
        case "passkey" | "number_string":
            digits = _DIGITS.search(answer)
            return float(digits is not None and digits[0] == reference)
        case "kv_retrieval":
            return float(reference in _words(answer, _PUNCTUATION))
        case "longdialogue_qa_eng":  # a name of several words never matches
            return float(reference in [word.upper() for word in _words(answer, _PUNCTUATION)])
        case "math_find":
            number = _NUMBER.search(answer)
            return float(number is not None and float(number[0]) == float(reference))
        case "code_run":
            return float(_last_integer(_words(answer, "\n.`'\":")) == int(reference))
        case "code_debug":
            return float(_names_function(answer.strip(), references))
        case "longbook_choice_eng":
            return float(_names_choice(answer.strip(), references))
        case "longbook_qa_eng":
            return max(f1(answer, text) for text in references)
        case "longbook_qa_chn":
            return max(character_f1(answer, text) for text in references)


def _blank(text: str, parts: Sequence[str]) -> str:
    for part in parts:
        text = text.replace(part, " ")
    return text


def _words(text: str, separators: str) -> list[str]:
    return _blank(text, separators).split()


def _last_integer(words: Sequence[str]) -> int | None:
    try:
        return int(words[-1])
    except (IndexError, ValueError):
        return None


def _names_function(answer: str, references: Sequence[str]) -> bool:
    if answer[:2] in (f"{references[1]}.", f"{references[1]}:"):
        return True
    answer = _blank(answer, ("\n", "`", "'", '"', "-", "*", "Option", "option"))
    return _follows(answer, ("answer is:", "is:", "answer:", "correct option is:"), references) or False


def _names_choice(answer: str, references: Sequence[str]) -> bool:
    if answer[:1] and answer[0] in "ABCD":
        return answer[0] in references
    if answer in references:
        return True
    answer = _blank(answer, "\n\"'.,?!{}")
    follows = _follows(answer, ("answer is:", "answer:", "answer is", "option is"), references)
    if follows is not None:
        return follows
    return next((word for word in answer.split() if word in "ABCD"), None) in references


def _follows(answer: str, prefixes: Sequence[str], references: Sequence[str]) -> bool | None:
    """Return whether a reference follows, after one character, the first of `prefixes` that the answer contains; None
    if it contains none."""
    answer = re.sub(" {2,}", " ", answer)
    for prefix in prefixes:
        if (index := answer.find(prefix)) >= 0:
            return answer.startswith(tuple(references), index + len(prefix) + 1)
    return None
