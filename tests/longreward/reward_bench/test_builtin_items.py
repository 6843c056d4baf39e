"""Faults that look right: their values are in the document, their labels are known."""

from longreward.reward_bench.builtin_items import REGISTERS, builtin_items, hard_lists, hard_pairs


def by_kind(number: int):
    return {item.group: item for item in hard_pairs(number + 1) if item.document == f"reward-bench-{number}"}


def test_first_hard_case():
    pairs = by_kind(0)
    right = "Thea Penrose drew 178 maps. Hanna Jarvis built the broken chapel."
    wrong = "Thea Penrose drew 78 maps. Hanna Jarvis built the broken chapel."
    aside = "Stefan Trask sent 188 letters. Rosa Dahl drew 403 maps. Nora Voss studied painting."
    first = pairs["bare"]
    assert first.query == "How many maps did Thea Penrose draw, and what did Hanna Jarvis build?"
    assert {kind: pair.responses for kind, pair in pairs.items()} == {
        "another's value": (right, wrong),
        "another's fact": (right, "Tess Jansen drew 78 maps. Hanna Jarvis built the broken chapel."),
        "padded, less": (right, f"Thea Penrose drew 178 maps. {aside}"),
        "padded, wrong": (right, f"{wrong} {aside}"),
        "bare": ("178, broken chapel.", wrong),
        "partial": ("Thea Penrose drew 178 maps.", wrong),
    }
    assert first.labels == (1.0, 0.0)
    for mentioned in ("Thea Penrose drew 178 maps", "Hanna Jarvis built the broken chapel", "Tess Jansen drew 78 maps"):
        assert mentioned in first.context


def test_people_of_question_are_in_one_register():
    item = by_kind(0)["partial"]
    paragraphs = item.context.split("\n\n")
    assert len(paragraphs) == 5 * REGISTERS
    mentioned = {number // 5 for number, text in enumerate(paragraphs) if "Penrose" in text or "Jarvis" in text}
    assert len(mentioned) == 1


def test_hard_lists_labelled_from_right_to_wrong():
    (item,) = hard_lists(1)
    pairs = by_kind(0)
    right, wrong = pairs["another's value"].responses
    assert item.labels == (4.0, 3.0, 2.0, 1.0, 0.0)
    assert (item.responses[0], item.responses[3]) == (right, wrong)
    assert item.responses[2] == pairs["partial"].responses[0]
    assert item.responses[1].startswith(right)


def test_hard_items_are_deterministic():
    items = list(hard_pairs(200))
    assert len({item.id for item in items}) == 1200
    assert items[:60] == list(hard_pairs(10))


def test_builtin_items_have_unique_ids_and_several_groups():
    items = list(builtin_items(cases=2, documents=3))
    assert len({item.id for item in items}) == len(items)
    assert {len(item.responses) for item in items} == {2, 4, 5}
    assert {"value changed", "another's value", "value wrong", "list", "hard list"} <= {item.group for item in items}
