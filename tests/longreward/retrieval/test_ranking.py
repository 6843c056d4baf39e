"""Reciprocal rank fusion and the selection of chunks, computed by hand."""

import doctest

import pytest

from longreward.retrieval import ranking
from longreward.retrieval.ranking import fuse_rankings, select_chunks


def test_doctests() -> None:
    assert doctest.testmod(ranking).attempted > 0
    assert doctest.testmod(ranking).failed == 0


@pytest.mark.parametrize(
    ("rankings", "fused"),
    [
        # 0: 1/61 + 1/63 = 0.0323, 1: 1/62 + 1/61 = 0.0325, 2: 1/63 + 1/62 = 0.0320
        ([[0, 1, 2], [1, 2, 0]], [1, 0, 2]),
        # Second in both (2/62 = 0.0323) beats first in one (1/61 = 0.0164).
        ([[7, 3, 0], [6, 3, 1]], [3, 6, 7, 0, 1]),
        # 2 and 5 have 1/61 + 1/62: equal scores are ordered by position.
        ([[5, 2], [2, 5]], [2, 5]),
        # A chunk that one ranking lacks has the score of the other alone: 4: 1/61, 1: 1/61, 0: 1/62.
        ([[4, 0], [1]], [1, 4, 0]),
        ([[], [3, 1, 2]], [3, 1, 2]),
        ([[2, 0, 1]], [2, 0, 1]),
        ([[], []], []),
    ],
)
def test_fused_ranking(rankings: list[list[int]], fused: list[int]) -> None:
    assert fuse_rankings(rankings, constant=60) == fused
    assert fuse_rankings(rankings[::-1], constant=60) == fused


def test_small_constant_favours_first_ranks() -> None:
    # First in one ranking and sixth in the other against third in both: 1/61 + 1/66 < 2/63, but 1/2 + 1/7 > 2/4.
    rankings = [[0, 2, 1], [3, 4, 1, 5, 6, 0]]
    assert fuse_rankings(rankings, constant=60)[:2] == [1, 0]
    assert fuse_rankings(rankings, constant=1)[:2] == [0, 1]


@pytest.mark.parametrize(
    ("best_first", "k", "selected"),
    [([4, 2, 0], 2, [2, 4]), ([4], 3, [0, 1, 4]), ([0, 3], 4, [0, 1, 2, 3]), ([], 2, [0, 1])],
)
def test_selected_chunks_are_in_document_order(best_first: list[int], k: int, selected: list[int]) -> None:
    assert select_chunks(best_first, k) == selected
