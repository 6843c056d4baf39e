"""Values of the natural corpus: names, dates, times, figures and choices, from disjoint pools for both parts.

    >>> sampler = ValueSampler(random.Random(1), "train", {"tool": ("rake", "spade", "hoe", "fork")})
    >>> value = sampler.sample("date 1 March..20 April")
    >>> value.kind, value.text
    ('date', '9 April')

A specification is one of `person`, `town`, `date FIRST..LAST`, `time 6:30..9:45/5`, `year 1890..1930`,
`number 120..480/5`, `money 1200..9600/50` and `pool NAME`. Every value belongs to one split: even positions of a list
to `train`, odd ones to `heldout`, and dates, times and figures by a hash. No document uses a value twice.
"""

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal

Split = Literal["train", "heldout"]
Kind = Literal["person", "town", "date", "time", "number", "phrase"]
"""How a value is matched in a response; a year or a sum of money is a `number`."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MONTHS = _words("January February March April May June July August September October November December")
_YEAR_OF_DATES = 2023  # any year without 29 February; dates have no year in the texts

WOMEN = _words(
    "Agnes Beatrix Cora Dilys Edith Frances Greta Hester Imogen Joan Kirsten Lorna Maud Nell Orla Phoebe Rhona "
    "Sylvia Tamsin Una Verity Winifred Yvonne Zelda Annika Brenda Celia Doris Elspeth Freya Gwen Helga Isobel "
    "Jessamy Kerstin Leonie Muriel Noreen Ottilie Paula Rowena Sabine Thelma Ursula Viola Wendy Alma Bridget"
)
MEN = _words(
    "Alasdair Barnaby Cedric Duncan Edgar Fergus Gilbert Howard Ivor Jasper Kenneth Leonard Magnus Neville Oswald "
    "Percy Rupert Sidney Theodore Vincent Wilfred Ambrose Bertram Clement Desmond Ernest Frederick Gordon Humphrey "
    "Ingmar Jerome Kurt Laurence Mortimer Norbert Orlando Patrick Roland Sebastian Tobias Ulrich Walter Angus Basil "
    "Conrad Dietrich Eamon Fabian"
)
SURNAMES = _words(
    "Ackland Bexley Catterall Dunmore Eastwick Fairclough Gaskell Hathersage Inglewood Jellicoe Kettering Lockhart "
    "Maltravers Netherton Oakeshott Pemberton Quennell Ravenhill Satterthwaite Thackeray Underwood Vickery Wetherby "
    "Yardley Zimmern Ashdown Birtwistle Cullingford Dewhurst Ellacott Fothergill Grimshaw Hollins Ibbotson Jephcott "
    "Kirkbride Langstaff Micklethwait Nuttall Ormerod Postlethwaite Quested Rushworth Shuttleworth Tillotson Uttley "
    "Varley Winstanley Yelland Aldridge Bracegirdle Chadwick Drinkwater Entwistle Fernyhough Garside Higginbottom "
    "Illingworth Jagger Kershaw Lightfoot Murgatroyd Norcliffe Openshaw Pickersgill Ramsbottom Sugden Threlfall "
    "Unsworth Wainwright Whitworth Yeadon Appleyard Barraclough Copperthwaite Duckworth Earnshaw Fairhurst "
    "Greenhalgh Haworth Isherwood Jowett Kitching Lonsdale Midgley Naylor Oldroyd Priestley Rawnsley Stansfield "
    "Tattersall Umpleby Wigglesworth Wolstenholme Arkwright Boothroyd Crowther Dyson Eckersley Firth Gledhill "
    "Holroyd Iveson"
)
TOWNS = _words(
    "Aldersea Brackenfold Copsley Drayhaven Elmscar Farthingham Gullmouth Hawkstead Inchmere Keldholm Lambsford "
    "Marshgate Nunthorpe Osterwick Pikehaven Ravenscar Saltcombe Thornaby Ullesby Wychford Ashlock Birkenshaw "
    "Cragmouth Dovercliff Eskerton Fallowmere Greyholt Harrowick Ivelsham Kestrelby Linthwaite Mossgate Northwold "
    "Oxmere Pentlow Quarrington Rookhope Stillwater Tarnbeck Uffington Whinmoor Yarrowdale Aysgarth Bellcombe "
    "Cinderford Dunsop Everley Fenwick Gallowgate Heronsea Ivinghoe Kirkfell Ludstone Merrowdown"
)


@dataclass(frozen=True)
class Value:
    """A value as it is printed, with further forms that a response may use.

    `attributes` are what a template may ask for: `{name.last}`, `{name.he}`, `{tool.a}`.
    """

    kind: Kind
    text: str
    forms: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


def assign_split(value: str) -> Split:
    """Return the split that a date, time or figure belongs to: half of them each, independent of the machine."""
    return "train" if hashlib.sha256(value.encode()).digest()[0] % 2 == 0 else "heldout"


class ValueSampler:
    """Samples the values of one document; no value and no name occurs twice."""

    def __init__(self, rng: random.Random, split: Split, pools: Mapping[str, Sequence[str]]) -> None:
        self._rng = rng
        self._split: Split = split
        self._pools = pools
        self._used: set[str] = set()

    def sample(self, specification: str) -> Value:
        """Return a new value. Raises ValueError for an unknown specification or an exhausted pool."""
        value_type, _, argument = specification.partition(" ")
        match value_type:
            case "person" | "woman" | "man":
                return self._person(value_type)
            case "town":
                return _phrase(self._choose(self._filter_pool(TOWNS)), kind="town")
            case "pool":
                return _phrase(self._choose(self._filter_pool(self._pools[argument])))
            case "date":
                first, last = map(_day_of_year, argument.split(".."))
                return _date(self._choose(self._filter_texts([_date_text(day) for day in range(first, last + 1)])))
            case "time":
                first, last, step = _parse_range(argument, minutes=True)
                # 19:40 and 7:40 are one value: responses often omit "pm".
                minutes = [m for m in range(first, last + 1, step) if assign_split(_time_text(m % 720)) == self._split]
                return Value("time", self._choose([_time_text(m) for m in minutes]))
            case "number" | "year" | "money":
                first, last, step = _parse_range(argument)
                figure = int(self._choose(self._filter_texts([str(n) for n in range(first, last + 1, step)])))
                return figure_value(figure, value_type)
        raise ValueError(f"unknown type of value: {specification!r}")

    def _filter_pool(self, pool: Sequence[str]) -> list[str]:
        return list(pool[0 if self._split == "train" else 1 :: 2])

    def _filter_texts(self, texts: Sequence[str]) -> list[str]:
        return [text for text in texts if assign_split(text) == self._split]

    def _choose(self, texts: Sequence[str]) -> str:
        unused = [text for text in texts if text not in self._used]
        if not unused:
            raise ValueError(f"no value of the split {self._split!r} is left of {len(texts)}: {list(texts)[:5]}")
        text = self._rng.choice(unused)
        self._used.add(text)
        return text

    def _person(self, person_type: str) -> Value:
        is_woman = person_type == "woman" or (person_type == "person" and self._rng.random() < 0.5)
        first = self._choose(self._filter_pool(WOMEN if is_woman else MEN))
        last = self._choose(self._filter_pool(SURNAMES))
        pronouns = ("she", "her", "her", "Ms") if is_woman else ("he", "him", "his", "Mr")
        attributes = dict(zip(("he", "him", "his", "mr"), pronouns, strict=True)) | {"first": first, "last": last}
        return Value("person", f"{first} {last}", (last, first), attributes)


def figure_value(figure: int, figure_type: str = "number") -> Value:
    """Return a number, a year or a sum in pounds."""
    text = str(figure) if figure_type == "year" else f"{figure:,}"
    return Value("number", f"£{text}" if figure_type == "money" else text, attributes={"plain": text})


def _phrase(entry: str, kind: Kind = "phrase") -> Value:
    """Return the value of a pool's entry: the phrase, then further forms after slashes."""
    text, *forms = (form.strip() for form in entry.split("/"))
    article = "an" if text[0].lower() in "aeiou" else "a"
    without_article = re.sub(r"^(?:an?|the|my) ", "", text)
    return Value(
        kind, text, tuple(forms), {"a": f"{article} {text}", "the": f"the {without_article}", "bare": without_article}
    )


def _date(text: str) -> Value:
    day, month = text.split()
    return Value("date", text, attributes={"us": f"{month} {day}", "month": month})


def _time_text(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02d}"


def _date_text(day_of_year: int) -> str:
    day = date(_YEAR_OF_DATES, 1, 1) + timedelta(days=day_of_year - 1)
    return f"{day.day} {MONTHS[day.month - 1]}"


def _day_of_year(text: str) -> int:
    day, month = text.split()
    return date(_YEAR_OF_DATES, MONTHS.index(month) + 1, int(day)).timetuple().tm_yday


def _parse_range(text: str, *, minutes: bool = False) -> tuple[int, int, int]:
    match = re.fullmatch(r"([\d:]+)\.\.([\d:]+)(?:/(\d+))?", text)
    if match is None:
        raise ValueError(f"not a range FIRST..LAST or FIRST..LAST/STEP: {text!r}")
    first, last, step = match.groups()
    if minutes:
        first, last = (str(int(t.split(":")[0]) * 60 + int(t.split(":")[1])) for t in (first, last))
    return int(first), int(last), int(step or 1)
