"""What can be told from the words of a text alone: its sentences, and the content words, numbers and names in them.

English words are stemmed lightly, Han characters count as bigrams, numbers are compared as numbers. Nothing here knows
what a sentence means; the offline judge compares sentences by what they share.
"""

import re
import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache


@dataclass(frozen=True)
class Sentence:
    """A sentence with what it is about. All terms are lower-case stems; a name is the stems of its words."""

    text: str
    terms: frozenset[str]  # every content word, number, name part and Han bigram
    numbers: frozenset[str]
    names: tuple[frozenset[str], ...]
    order: tuple[str, ...]  # the terms in the order of the text
    negated: bool
    passive: bool  # "was … by"
    finished: bool  # ends as a sentence does

    @cached_property
    def name_terms(self) -> frozenset[str]:
        return frozenset().union(*self.names)

    @cached_property
    def words(self) -> frozenset[str]:
        """The content words that are neither number nor part of a name."""
        return self.terms - self.numbers - self.name_terms


@lru_cache(maxsize=1024)
def split_sentences(text: str) -> tuple[Sentence, ...]:
    """The sentences of a text in order.

    A list item and the end of a line end one; abbreviations, decimals and the wrapped lines of a paragraph do not.
    """
    found = []
    for line in _WRAP.sub(" ", text).splitlines():
        line = _BULLET.sub("", line).strip()
        found += [parse_sentence(part.strip()) for part in _split(line) if part.strip()]
    return tuple(found)


@lru_cache(maxsize=16384)
def parse_sentence(text: str) -> Sentence:
    """One sentence, taken apart."""
    plain = unicodedata.normalize("NFKC", text)
    order: list[str] = []
    numbers: set[str] = set()
    names: list[frozenset[str]] = []
    run: list[str] = []  # capitalised words that stand side by side
    run_start = end = 0
    for match in _TOKEN.finditer(plain):
        token = match.group()
        if run and (not token[0].isupper() or plain[end : match.start()] not in (" ", "-", "")):
            _close(run, _opens(plain, run_start), names)
        if token[0].isdigit():
            term = _number(token)
            numbers.add(term)
            order.append(term)
        elif token[0] >= "\u3400":
            order += _bigrams(token)
        else:
            term = stem(token)
            if term in _NUMBER_WORDS:
                numbers.add(_NUMBER_WORDS[term])
                order.append(_NUMBER_WORDS[term])
            elif token.lower() not in STOP_WORDS and term not in STOP_WORDS:
                order.append(term)
                if token[0].isupper():
                    run_start = run_start if run else match.start()
                    run.append(term)
        end = match.end()
    _close(run, _opens(plain, run_start), names)
    return Sentence(
        text=text,
        terms=frozenset(order),
        numbers=frozenset(numbers),
        names=tuple(names),
        order=tuple(order),
        negated=bool(_NEGATION.search(plain)),
        passive=bool(_PASSIVE.search(plain)),
        finished=bool(_END.search(plain)),
    )


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """A light stem, which makes forms of one word equal: "retires", "retired" and "retiring" are one."""
    word = word.lower().removesuffix("'s").removesuffix("’s").strip("'’")
    word = _IRREGULAR.get(word, word)
    for ending, least in (("ies", 5), ("ied", 5), ("ing", 6), ("ed", 5), ("es", 5), ("s", 4), ("ly", 6)):
        if len(word) >= least and word.endswith(ending) and not word.endswith("ss"):
            word = word.removesuffix(ending) + ("y" if ending in ("ies", "ied") else "")
            break
    if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]  # "plann", from "planned"
    if len(word) > 4 and word.endswith("ll"):
        word = word[:-1]  # "travell", from "travelled"
    return word.removesuffix("e") if len(word) > 3 else word


def repetition_rate(items: Sequence[Hashable]) -> float:
    """The share of items that stood before already, 0 to 1."""
    return 1 - len(set(items)) / len(items) if items else 0.0


def _close(run: list[str], opens: bool, names: list[frozenset[str]]) -> None:
    """Keeps a run of capitalised words as a name; one that opens the sentence alone may be any word."""
    if run and (not opens or len(run) > 1):
        names.append(frozenset(run))
    run.clear()


def _opens(text: str, start: int) -> bool:
    """Whether a capital is due at this place whatever the word: at the beginning, after a dash, colon or quote."""
    before = text[:start].rstrip()
    return not before or before[-1] in '-–—:;*("“”‘.!?'


def _split(line: str) -> list[str]:
    parts, start = [], 0
    for match in _BREAK.finditer(line):
        before = line[max(start, match.start() - 10) : match.start() + 1]
        if match.group()[0] == "." and _ABBREVIATION.search(before):
            continue
        parts.append(line[start : match.end()])
        start = match.end()
    return [*parts, line[start:]]


def _number(token: str) -> str:
    """1,204 and 1204, 12.50 and 12.5 are the same."""
    plain = token.replace(",", "")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain.lstrip("0") or "0"


def _bigrams(run: str) -> list[str]:
    """Bigrams between the little words, which stand between most Chinese words of weight."""
    grams: list[str] = []
    for part in _HAN_LITTLE.split(run):
        grams += [part[i : i + 2] for i in range(len(part) - 1)] if len(part) > 1 else [part] * len(part)
    return grams


_HAN_LITTLE = re.compile(r"[的了是在和与也就都而及着或被把很吗呢吧啊之其于从由对以向]")
_TOKEN = re.compile(
    r"\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|[^\W\d_\u3400-\uffff]+(?:['’][a-z]+)?|[\u3400-\u9fff\uf900-\ufaff]+"
)
_BULLET = re.compile(r"^\s*(?:[-*•·#>]+\s+|\(?\d{1,3}[.)、]\s*(?!\d)|[（(][一二三四五六七八九十]+[）)])")
_WRAP = re.compile(r"(?<=[^\n]{40}[A-Za-z0-9,;)\-])\n(?!\(?\d{1,3}[.)、])(?=[A-Za-z0-9(\"'“])")
# The lookbehinds start a match at the head of a run only: trying each of its characters takes quadratic time.
_BREAK = re.compile(
    r"(?<![.!?])[.!?]++(?:[\"'”’)\]]*(?=\s|$)|[\"”’)\]]*(?=[A-Z][a-z]+ ))|[。！？；]+[”’」』）]*|(?<!…)…++(?=\s)"
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|No|Nos|Fig|Figs|Eq|Sec|Ref|Vol|Ch|pp?|vs|cf|ca|etc|al|approx|e\.g|i\.e"
    r"|U\.S|U\.K|Jan|Feb|Mar|Apr|Aug|Sept?|Oct|Nov|Dec|Inc|Ltd|Co|Gen|Col|Capt)\.$"
)
_END = re.compile(r"[.!?。！？…；][\"'”’」』）)\]]*$")
_PASSIVE = re.compile(r"\b(?:is|are|was|were|been|being) \w+ by\b|被")
_NEGATION = re.compile(
    r"\b(?:not(?! only)|never|neither|nor|cannot)\b|n['’]t\b|不(?!仅|但|断|同|久)|没有|未(?!来)|从未|并非", re.I
)
_STOP_TEXT = """
    a an the this that these those there here it its he his him she her hers they them their i me my we us our you
    your who whom whose which what when where why how and or but nor so if then than as at by for from in into of off
    on onto to up upon with within without about over under after before between during through is am are was were be
    been being do does did done has have had having can could will would shall should may might must not no also too
    very just only both each all any some such same own more most much many few other another s t m re ve ll
"""
STOP_WORDS = frozenset(_STOP_TEXT.split())
_FORMS = """
    become became; begin began begun; break broke broken; bring brought; build built; buy bought; catch caught;
    choose chose chosen; come came; draw drew drawn; drive drove driven; eat ate eaten; fall fell fallen; feel felt;
    fight fought; find found; fly flew flown; forget forgot forgotten; get got gotten; give gave given; go went gone;
    grow grew grown; hear heard; hold held; keep kept; know knew known; lead led; leave left; lend lent; lose lost;
    make made; mean meant; meet met; pay paid; ride rode ridden; rise rose risen; run ran; say said; see saw seen;
    seek sought; sell sold; send sent; show shown; sing sang sung; sit sat; sleep slept; speak spoke spoken;
    spend spent; stand stood; steal stole stolen; swim swam swum; take took taken; teach taught; tell told;
    think thought; throw threw thrown; understand understood; wear wore worn; win won; write wrote written;
    birth born; death died die dies; child children; man men; woman women; person people
"""
_IRREGULAR = {form: forms.split()[0] for forms in _FORMS.split(";") for form in forms.split()[1:]}
_NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty"""
_NUMBER_WORDS = {
    stem(word): str(value)
    for value, word in enumerate(_NUMBERS.split())
    if word != "one"  # as often a pronoun
}
