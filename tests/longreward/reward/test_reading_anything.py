"""The readers under whatever a judge may say: no exception, nothing outside its range, no time to speak of."""

import random
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longreward.judging.chat import Answer
from longreward.judging.thinking import has_thought, said, with_thought
from longreward.reward.reading import read_extraction, read_rating, read_statements, read_support

NO, NOTHING = "<no_statement/>", "No relevant information"
PIECES = (
    *("[[", "]]", "[", "]", "7", "10", "-1", "11", ".5", "1e9", "٣", "²", " ", "\n", "\x00", "\ud800", "鹭", "[[7]]"),
    *("Rating: [[3]]", "[[Fully supported]]", "[[No support]]", "Partially", " / ", "[[ / ]]", "[[inf]]", "[[nan]]"),
    *("<statement>", "</statement>", NO, "<statement>One.</statement>", "<", "</", NOTHING, "no relevant", "1. ", "- "),
    *(
        "<think>",
        "</think>",
        "[THINK]",
        "[/THINK]",
        "◁think▷",
        "◁/think▷",
        "</reasoning>",
        "<|channel|>final<|message|>",
    ),
    *("<|channel|>final<|message|>", "<<answer>>", "content_filter", '{"choices": []}', "a" * 50),
)
WHOLE = re.compile(
    r"(?:<(?:think|thinking|thought|reasoning)>|\[THINK\]|◁think▷).*?"
    r"(?:</(?:think|thinking|thought|reasoning)>|\[/THINK\]|◁/think▷)",
    re.IGNORECASE | re.DOTALL,
)


def check(text: str) -> None:
    """All of the readers on one text."""
    rating, support = read_rating(text), read_support(text)
    assert rating is None or 0 <= rating <= 10
    assert support in (None, 0.0, 0.5, 1.0)
    statements = read_statements(text, NO)
    tagged = [found.strip() for found in re.findall("<statement>(.*?)</statement>", text, re.DOTALL) if found.strip()]
    assert statements == (tuple(tagged) or (() if NO in text else None))
    found = read_extraction(text, NOTHING)
    assert (found is None) == (not text.strip())
    assert found is None or found.text is None or found.text == text.strip()
    for finish in ("stop", "length"):
        for thinks in (True, False):
            spoken = said(Answer(text, finish), thinks=thinks)
            assert len(spoken) <= len(text)
            assert text.endswith(spoken) or WHOLE.search(text) or finish == "length" or has_thought(Answer(text))
    if text.strip() and "\n" not in text and not set("<[◁") & set(text):
        assert said(Answer(with_thought(text, "[[4]]"))) == "[[4]]"


@settings(max_examples=1000, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=25).map("".join)))
def test_no_text_is_read_as_what_it_cannot_mean(text: str) -> None:
    check(text)


def test_nor_is_any_of_ten_thousand_shuffled_ones() -> None:
    chance = random.Random(0)
    for _ in range(10_000):
        check("".join(chance.choices(PIECES, k=chance.randrange(20))))


READERS: dict[str, Callable[[str], object]] = {
    "rating": read_rating,
    "support": read_support,
    "statements": lambda text: read_statements(text, NO),
    "extraction": lambda text: read_extraction(text, NOTHING),
    "thinking": lambda text: said(Answer(text)),
    "cut": lambda text: said(Answer(text, "length"), thinks=True),
}
MEGABYTE = 1_000_000
LONG = {
    piece: (start + piece * (MEGABYTE // len(piece)) + end)
    for start, piece, end in (
        *(("", piece, "") for piece in ("[[", "[[ ", "[[1", "[[a ", "[[ 1.", " ", "\n", " \n", "1", "- ", '"')),
        *(("[[", piece, "") for piece in ("a", "1.", "a/")),
        *((f"{NOTHING}\n", piece, "x") for piece in ("\n\n", "1 ", "-\n", "\t")),
        *(("", piece, "") for piece in ("<statement>", "</statement>", "<statement>a", "</", "<")),
        *(("</think>", piece, "") for piece in ("<think>", "</think>", "<think></think>", "[THINK]a", "</think><")),
    )
}


@pytest.mark.parametrize("piece", LONG)
def test_a_megabyte_of_malice_is_read_in_less_than_a_second(piece: str) -> None:
    for name, read in READERS.items():
        started = time.perf_counter()
        read(LONG[piece])
        assert time.perf_counter() - started < 1, name
