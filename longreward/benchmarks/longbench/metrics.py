"""LongBench's own metrics, which need no judge: F1 over words, ROUGE-L as in the package `rouge` 1.0.1, and those of
the few-shot, synthetic and code sets.

Chinese is split into words by `jieba`, as in LongBench, if it is installed. Otherwise every character is a word and
the metric's name says so (`f1_by_character`): the two are not comparable.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import cache
from importlib import import_module

from longreward.benchmarks.longbench.sets import LongBenchSet

_INTEGER = re.compile(r"\d+")
_PARAGRAPH = re.compile(r"(?:Paragraph |段落)(\d+)")
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


def automatic_metric(
    dataset: LongBenchSet, answer: str, references: Sequence[str], labels: Sequence[str] = ()
) -> float:
    """Return the set's metric from 0 to 1: the best value over the references.

    Args:
        labels: All classes of a classification set.
    """
    return max(_metric(dataset, answer, reference, labels) for reference in references)


def _metric(dataset: LongBenchSet, answer: str, reference: str, labels: Sequence[str]) -> float:
    match dataset.metric:
        case "f1":
            return chinese_f1(answer, reference) if dataset.chinese else f1(answer, reference)
        case "rouge_l":
            if dataset.chinese:
                split = _jieba() or list
                answer, reference = " ".join(split(answer)), " ".join(split(reference))
            return rouge_l(answer, reference)
        case "classification":
            return classification_accuracy(answer, reference, labels)
        case "count":
            return number_precision(answer, reference)
        case "retrieval":
            paragraph = _PARAGRAPH.search(reference)
            return number_precision(answer, paragraph[1]) if paragraph else 0.0
        case "code_similarity":
            return code_similarity(answer, reference)


def f1(answer: str, reference: str) -> float:
    """Return the F1 of the words in lower case, without ASCII punctuation and articles.

    Two of the answer's three words match both words of the reference: 2 * (2/3 * 1) / (2/3 + 1).

    >>> f1("The red stone mill.", "a stone mill")
    0.8
    """
    return _token_f1(_english_words(answer), _english_words(reference))


def chinese_f1(answer: str, reference: str) -> float:
    """Return the F1 of the words without punctuation."""
    return _token_f1(_chinese_words(answer), _chinese_words(reference))


def character_f1(answer: str, reference: str) -> float:
    """Return the F1 of the characters without punctuation and blanks, as ∞Bench scores Chinese."""
    return _token_f1(_without_punctuation(answer), _without_punctuation(reference))


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
    recall = len(common) / len(set().union(*reference_sentences))
    precision = len(common) / len(set().union(*answer_sentences))
    return 2 * precision * recall / (precision + recall + 1e-8)


def classification_accuracy(answer: str, reference: str, labels: Sequence[str]) -> float:
    """Return 1 over the number of labels that the answer names, if the reference is one of them, otherwise 0.

    A label that is contained in the reference does not count.

    >>> labels = ["Date", "City", "City or town"]
    >>> classification_accuracy("Type: City or town", "City or town", labels)
    1.0
    >>> classification_accuracy("Date or City", "Date", labels)
    0.5
    """
    predicted = [label for label in labels if label in answer]
    for label in predicted:  # as published: removing a label while iterating leaves out the one behind it
        if label in reference and label != reference:
            predicted.remove(label)
    return 1 / len(predicted) if reference in predicted else 0.0


def number_precision(answer: str, number: str) -> float:
    """Return the share of the numbers in the answer that are `number`; 0 without any.

    >>> number_precision("Paragraph 3, or 7", "3")
    0.5
    """
    numbers = _INTEGER.findall(answer)
    return numbers.count(number) / len(numbers) if numbers else 0.0


def code_similarity(answer: str, reference: str) -> float:
    """Return the similarity of the answer's first line of code to the reference.

    As the package `fuzzywuzzy` computes it without `python-Levenshtein`: twice the characters of all matching blocks,
    by the characters of both. Lines with a backtick, `#` or `//` are not code.

    >>> code_similarity("```python\\nreturn a + b", "return a + c")
    0.92
    """
    lines = answer.lstrip("\n").split("\n")
    code = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    if code == reference:
        return 1.0
    return round(100 * SequenceMatcher(None, code, reference).ratio()) / 100


def _token_f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    matches = (Counter(answer) & Counter(reference)).total()
    if matches == 0:
        return 0.0
    precision, recall = matches / len(answer), matches / len(reference)
    return 2 * precision * recall / (precision + recall)


def _english_words(text: str) -> list[str]:
    return _ARTICLE.sub(" ", text.lower().translate(_NO_ASCII_PUNCTUATION)).split()


def _chinese_words(text: str) -> list[str]:
    split = _jieba() or list
    return list(filter(None, map(_without_punctuation, split(text))))


def _without_punctuation(text: str) -> str:
    return "".join(text.lower().translate(_NO_PUNCTUATION).split())


def _sentences(text: str) -> list[list[str]]:
    # Spaces alone between two full stops are a sentence with one empty word, as in the package.
    return [sentence.split() or [""] for sentence in text.split(".") if sentence]


def _common_words(reference: Sequence[str], answer: Sequence[str]) -> set[str]:
    """Return the words of one longest common subsequence; of several, the one that the package selects."""
    lengths = [[0] * (len(answer) + 1)]
    for reference_word in reference:
        previous, row = lengths[-1], [0]
        for column, answer_word in enumerate(answer):
            matches = reference_word == answer_word
            row.append(previous[column] + 1 if matches else max(previous[column + 1], row[column]))
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
