"""Extract the terms that BM25 compares: words, or pairs of adjacent characters in scripts without spaces.

    extract_terms("The Harbours' café")        # ["the", "harbour", "café", "cafe"]
    extract_terms("林桥建于1988年")              # ["林桥", "桥建", "建于", "1988", "年"]
    extract_terms("maxRetry_count")            # ["maxretry", "max", "retry", "count"]
    extract_ngrams("harbour 1988")             # ["_harb", "harbo", "arbou", "rbour", "bour_", "_1988_"]

A text is normalized first, so that spellings that look the same give the same terms: compatibility forms, accents
(composed, decomposed or missing), soft hyphens, zero-width characters, and words that a line break divides. Only terms
are normalized: positions of evidence always refer to the original text.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

from longreward.utils.language import HAN_RANGE

# Scripts of which pairs of characters are terms: Han, kana and Hangul. Korean has spaces, but its particles are part of
# the word: 도서관은, 도서관이, 도서관에서.
_DENSE = HAN_RANGE + "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uac00-\ud7a3"
# Scripts of which pairs of syllables are terms: those of India and South-East Asia, from Devanagari to Khmer. Thai,
# Lao, Burmese and Khmer have no spaces between words, Tibetan has them only between syllables, and Dravidian languages
# attach many endings to a word.
_SYLLABIC = (
    "\u0900-\u0963\u0966-\u096f\u0971-\u0df3\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59\u0e81-\u0eff\u0f00\u0f20-\u0f33"
    "\u0f40-\u0f84\u0f88-\u0fbc\u1000-\u1049\u1050-\u109f\u1780-\u17d3\u17dc-\u17e9\ua8e0-\ua8ff\ua9e0-\ua9fe\uaa60-\uaa7f"
)
# The vowel signs and other marks of these scripts, which belong to the preceding letter.
_SIGNS = "".join(
    chr(code)
    for first, last in ((0x900, 0x10A0), (0x1780, 0x1800), (0xA8E0, 0xA900), (0xA9E0, 0xAA00), (0xAA60, 0xAA80))
    for code in range(first, last)
    if unicodedata.category(chr(code)) in ("Mn", "Mc")
)
_ACCENT_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0711\u0730-\u074a\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
)
_ASCII_WORD = re.compile("[A-Za-z0-9]+")
_TERM = re.compile(
    rf"(?P<dense>[{_DENSE}]+)|(?P<syllabic>[{_SYLLABIC}]+)|(?:[^\W_{_DENSE}{_SYLLABIC}]|[{_ACCENT_MARKS}])+"
)
# Thai and Lao write some vowels before the consonant that they follow in speech.
_CLUSTER = re.compile(rf"[\u0e40-\u0e44\u0ec0-\u0ec4]?[^{_SIGNS}][{_SIGNS}]*|[{_SIGNS}]+")
_INNER_CAPITAL = re.compile(r"[a-z][A-Z]|[A-Z]{2}[a-z]")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\dA-Z_]+|\d+")
_HYPHENATED = re.compile(r"(?<![^\W\d_])([^\W\d_]++)[-\u00ad\u2010\u2011][^\S\n]*\r?\n\s*([^\W\d_]+)")
_LINE_END_HYPHEN = re.compile(r"[-\u00ad\u2010\u2011][^\S\n]*\n")
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]+")
_ACCENTS = re.compile(f"[{_ACCENT_MARKS}]+")
_SAMPLED_CHARACTERS = 4000
# McNamee and Mayfield (2004), "Character n-gram tokenization for European language text retrieval": 4 and 5 are best.
# Here 5 matched 4 and needs fewer terms (docs/decisions/2026-11-27-hybrid-retrieval.md).
NGRAM_CHARACTERS = 5
# Named by the first word of the Unicode names of their letters; docs/evidence.md lists the recall of each.
TESTED_SCRIPTS = frozenset(
    (
        *("LATIN", "CYRILLIC", "GREEK"),
        *("ARMENIAN", "GEORGIAN", "HEBREW", "ARABIC", "CJK", "IDEOGRAPHIC"),
        *("HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER"),
        *("MYANMAR", "DEVANAGARI", "BENGALI", "GUJARATI", "GURMUKHI", "TAMIL"),
        *("TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "ETHIOPIC", "TIBETAN"),
        *("FULLWIDTH", "HALFWIDTH", "MODIFIER", "MATHEMATICAL"),
    )
)


def extract_terms(text: str) -> list[str]:
    """Return the terms of a text in order; a word may have several."""
    return _extract(text, _word_terms)


def extract_ngrams(text: str) -> list[str]:
    """Return the terms of a text, with each word replaced by its n-grams of 5 characters.

    Inflected forms and compounds of a word share n-grams in any language, without a stemmer or a dictionary. `_` marks
    the start and the end of a word. Numbers and pairs of characters stay whole: parts of a number mean nothing.
    """
    return _extract(text, _word_ngrams)


def _extract(text: str, word_terms: Callable[[str], list[str]]) -> list[str]:
    text = normalize(text)
    if text.isascii():  # most English text; three times as fast as the pattern with all scripts
        return [term for word in _ASCII_WORD.findall(text) for term in word_terms(word)]
    terms: list[str] = []
    for match in _TERM.finditer(text):
        if match.lastgroup == "dense":
            terms += _pairs(match[0])
        elif match.lastgroup == "syllabic":
            terms += _pairs(_CLUSTER.findall(match[0]))
        else:
            terms += word_terms(match[0])
    return terms


def normalize(text: str) -> str:
    r"""Remove invisible differences of spelling; case and accents stay.

    >>> normalize("Cafe\u0301 obser-\nvatory zero\u200bwidth ﬁn")
    'Café observatory obser- vatory zerowidth fin'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    if _LINE_END_HYPHEN.search(text):
        text = _HYPHENATED.sub(_join_hyphenated, text)  # before soft hyphens are removed
    return text if text.isascii() else _INVISIBLE.sub("", text)


def _join_hyphenated(match: re.Match[str]) -> str:
    # Keep both forms: the hyphen of "well-\nknown" cannot be distinguished from that of "obser-\nvatory".
    first, second = match.groups()
    return f"{first}{second} {first}- {second}"


def _word_terms(run: str) -> list[str]:
    word = run.casefold()
    terms = [_stem(word)]
    # In addition to the exact word, so that a missing accent, or "Youtube" for "YouTube", still matches. The exact word
    # stays a term, because Vietnamese words may differ in their accents alone.
    if not word.isascii() and (plain := _strip_accents(word)) != word:
        terms.append(_stem(plain))
    if run != word and _INNER_CAPITAL.search(run):
        terms += [_stem(part.casefold()) for part in _CAMEL.findall(run)]
    return terms


def _word_ngrams(run: str) -> list[str]:
    return [ngram for word in _word_terms(run) for ngram in _ngrams(word)]


@lru_cache(maxsize=50_000)  # words repeat; about 30 MB
def _ngrams(word: str) -> tuple[str, ...]:
    marked = f"_{word}_"
    if len(marked) <= NGRAM_CHARACTERS or any(map(str.isdigit, word)):
        return (marked,)
    return tuple(marked[start : start + NGRAM_CHARACTERS] for start in range(len(marked) - NGRAM_CHARACTERS + 1))


def _strip_accents(word: str) -> str:
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", word)))


def _pairs(units: Sequence[str]) -> list[str]:
    return [first + second for first, second in pairwise(units)] if len(units) > 1 else list(units)


def _stem(word: str) -> str:
    """Remove the s of an English plural or genitive."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def untested_scripts(texts: Sequence[str]) -> list[str]:
    """Return the scripts of at least a tenth of the letters that are not in TESTED_SCRIPTS, by their Unicode names.

    Looks at a sample of a few thousand characters, spread evenly over all texts.
    """
    step = max(1, sum(map(len, texts)) // _SAMPLED_CHARACTERS)
    letters = (letter for text in texts if not text.isascii() for letter in text[::step] if letter.isalpha())
    counts = Counter(re.split("[ -]", unicodedata.name(letter, "unknown"))[0] for letter in letters)
    total = counts.total()
    return sorted(script for script, count in counts.items() if script not in TESTED_SCRIPTS and 10 * count >= total)
