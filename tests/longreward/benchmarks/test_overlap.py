"""Word sequences that benchmark cases share with training examples."""

from hypothesis import given, settings
from hypothesis import strategies as st

from longreward.benchmarks.overlap import CaseOverlap, find_overlap

TEXT = "Ann Lee founded the market of Keld in 1905 , and it opened in 1931 ."  # 14 words


def expected_overlap(case: str, examples: list[str], words: int) -> float:
    def sequences(text: str) -> set[tuple[str, ...]]:
        tokens = text.lower().split()
        return {tuple(tokens[i : i + words]) for i in range(len(tokens) - words + 1)}

    known = set().union(*map(sequences, examples))
    return len(sequences(case) & known) / max(len(sequences(case)), 1)


def test_share_and_source_of_overlap() -> None:
    cases = {"copied": f"{TEXT} Who did it?", "other": "One two three four five six seven eight nine ten eleven " * 2}
    cases |= {"short": "Who founded it?"}
    examples = [("1", "Nothing in common."), ("2", f"Once, {TEXT.upper()}"), ("3", TEXT)]
    # 17 words are five sequences, of which two are in both examples; the first example counts.
    assert find_overlap(cases.items(), lambda: examples) == [
        CaseOverlap("copied", 0.4, "2"),
        CaseOverlap("other", 0.0, None),
        CaseOverlap("short", 0.0, None),
    ]


def test_chinese_characters_are_words() -> None:
    text = "凯尔德镇的市场于一九三一年开放"
    [case] = find_overlap([("zh", text)], lambda: [("1", f"据说{text}。")])
    assert case.share == 1.0


def test_no_cases_and_no_examples() -> None:
    assert find_overlap([], lambda: [("1", TEXT)]) == []
    assert find_overlap([("a", TEXT)], list) == [CaseOverlap("a", 0.0, None)]


texts = st.lists(st.sampled_from("abc"), max_size=12).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(st.lists(texts, min_size=1, max_size=4), st.lists(texts, max_size=4))
def test_shares_equal_those_of_sets(cases: list[str], examples: list[str]) -> None:
    found = find_overlap(
        [(str(i), text) for i, text in enumerate(cases)], lambda: [(str(i), t) for i, t in enumerate(examples)], 3
    )
    assert [case.share for case in found] == [expected_overlap(case, examples, 3) for case in cases]
