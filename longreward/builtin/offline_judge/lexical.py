"""Split a text into sentences, and a sentence into content words, numbers and names.

English words are stemmed lightly, Chinese characters count as bigrams, numbers and dates are normalized. The offline
judge compares sentences by the terms that they have in common.
"""

import re
import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

ValueKind = Literal["date", "year", "time", "money", "number"]


@dataclass(frozen=True)
class Value:
    """A figure of a sentence."""

    term: str
    kind: ValueKind
    position: int
    """Its index in the sentence's `order`."""


@dataclass(frozen=True)
class Sentence:
    """A sentence and its terms, which are lower-case stems; a name is the set of its words' stems."""

    text: str
    terms: frozenset[str]  # content words, numbers, parts of names, Chinese bigrams
    values: tuple[Value, ...]
    names: tuple[frozenset[str], ...]
    places: frozenset[frozenset[str]]  # the names after "in" or "at"
    order: tuple[str, ...]  # the terms in the order of the text
    negated: bool
    passive: bool  # "was … by"
    finished: bool  # ends as a sentence does

    @cached_property
    def numbers(self) -> frozenset[str]:
        """Return the terms of the values."""
        return frozenset(value.term for value in self.values)

    @cached_property
    def name_terms(self) -> frozenset[str]:
        return frozenset().union(*self.names)

    @cached_property
    def words(self) -> frozenset[str]:
        """Return the content words that are neither a number nor part of a name."""
        return self.terms - self.numbers - self.name_terms


@lru_cache(maxsize=1024)
def split_sentences(text: str) -> tuple[Sentence, ...]:
    """Return the sentences of a text in order.

    List items and lines end a sentence; abbreviations, decimals and the wrapped lines of a paragraph do not.
    """
    parts: list[str] = []
    for line in _WRAP.sub(" ", _PASSAGE_NUMBER.sub(" ", text)).splitlines():
        line = _BULLET.sub("", line).strip()
        start = 0
        for match in _BREAK.finditer(line):
            before = line[max(start, match.start() - 10) : match.start() + 1]
            if match.group()[0] != "." or not _ABBREVIATION.search(before):
                parts.append(line[start : match.end()])
                start = match.end()
        parts.append(line[start:])
    return tuple(parse_sentence(part.strip()) for part in parts if part.strip())


@lru_cache(maxsize=16384)
def parse_sentence(text: str) -> Sentence:
    """Parse one sentence."""
    plain = unicodedata.normalize("NFKC", text)
    order: list[str] = []
    values: list[Value] = []
    names: list[frozenset[str]] = []
    run: list[str] = []  # adjacent capitalized words
    places: set[frozenset[str]] = set()
    preposition = False  # before the present run
    run_start = end = 0
    for match in _TOKEN.finditer(plain):
        token = match.group()
        if run and (not token[0].isupper() or match["date"] or plain[end : match.start()] not in (" ", "-", "")):
            _end_name(run, _is_capital_required(plain, run_start), names, places if preposition else None)
        if match["date"]:  # "3 May" and "May 3rd" are the same; its month is also a term
            month = next(word for word in re.findall(r"[A-Z][a-z]+", token))
            date = f"{re.findall('[0-9]+', token)[0].lstrip('0') or '0'} {month[:3].lower()}"
            values.append(Value(date, "date", len(order)))
            order += [date, stem(month)]
        elif token[0].isdigit():
            value = _parse_number(match, plain, position=len(order))
            values.append(value)
            order.append(value.term)
        elif token[0] >= "\u3400":
            # Bigrams between the particles, which separate most Chinese content words.
            for part in _HAN_PARTICLE.split(token):
                order += [part[i : i + 2] for i in range(len(part) - 1)] if len(part) > 1 else [part] * len(part)
        else:
            term = stem(token)
            if term in _NUMBER_WORDS:
                number = _NUMBER_WORDS[term]
                if values and plain[end : match.start()] == "-" and order[-1] == values[-1].term and len(number) == 1:
                    number = str(int(values.pop().term) + int(number))  # twenty-five
                    order.pop()
                values.append(Value(number, "number", len(order)))
                order.append(number)
            elif token.lower() not in STOP_WORDS and term not in STOP_WORDS:
                order.append(term)
                if token[0].isupper() and term not in _NEVER_IN_NAMES:
                    if not run:
                        run_start = match.start()
                        preposition = bool(_PLACE_PREPOSITION.search(plain, max(0, run_start - 12), run_start))
                    run.append(term)
        end = match.end()
    _end_name(run, _is_capital_required(plain, run_start), names, places if preposition else None)
    return Sentence(
        text=text,
        terms=frozenset(order),
        values=tuple(values),
        names=tuple(names),
        places=frozenset(places),
        order=tuple(order),
        negated=bool(_NEGATION.search(plain)),
        passive=bool(_PASSIVE.search(plain)),
        finished=bool(_END.search(plain)),
    )


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """Return a light stem: "retires", "retired" and "retiring" have the same."""
    word = word.lower().removesuffix("'s").removesuffix("’s").strip("'’")
    word = _IRREGULAR.get(word, word)
    for ending, min_length in (("ies", 5), ("ied", 5), ("ing", 6), ("ed", 5), ("es", 5), ("s", 4), ("ly", 6)):
        if len(word) >= min_length and word.endswith(ending) and not word.endswith("ss"):
            word = word.removesuffix(ending) + ("y" if ending in ("ies", "ied") else "")
            break
    if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]  # "plann", from "planned"
    if len(word) > 4 and word.endswith("ll"):
        word = word[:-1]  # "travell", from "travelled"
    return word.removesuffix("e") if len(word) > 3 else word


def has_term(s: Sentence, term: str) -> bool:
    """Return whether the sentence has the term, or a word with the same beginning."""
    return term in s.terms or any(is_similar(term, other) for other in s.terms)


@lru_cache(maxsize=65536)
def is_similar(a: str, b: str) -> bool:
    """Return whether two words have the same beginning: "inventor" and "invented"."""
    length = max(5, round(0.7 * max(len(a), len(b))))
    return len(a) >= 5 and len(b) >= 5 and a[:length] == b[:length] and a[0] < "\u3400" and not a[0].isdigit()


def repetition_rate(items: Sequence[Hashable]) -> float:
    """Return the share of items that occurred before, 0 to 1."""
    return 1 - len(set(items)) / len(items) if items else 0.0


def neutralize(text: str) -> str:
    """Return the text on one line, without the characters of verdicts and tags."""
    return " ".join(text.split()).translate(_NEUTRAL)


def _parse_number(match: re.Match[str], text: str, *, position: int) -> Value:
    token = match.group().rstrip("stndrh")  # 30th
    before, after = text[max(0, match.start() - 2) : match.start()], text[match.end() : match.end() + 12]
    if ":" in token:
        return Value(token, "time", position)
    term = token.replace(",", "")  # 1,204 and 1204, 12.50 and 12.5 are the same
    term = term.rstrip("0").rstrip(".") if "." in term else term.lstrip("0") or "0"
    kind: ValueKind = "number"
    if before.endswith(("£", "$", "€", "¥")) or _CURRENCY.match(after):
        kind = "money"
    elif len(token) == 4 and token[:2] in _CENTURIES and (after[:1] == "年" or not _UNIT.match(after)):
        kind = "year"
    return Value(term, kind, position)


def _end_name(
    run: list[str], capital_required: bool, names: list[frozenset[str]], places: set[frozenset[str]] | None
) -> None:
    """Record capitalized words as a name; a single one at the start of a sentence may be any word."""
    if run and (not capital_required or len(run) > 1):
        names.append(frozenset(run))
        if places is not None:
            places.add(frozenset(run))
    run.clear()


def _is_capital_required(text: str, start: int) -> bool:
    """Return whether any word is capitalized at this position: at the beginning, after a dash, colon or quote."""
    before = text[:start].rstrip()
    return not before or before[-1] in '-–—:;*("“”‘.!?'


_HAN_PARTICLE = re.compile(r"[的了是在和与也就都而及着或被把很吗呢吧啊之其于从由对以向]")
_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|(?:Jan|Feb|Mar|Apr|Aug|Sept?|Oct|Nov|Dec)\b\.?)"
)
_TOKEN = re.compile(
    rf"(?P<date>\b\d{{1,2}}(?:st|nd|rd|th)? (?:of )?{_MONTH}"
    rf"|\b{_MONTH} (?:the )?\d{{1,2}}(?:st|nd|rd|th)?\b(?![:,.]?\d))"
    r"|\b\d{1,2}:\d{2}\b|\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:(?:st|nd|rd|th)\b)?"
    r"|[^\W\d_\u3400-\uffff]+(?:['’][a-z]+)?|[\u3400-\u9fff\uf900-\ufaff]+"
)
_PLACE_PREPOSITION = re.compile(r"\b(?:in|at|near) (?:the )?$", re.I)
_CURRENCY = re.compile(
    r"(?: ?(?:million|billion|thousand|m|bn))?[ -]?(?:pounds?|dollars?|euros?|crowns?|cents?|pence|元|美元)"
)
_UNIT = re.compile(r" [a-z]+s\b| ?(?:%|percent|kg|km|m\b|g\b)")  # "1800 houses" is no year
_CENTURIES = {str(century) for century in range(10, 21)}
_NEUTRAL = str.maketrans("[]<>", "()‹›")
_BULLET = re.compile(r"^\s*(?:[-*•·#>]+\s+|\(?\d{1,3}[.)、]\s*(?!\d)|[（(][一二三四五六七八九十]+[）)])")
_PASSAGE_NUMBER = re.compile(r"<C\d{1,6}>")  # of LongCite's documents
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
    birth born; death died die dies; child children; man men; woman women; person people; meter metre
    metres; kilometer kilometre kilometres; center centre
"""
_IRREGULAR = {form: forms.split()[0] for forms in _FORMS.split(";") for form in forms.split()[1:]}
_NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBER_WORDS = {
    stem(word): str(value)
    for value, word in (
        *enumerate(_NUMBERS.split()),
        *((10 * tens, word) for tens, word in enumerate(_TENS.split(), start=2)),
    )
    if word != "one"  # as often a pronoun
}
_CALENDAR_AND_TITLES = """
    january february march april may june july august september october november december
    monday tuesday wednesday thursday friday saturday sunday mr mrs ms miss dr prof professor judge sir madam
"""
_NEVER_IN_NAMES = frozenset(map(stem, _CALENDAR_AND_TITLES.split()))
META = parse_sentence(
    "answer question text document passage article information short one sentence final correct response states says "
    "mentioned mentions according given provided following nothing none else 没有 还有"
).terms
