"""What is to be scored: each example with its responses, read from their files when its turn comes.

    items = read_items(Path("preference.jsonl"), Path("sampled_responses.jsonl"))
    len(items), items[0]        # (10000, (Example(…), [Response(…), …]))

Documents are long: 10,000 of 32,000 tokens are more than a gigabyte. Held are only the places of their lines.
"""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from longreward.errors import DataError
from longreward.formats import example_of, response_of
from longreward.lines import Lines
from longreward.records import Example, Response

WithResponses = tuple[Example, Sequence[Response]]


def read_items(data: Path, responses: Path) -> "Items":
    """The examples that have responses, in the order of `data`.

    Raises DataError where a record cannot be used, comes twice, or where the example of a response is not there or
    asks something else.
    """
    answers = Lines(responses, response_of)
    groups: dict[str, array[int]] = {}
    queries: dict[str, str] = {}
    seen: set[str] = set()
    for place, response in answers.scan():
        if response.id in seen:
            raise DataError(f"{responses}: idx {response.id} comes twice")
        seen.add(response.id)
        groups.setdefault(response.example_id, array("q")).append(place)
        if queries.setdefault(response.example_id, response.query) != response.query:
            raise _stray(responses, response, data)
    examples = Lines(data, example_of)
    found = array("q")
    grouped: list[array[int]] = []
    missing = set(groups)
    for place, example in examples.scan():
        group = groups.get(example.id)
        if group is None:
            continue
        if example.id not in missing:
            raise DataError(f"{data}: idx {example.id} comes twice; which of the two do its responses answer?")
        missing.remove(example.id)
        if queries.pop(example.id) != example.query:
            raise _stray(responses, answers.at(group[0]), data)
        found.append(place)
        grouped.append(group)
    if missing:
        raise DataError(
            f"{responses} has responses to {len(missing)} example(s) not in {data}, such as {min(missing)!r}"
        )
    return Items(examples, found, answers, grouped)


class Items(Sequence[WithResponses]):
    """A sequence that reads what it is asked for; a slice reads nothing yet."""

    def __init__(
        self,
        examples: Lines[Example],
        places: "array[int]",
        responses: Lines[Response],
        groups: "Sequence[array[int]]",
    ) -> None:
        self._examples = examples
        self._places = places
        self._responses = responses
        self._groups = groups

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> WithResponses: ...
    @overload
    def __getitem__(self, index: slice) -> "Items": ...
    def __getitem__(self, index: int | slice) -> "WithResponses | Items":
        if isinstance(index, slice):
            return Items(self._examples, self._places[index], self._responses, self._groups[index])
        group = self._groups[index]
        return self._examples.at(self._places[index]), [self._responses.at(place) for place in group]


def _stray(responses: Path, response: Response, data: Path) -> DataError:
    return DataError(f"{responses}: the query of {response.id} is not that of example {response.example_id} in {data}")
