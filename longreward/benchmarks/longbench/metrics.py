"""LongBench's own metrics, which need no judge: F1 of words, and ROUGE-L as the package `rouge` 1.0.1 counts it.

Chinese is cut into words by `jieba`, as LongBench does, where that is installed; else every character is a word, and
the metric's name says so (`f1_by_character`), since the two cannot be compared.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module

from longreward.benchmarks.longbench.data import Set


def metric_name(of: Set) -> str:
    """`f1` or `rouge_l`, with the way of cutting where it is not LongBench's."""
    return of.metric if not of.chinese or _jieba() is not None else f"{of.metric}_by_character"


def measure(of: Set, answer: str, references: Sequence[str]) -> float:
    """The set's metric, 0 to 1: the best over the references."""
    metric = {
        ("f1", False): f1,
        ("f1", True): chinese_f1,
        ("rouge_l", False): rouge_l,
        ("rouge_l", True): _chinese_rouge,
    }
    return max(metric[of.metric, of.chinese](answer, reference) for reference in references)


def f1(answer: str, reference: str) -> float:
    """Of words, in lower case, without ASCII punctuation and articles.

    Two of its three words are two of the reference's two: 2 · (2/3 · 1) / (2/3 + 1).

    >>> f1("The red stone mill.", "a stone mill")
    0.8
    """
    return _overlap(_english_words(answer), _english_words(reference))


def chinese_f1(answer: str, reference: str) -> float:
    """Of words without punctuation."""
    return _overlap(_chinese_words(answer), _chinese_words(reference))


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L over sentences, which end at every full stop.

    Counted are distinct words: those of the answer, those of the reference, and those that are in a longest common
    subsequence of any sentence of the one with any of the other. 0 where either holds no sentence.

    >>> round(rouge_l("the mill was built of stone", "a mill of stone"), 4)   # 3 of 6 and of 4: 2 · 0.375 / 1.25
    0.6
    """
    given, wanted = _sentences(answer), _sentences(reference)
    if not given or not wanted:
        return 0.0
    common = set().union(*(_common(w, g) for w in wanted for g in given))
    recall = len(common) / len({word for sentence in wanted for word in sentence})
    precision = len(common) / len({word for sentence in given for word in sentence})
    return 2 * precision * recall / (precision + recall + 1e-8)


def _chinese_rouge(answer: str, reference: str) -> float:
    cut = _cutter()
    return rouge_l(" ".join(cut(answer)), " ".join(cut(reference)))


def _overlap(given: Sequence[str], wanted: Sequence[str]) -> float:
    same = (Counter(given) & Counter(wanted)).total()
    if same == 0:
        return 0.0
    precision, recall = same / len(given), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _english_words(text: str) -> list[str]:
    return _ARTICLE.sub(" ", text.lower().translate(_NO_ASCII)).split()


def _chinese_words(text: str) -> list[str]:
    plain = ("".join(word.lower().translate(_NO_MARKS).split()) for word in _cutter()(text))
    return [word for word in plain if word]


def _sentences(text: str) -> list[list[str]]:
    # A stretch of mere spaces between two stops is a sentence of one empty word, as in the package.
    return [stretch.split() or [""] for stretch in text.split(".") if stretch]


def _common(wanted: Sequence[str], given: Sequence[str]) -> set[str]:
    """The words of one longest common subsequence; of several, the one that the package takes."""
    table = [[0] * (len(given) + 1)]
    for word in wanted:
        above, row = table[-1], [0]
        for place, other in enumerate(given):
            row.append(above[place] + 1 if word == other else max(above[place + 1], row[place]))
        table.append(row)
    found: set[str] = set()
    i, j = len(wanted), len(given)
    while i and j:
        if wanted[i - 1] == given[j - 1]:
            found.add(wanted[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found


def _cutter() -> Callable[[str], list[str]]:
    return _jieba() or list


@cache
def _jieba() -> Callable[[str], list[str]] | None:
    try:
        jieba = import_module("jieba")
    except ImportError:
        return None
    jieba.setLogLevel("WARNING")
    cut: Callable[[str], list[str]] = jieba.lcut
    return cut


_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_CHINESE_MARKS = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、"
    "〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)
"""LongBench's own list: it lacks 《, which stays."""
_NO_ASCII = str.maketrans("", "", string.punctuation)
_NO_MARKS = str.maketrans("", "", string.punctuation + _CHINESE_MARKS)
