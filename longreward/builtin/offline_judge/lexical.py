"""Split a text into sentences, and a sentence into content words, numbers and names.

English words are stemmed lightly; Chinese, Japanese and Korean characters count as bigrams; numbers, dates and times
are normalized. The offline judge compares sentences by the terms that they have in common.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Literal

ValueType = Literal["date", "year", "time", "money", "number"]


@dataclass(frozen=True)
class Value:
    """A figure of a sentence."""

    term: str
    type: ValueType
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
    negated: frozenset[str]  # the terms after "not" and its like, in the same clause
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

    List items and lines end a sentence; abbreviations, decimals and the wrapped lines of a paragraph do not. A row of a
    Markdown table is a sentence in which the heading of its column follows each cell.
    """
    parts: list[str] = []
    for line in _label_cells(_WRAP.sub(" ", _PASSAGE_NUMBER.sub(" ", text)).splitlines()):
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
    plain = _normalize(text)
    order: list[str] = []
    starts: list[int] = []  # of the terms, in `plain`
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
            month = re.findall(r"[A-Z][a-z]+", token)[0]
            date = f"{re.findall('[0-9]+', token)[0].lstrip('0') or '0'} {month[:3].lower()}"
            values.append(Value(date, "date", len(order)))
            order += [date, stem(month)]
        elif token[-1].isdigit() or token[0].isdigit():
            value = _parse_number(match, plain, position=len(order))
            values.append(value)
            order.append(value.term)
        elif is_cjk(token):
            # Bigrams between the particles, which separate most Chinese content words.
            for part in _HAN_PHRASE.finditer(token):
                for i in range(part.start(), max(part.end() - 1, part.start() + 1)):
                    order.append(token[i : min(i + 2, part.end())])
                    starts.append(match.start() + i)
        else:
            term = stem(token)
            if term in _NUMBER_WORDS:
                number = _NUMBER_WORDS[term]
                if values and plain[end : match.start()] == "-" and order[-1] == values[-1].term and len(number) == 1:
                    number = str(int(values.pop().term) + int(number))  # twenty-five
                    order.pop()
                    starts.pop()
                values.append(Value(number, "number", len(order)))
                order.append(number)
            elif token.lower() not in STOP_WORDS and term not in STOP_WORDS and not token.endswith(("n't", "n’t")):
                order.append(term)
                if token[0].isupper() and term not in _NEVER_IN_NAMES:
                    if not run:
                        run_start = match.start()
                        preposition = bool(_PLACE_PREPOSITION.search(plain, max(0, run_start - 12), run_start))
                    run.append(term)
        starts += [match.start()] * (len(order) - len(starts))
        end = match.end()
    _end_name(run, _is_capital_required(plain, run_start), names, places if preposition else None)
    return Sentence(
        text=text,
        terms=frozenset(order),
        values=tuple(values),
        names=tuple(names),
        places=frozenset(places),
        order=tuple(order),
        negated=_negated_terms(plain, order, starts),
        passive=bool(_PASSIVE.search(plain)),
        finished=bool(_END.search(plain)),
    )


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """Return a light stem: "retires", "retired" and "retiring" have the same."""
    form = word.lower().removesuffix("'s").removesuffix("’s").strip("'’")
    form = _IRREGULAR.get(form, form)
    for ending, min_length in (("ies", 5), ("ied", 5), ("ing", 6), ("ed", 5), ("es", 5), ("s", 4), ("ly", 6)):
        if len(form) >= min_length and form.endswith(ending) and not form.endswith("ss"):
            form = form.removesuffix(ending) + ("y" if ending in ("ies", "ied") else "")
            break
    if len(form) > 4 and form[-1] == form[-2] and form[-1] not in "aeiouls":
        form = form[:-1]  # "plann", from "planned"
    if len(form) > 4 and form.endswith("ll"):
        form = form[:-1]  # "travell", from "travelled"
    return form.removesuffix("e") if len(form) > 3 else form


def has_term(s: Sentence, term: str) -> bool:
    """Return whether the sentence has the term, or a word with the same beginning."""
    return term in s.terms or any(is_similar(term, other) for other in s.terms)


def is_cjk(term: str) -> bool:
    """Return whether a term is of Chinese, Japanese or Korean characters."""
    return term[0] >= "\u3040"


def polarity_differs(a: Sentence, b: Sentence) -> bool:
    """Return whether one sentence negates what the other one says."""
    return bool(a.negated & b.terms) != bool(b.negated & a.terms)


@lru_cache(maxsize=65536)
def is_similar(a: str, b: str) -> bool:
    """Return whether two words have the same beginning: "inventor" and "invented"."""
    length = max(5, round(0.7 * max(len(a), len(b))))
    return len(a) >= 5 and len(b) >= 5 and a[:length] == b[:length] and not is_cjk(a) and not a[0].isdigit()


def repetition_rate(items: Sequence[Hashable]) -> float:
    """Return the share of items that occurred before, 0 to 1."""
    return 1 - len(set(items)) / len(items) if items else 0.0


def neutralize(text: str) -> str:
    """Return the text on one line, without the characters of verdicts and tags."""
    return " ".join(text.split()).translate(_NEUTRAL)


def _parse_number(match: re.Match[str], text: str, *, position: int) -> Value:
    token = match.group().rstrip("stndrh").replace("−", "-")  # 30th
    before, after = text[max(0, match.start() - 2) : match.start()], text[match.end() : match.end() + 12]
    if ":" in token:
        return Value(token.removeprefix("0"), "time", position)
    term = _plain_number(token)
    value_type: ValueType = "number"
    if before.endswith(("£", "$", "€", "¥")) or _CURRENCY.match(after):
        value_type = "money"
    elif len(token) == 4 and token[:2] in _CENTURIES and (after[:1] == "年" or not _UNIT.match(after)):
        value_type = "year"
    return Value(term, value_type, position)


def _plain_number(token: str) -> str:
    """Return a number without separators and redundant zeros: 1,204 and 1204, 12.50 and 12.5 are the same."""
    term = token.replace(",", "")
    return term.rstrip("0").rstrip(".") if "." in term else term.lstrip("0") or "0"


def _normalize(text: str) -> str:
    """Return the text with numeric dates in words, times of 24 hours, multiples of thousands in digits, and no accents.

    2024-05-03 is "3 May 2024", 4 pm is "16:00", 1.2 million is "1200000".
    """
    plain = unicodedata.normalize("NFKC", text)
    if not plain.isascii():  # the vowel signs of Hindi and others, which are no letters, would split words
        plain = "".join(c for c in plain if unicodedata.category(c)[0] != "M")
    plain = _YEAR_FIRST_DATE.sub(lambda m: _date(m[3], m[2], m[1]), plain)
    plain = _YEAR_LAST_DATE.sub(_parse_year_last, plain)
    plain = _TWELVE_HOURS.sub(lambda m: f"{int(m[1]) % 12 + 12 * (m[3].lower() == 'p')}:{m[2] or '00'}", plain)
    return _MULTIPLE.sub(
        lambda m: _plain_number(f"{Decimal(m[1].replace(',', '')) * _MULTIPLES[m[2].lower()]:f}"), plain
    )


def _parse_year_last(match: re.Match[str]) -> str:
    """Return the date in words; 03/05/2024 stays as it is, since countries differ in its order."""
    first, separator, second, year = match.groups()
    if int(second) > 12:
        return _date(second, first, year) if int(first) <= 12 else match[0]
    return _date(first, second, year) if separator == "." or int(first) > 12 else match[0]


def _date(day: str, month: str, year: str) -> str:
    return f"{int(day)} {_MONTHS[int(month) - 1]} {year} "


def _label_cells(lines: list[str]) -> Iterator[str]:
    """Yield the lines, with its column's heading after each cell of a Markdown table: "688 employees"."""
    header: list[str] = []
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("|"):
            header = []
            yield line
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if number + 1 < len(lines) and _TABLE_RULE.fullmatch(lines[number + 1].strip()):
            header = cells
        elif header and not _TABLE_RULE.fullmatch(line.strip()):
            yield ", ".join(f"{cell} {name.lower()}".strip() for name, cell in zip(header, cells, strict=False))
        elif not header:
            yield line


def _negated_terms(text: str, order: Sequence[str], starts: Sequence[int]) -> frozenset[str]:
    """Return the terms after each negation, up to the end of its clause, that the sentence has nowhere else."""
    in_scope: set[int] = set()
    for match in _NEGATION.finditer(text):
        first = bisect_left(starts, match.end())
        following = starts[first : first + NEGATION_SCOPE]
        if following:
            clause_end = _NEGATION_END.search(text, match.end(), following[-1])
            end = clause_end.start() if clause_end else len(text)
            in_scope.update(range(first, first + bisect_left(following, end)))
    return frozenset(order[i] for i in in_scope) - {term for i, term in enumerate(order) if i not in in_scope}


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


_HAN_PHRASE = re.compile(r"[^的了是在和与也就都而及着或被把很吗呢吧啊之其于从由对以向]+")
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"  # kana, Han, Hangul
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_MONTH = (
    rf"(?:{'|'.join(_MONTHS)}"
    r"|(?:Jan|Feb|Mar|Apr|Aug|Sept?|Oct|Nov|Dec)\b\.?)"
)
_TOKEN = re.compile(
    rf"(?P<date>\b\d{{1,2}}(?:st|nd|rd|th)? (?:of )?{_MONTH}"
    rf"|\b{_MONTH} (?:the )?\d{{1,2}}(?:st|nd|rd|th)?\b(?![:,.]?\d))"
    r"|\b\d{1,2}:\d{2}\b|(?:(?<![^\s(])[-−])?(?:\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:(?:st|nd|rd|th)\b)?)"
    rf"|[^\W\d_{_CJK}]+(?:['’][a-z]+)?|[{_CJK}]+"
)
_YEAR_FIRST_DATE = re.compile(
    r"(?<!\d)(\d{4})(?:[-/.]|年)(0?[1-9]|1[0-2])(?:[-/.]|月)(0?[1-9]|[12]\d|3[01])(?:日|(?!\d))"
)
_YEAR_LAST_DATE = re.compile(r"\b(0?[1-9]|[12]\d|3[01])([/.])(0?[1-9]|[12]\d|3[01])\2(\d{4})\b")
_TWELVE_HOURS = re.compile(r"\b(1[0-2]|0?[1-9])(?:[:.](\d{2}))? ?([ap])(?:m\b|\.m\.)", re.I)
_MULTIPLES = {
    "thousand": 10**3, "k": 10**3, "million": 10**6, "billion": 10**9, "bn": 10**9, "万": 10**4, "亿": 10**8
}  # fmt: skip
_MULTIPLE = re.compile(r"(?<![A-Za-z\d.,])(\d[\d,]*(?:\.\d+)?) ?(thousand\b|million\b|billion\b|bn\b|k\b|[万亿])", re.I)
_TABLE_RULE = re.compile(r"\|?(?: *:?-{2,}:? *\|?)+")
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
    r"(?<![.!?])[.!?]++(?:[\"'”’)\]]*(?=\s|$)|[\"”’)\]]*(?=[A-Z][a-z]+ ))|[。！？；।؟]+[”’」』）]*|(?<!…)…++(?=\s)"
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|[ap]\.m|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|No|Nos|Fig|Figs|Eq|Sec|Ref|Vol|Ch|pp?|vs|cf|ca|etc|al|approx|e\.g|i\.e"
    r"|U\.S|U\.K|Jan|Feb|Mar|Apr|Aug|Sept?|Oct|Nov|Dec|Inc|Ltd|Co|Gen|Col|Capt)\.$"
)
_END = re.compile(r"[.!?。！？…；।؟][\"'”’」』）)\]]*$")
_PASSIVE = re.compile(r"\b(?:is|are|was|were|been|being) \w+ by\b|被")
_NEGATION = re.compile(
    r"\b(?:not(?! only)|never|neither|nor|cannot|nobody|nothing|none|without|no(?= [a-z]))\b|n['’]t\b"
    r"|不(?!仅|但|断|同|久)|没有|未(?!来)|从未|并非|ない|않",
    re.I,
)
_NEGATION_END = re.compile(r"[,;:，；：]|\b(?:but|and|because|although|before|after|until)\b|但")
NEGATION_SCOPE = 4  # terms after a negation to which it applies
_STOP_TEXT = """
    a an the this that these those there here it its he his him she her hers they them their i me my we us our you
    your who whom whose which what when where why how and or but nor so if then than as at by for from in into of off
    on onto to up upon with within without about over under after before between during through is am are was were be
    been being do does did done has have had having can could will would shall should may might must not no also too
    very just only both each all any some such same own more most much many few other another yes s t m re ve ll
    never neither cannot nobody nothing none
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
    stem(number_word): str(value)
    for value, number_word in (
        *enumerate(_NUMBERS.split()),
        *((10 * tens, number_word) for tens, number_word in enumerate(_TENS.split(), start=2)),
    )
    if number_word != "one"  # as often a pronoun
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
