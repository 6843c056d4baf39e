"""LongBench's own metrics, which need no judge: F1 over words, and ROUGE-L as in the package `rouge` 1.0.1.

Chinese is split into words by `jieba`, as in LongBench, if it is installed. Otherwise every character is a word and
the metric's name says so (`f1_by_character`): the two are not comparable.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module

from longreward.benchmarks.longbench.data import LongBenchSet

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_CHINESE_PUNCTUATION = (  # LongBench's own list: it lacks 《, which therefore stays
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、"
    "〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)
_NO_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation + _CHINESE_PUNCTUATION)


def metric_name(dataset: LongBenchSet) -> str:
    """Return `f1` or `rouge_l`, with a suffix if Chinese is split into characters."""
    return dataset.metric if not dataset.chinese or _jieba() is not None else f"{dataset.metric}_by_character"


def automatic_metric(dataset: LongBenchSet, answer: str, references: Sequence[str]) -> float:
    """Return the set's metric from 0 to 1: the best value over the references."""
    if dataset.metric == "f1":
        metric = chinese_f1 if dataset.chinese else f1
    else:
        metric = rouge_l
        if dataset.chinese:
            split = _jieba() or list
            answer, references = " ".join(split(answer)), [" ".join(split(reference)) for reference in references]
    return max(metric(answer, reference) for reference in references)


def f1(answer: str, reference: str) -> float:
    """Return the F1 of the words in lower case, without ASCII punctuation and articles.

    Two of the answer's three words match both words of the reference: 2 * (2/3 * 1) / (2/3 + 1).

    >>> f1("The red stone mill.", "a stone mill")
    0.8
    """
    return _overlap(_english_words(answer), _english_words(reference))


def chinese_f1(answer: str, reference: str) -> float:
    """Return the F1 of the words without punctuation."""
    return _overlap(_chinese_words(answer), _chinese_words(reference))


def rouge_l(answer: str, reference: str) -> float:
    """Return ROUGE-L over sentences, which end at every full stop; 0 if either text has no sentence.

    As in the package `rouge`, distinct words are counted: those of the answer, of the reference, and of the longest
    common subsequences of all pairs of their sentences.

    >>> round(rouge_l("the mill was built of stone", "a mill of stone"), 4)   # 3 of 6 and of 4: 2 * 0.375 / 1.25
    0.6
    """
    answer_sentences, reference_sentences = _sentences(answer), _sentences(reference)
    if not answer_sentences or not reference_sentences:
        return 0.0
    common = set().union(*(_common_words(r, a) for r in reference_sentences for a in answer_sentences))
    recall = len(common) / len({word for sentence in reference_sentences for word in sentence})
    precision = len(common) / len({word for sentence in answer_sentences for word in sentence})
    return 2 * precision * recall / (precision + recall + 1e-8)


def _overlap(answer: Sequence[str], reference: Sequence[str]) -> float:
    matches = (Counter(answer) & Counter(reference)).total()
    if matches == 0:
        return 0.0
    precision, recall = matches / len(answer), matches / len(reference)
    return 2 * precision * recall / (precision + recall)


def _english_words(text: str) -> list[str]:
    return _ARTICLE.sub(" ", text.lower().translate(_NO_ASCII_PUNCTUATION)).split()


def _chinese_words(text: str) -> list[str]:
    split = _jieba() or list
    words = ("".join(word.lower().translate(_NO_PUNCTUATION).split()) for word in split(text))
    return [word for word in words if word]


def _sentences(text: str) -> list[list[str]]:
    # Spaces alone between two full stops are a sentence with one empty word, as in the package.
    return [sentence.split() or [""] for sentence in text.split(".") if sentence]


def _common_words(reference: Sequence[str], answer: Sequence[str]) -> set[str]:
    """Return the words of one longest common subsequence; of several, the one that the package selects."""
    lengths = [[0] * (len(answer) + 1)]
    for word in reference:
        previous, row = lengths[-1], [0]
        for column, other in enumerate(answer):
            row.append(previous[column] + 1 if word == other else max(previous[column + 1], row[column]))
        lengths.append(row)
    words: set[str] = set()
    i, j = len(reference), len(answer)
    while i and j:
        if reference[i - 1] == answer[j - 1]:
            words.add(reference[i - 1])
            i, j = i - 1, j - 1
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words


@cache
def _jieba() -> Callable[[str], list[str]] | None:
    try:
        jieba = import_module("jieba")
    except ImportError:
        return None
    jieba.setLogLevel("WARNING")
    split: Callable[[str], list[str]] = jieba.lcut
    return split
