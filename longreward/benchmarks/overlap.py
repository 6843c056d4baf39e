"""Word sequences that benchmark cases share with the training data.

A case whose text was in the training data measures memory. Sequences of 13 words are long enough that chance hits are
rare (Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C). What a base model was trained on before
is not known here.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from longreward.utils.token_spans import CJK_RANGE

if TYPE_CHECKING:
    import numpy as np

WORDS = 13
NOTABLE_SHARE = 0.2
"""Share of a case's sequences from which on the report counts it (Touvron et al. 2023: a sample below it is clean)."""
_WORD = re.compile(rf"[{CJK_RANGE}]|[^\W_{CJK_RANGE}]+")
_MULTIPLIER = 0x9E3779B97F4A7C15
_FILTER_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_FILTER_BITS = 8
"""Bits per training sequence: 5 % of the other sequences pass, or fewer where training data repeat themselves."""
_MAX_FILTER_SIZE = 2**31  # bits: 256 MiB


@dataclass(frozen=True)
class CaseOverlap:
    """The overlap of one benchmark case with all training examples."""

    case_id: str
    share: float
    """Share of the case's distinct sequences that occur in the training data; 0 for a text of fewer than 13 words."""
    example_id: str | None
    """The training example that has the most of them."""


def find_overlap(
    cases: Iterable[tuple[str, str]],
    examples: Callable[[], Iterable[tuple[str, str]]],
    words: int = WORDS,
    *,
    max_sequences: int = 2**20,
) -> list[CaseOverlap]:
    """Return the overlap of each case with the training examples, both given by id and text.

    Texts are read one at a time, those of the cases once and those of the examples twice: first for a Bloom filter of
    their sequences. In memory are the filter, and the sequences of the cases that pass it, as hashes of 8 bytes.

    Args:
        examples: Iterates over the examples from the beginning.
        max_sequences: A rough limit of the number of their sequences, for the size of the filter.
    """
    import numpy as np

    known = _SequenceFilter(max_sequences)
    for _, text in examples():
        known.add(sequence_hashes(text, words))
    case_ids, sizes, hashes = list[str](), list[int](), list[np.ndarray]()
    for case_id, text in cases:
        case_hashes = np.unique(sequence_hashes(text, words))
        case_ids.append(case_id)
        sizes.append(len(case_hashes))
        hashes.append(case_hashes[known.may_contain(case_hashes)])
    flat = np.concatenate([*hashes, np.empty(0, np.uint64)])
    order = np.argsort(flat, kind="stable")
    distinct, starts, counts = np.unique(flat[order], return_index=True, return_counts=True)
    case_of_entry = np.repeat(np.arange(len(case_ids)), [len(case_hashes) for case_hashes in hashes])[order]
    is_shared = np.zeros(len(flat), dtype=bool)
    most = np.zeros(len(case_ids), dtype=np.int64)
    sources: list[str | None] = [None] * len(case_ids)
    for example_id, text in examples():
        example_hashes = np.unique(sequence_hashes(text, words))
        positions = np.searchsorted(distinct, example_hashes)
        inside = positions < len(distinct)
        positions = positions[inside]
        shared_hashes = positions[distinct[positions] == example_hashes[inside]]
        if not len(shared_hashes):
            continue
        # Entries of equal hashes, of several cases, are adjacent.
        entries = np.concatenate([np.arange(starts[i], starts[i] + counts[i]) for i in shared_hashes])
        is_shared[entries] = True
        shared = np.bincount(case_of_entry[entries], minlength=len(case_ids))
        for case in np.flatnonzero(shared > most):
            sources[case] = example_id
        most = np.maximum(most, shared)
    totals = np.bincount(case_of_entry[is_shared], minlength=len(case_ids))
    shares = totals / np.maximum(np.array(sizes, dtype=np.int64), 1)
    return [CaseOverlap(*row) for row in zip(case_ids, shares.tolist(), sources, strict=True)]


class _SequenceFilter:
    """A Bloom filter: it contains all hashes that were added, and few others."""

    def __init__(self, max_sequences: int) -> None:
        import numpy as np

        bits = (_FILTER_BITS * max_sequences).bit_length()
        bits = min(max(bits, 16), _MAX_FILTER_SIZE.bit_length() - 1)
        self._shift = np.uint64(64 - bits)
        self._bytes = np.zeros(2**bits // 8, np.uint8)

    def add(self, hashes: "np.ndarray") -> None:
        import numpy as np

        for byte, bit in self._positions(hashes):
            np.bitwise_or.at(self._bytes, byte, bit)

    def may_contain(self, hashes: "np.ndarray") -> "np.ndarray":
        """Return a boolean for each hash."""
        import numpy as np

        contained = np.ones(len(hashes), bool)
        for byte, bit in self._positions(hashes):
            contained &= (self._bytes[byte] & bit) != 0
        return contained

    def _positions(self, hashes: "np.ndarray") -> "Iterator[tuple[np.ndarray, np.ndarray]]":
        """Yield, for each of the hash functions, the index of the byte and the bit in it of each hash."""
        import numpy as np

        for multiplier in _FILTER_MULTIPLIERS:
            positions = (hashes * np.uint64(multiplier)) >> self._shift
            yield positions >> np.uint64(3), np.uint8(1) << (positions & np.uint64(7)).astype(np.uint8)


def sequence_hashes(text: str, words: int = WORDS) -> "np.ndarray":
    """Return a 64-bit hash of each sequence of `words` words, in lower case; a CJK character is a word.

    >>> len(sequence_hashes("One, two, three.", words=2))
    2
    """
    import numpy as np

    tokens = _WORD.findall(text.lower())
    if len(tokens) < words:
        return np.empty(0, np.uint64)
    values = {token: zlib.crc32(token.encode()) | zlib.adler32(token.encode()) << 32 for token in set(tokens)}
    ids = np.fromiter((values[token] for token in tokens), np.uint64, len(tokens))
    total = np.zeros(len(tokens) - words + 1, np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2 ** 64
        for offset in range(words):
            total = total * np.uint64(_MULTIPLIER) + ids[offset : len(ids) - words + 1 + offset]
    return total
