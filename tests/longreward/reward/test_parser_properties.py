"""Parsers on arbitrary text: no exception, no value out of range, no text that is not in the reply."""

import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from longreward.chat_model import ChatReply
from longreward.judge.reasoning import has_reasoning, prepend_reasoning, strip_reasoning
from longreward.reward.parser_sets import PARSERS

NO, NOTHING = "<no_statement/>", "No relevant information"
PIECES = (
    *("[[", "]]", "[", "]", "7", "10", "-1", "11", ".5", "1e9", "٣", "²", " ", "\n", "\x00", "\ud800", "鹭", "[[7]]"),
    *(
        "Rating: [[3]]",
        "[[Fully supported]]",
        "[[No support]]",
        "[[Yes]]",
        "Partially",
        " / ",
        "[[ / ]]",
        "[[inf]]",
        "[[nan]]",
    ),
    *(
        "<statement>",
        "</statement>",
        NO,
        "<statement>One.</statement>",
        "<Statement id=1>",
        "<",
        "</",
        NOTHING,
        "no relevant",
        "1. ",
        "- ",
    ),
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
    """All of the parsers on one text."""
    for parsers in PARSERS.values():
        rating, support = parsers.rating(text), parsers.support(text)
        assert rating is None or 0 <= rating <= 10
        assert support in (None, 0.0, 0.5, 1.0)
        extracted = parsers.extraction(text, NOTHING)
        assert extracted is None or extracted.text is None or extracted.text in text
    statements = PARSERS["strict"].statements(text, NO)
    assert not statements or all(statement and statement in text for statement in statements) or text.strip()[0] in "{["
    tagged = [
        result.strip() for result in re.findall("<statement>(.*?)</statement>", text, re.DOTALL) if result.strip()
    ]
    assert PARSERS["published"].statements(text, NO) == (tuple(tagged) or (() if NO in text else None))
    assert (PARSERS["strict"].extraction(text, NOTHING) is None) == (not text.strip())
    for finish in ("stop", "length"):
        for thinks in (True, False):
            spoken = strip_reasoning(ChatReply(text, finish), thinks=thinks)
            assert len(spoken) <= len(text)
            assert text.endswith(spoken) or WHOLE.search(text) or finish == "length" or has_reasoning(ChatReply(text))
    if text.strip() and "\n" not in text and not set("<[◁") & set(text):
        assert strip_reasoning(ChatReply(prepend_reasoning(text, "[[4]]"))) == "[[4]]"


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=25).map("".join)))
def test_random_text_not_misread(text: str) -> None:
    check(text)


def test_shuffled_replies_not_misread() -> None:
    chance = random.Random(0)
    for _ in range(3_000):
        check("".join(chance.choices(PIECES, k=chance.randrange(20))))
