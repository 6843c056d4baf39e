"""Preference data that others made, as pairs to train on: the formats of TRL and of the LongReward authors.

{"prompt": "…", "chosen": "…", "rejected": "…"}                                           texts
{"prompt": [{"role": "user", …}], "chosen": [{"role": "assistant", …}], "rejected": […]}   chats
{"chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": […]}               the prompt in both
{"context": "…", "query": "…", "win_response": "…", "lose_response": "…"}                  preference_pairs.jsonl
"""

from collections.abc import Iterator

from pydantic import Field, ValidationError

from longreward.config import Config
from longreward.data.chats import join_paragraphs
from longreward.data.formats import document_id, hash_words, is_blank, parse_id
from longreward.data.hub_source import HubConfig
from longreward.data.short_instructions import parse_preference
from longreward.data.source import Source, SourceLocation
from longreward.data.validation import Refused
from longreward.records import SHORT, PreferencePair, Response, is_short
from longreward.utils.jsonl import Row, RowError, error_reason, missing_key


class PairsConfig(Config):
    """Preference pairs that came with the data, for `pair.method: given`."""

    source: str | None = None
    """Pairs to train on in place of those that the pipeline would make: what `prepare.source` may be. `sample` and
    `score` then make nothing and `pair` passes them on, which `pair.method: given` must say. null: none."""

    checksum: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """What the source must be; needed outside data/raw."""

    hub: HubConfig = HubConfig()
    """Which part of a hub data set."""

    idx: str | None = None
    """The column with each pair's name; null: pairs are numbered from 0."""

    prompt: str = "prompt"
    """The column of the question, a text or a chat of one turn; may be missing where chosen and rejected are chats that
    hold it."""

    context: str = "context"
    """The column of the document; may be missing: the prompt then holds all."""

    chosen: str = "chosen"
    """The column of the better answer, a text or a chat that ends with it."""

    rejected: str = "rejected"
    """The column of the worse answer, a text or a chat that ends with it."""


class HeldOutIndex:
    """The documents and prompts that `evaluate` uses: a pair about one of them would train on the test."""

    def __init__(self) -> None:
        self._documents: set[str] = set()
        self._prompts: set[bytes] = set()

    def add(self, context: str, query: str) -> None:
        """An example of the held-out split."""
        self._documents.add(document_id(context))
        self._prompts.add(_prompt_hash(context, query))

    def __contains__(self, pair: PreferencePair) -> bool:
        has_document = not is_blank(pair.context) and document_id(pair.context) in self._documents
        return has_document or _prompt_hash(pair.context, pair.query) in self._prompts


def preference_from_row(row: Row, config: PairsConfig, number: int) -> PreferencePair:
    """The pair of a row; `number` counts the rows from 0. Raises RowError where it cannot be used."""
    name = str(number) if config.idx is None else parse_id(_cell(row, config.idx))
    if is_short(name):
        raise RowError(f"idx {name!r} begins with {SHORT!r}, which names the instructions of train.short")
    if _is_published(row, config):
        texts = {key: row.get(key) for key in ("context", "query", "win_response", "lose_response")}
        if bad := [
            key for key, text in texts.items() if not isinstance(text, str) or (key != "context" and is_blank(text))
        ]:
            raise RowError(f"{bad[0]} is missing or no text")
        context, query, better, worse = (str(text) for text in texts.values())
        if better == worse:
            raise RowError("both answers are the same")
    else:
        columns = {"prompt": config.prompt, "chosen": config.chosen, "rejected": config.rejected}
        query, better, worse = parse_preference(row, columns)
        context = _context(row, config)

    def response(n: int, text: str) -> Response:
        return Response(id=f"{name}-{n}", example_id=name, query=query, text=text)

    return PreferencePair(
        id=name,
        context=context,
        query=query,
        chosen=response(0, better),
        rejected=response(1, worse),
        chosen_reward=None,
        rejected_reward=None,
        method="given",
    )


def validate_pairs(
    source: Source, config: PairsConfig, held_out: HeldOutIndex
) -> Iterator[tuple[SourceLocation, PreferencePair | Refused]]:
    """Each row as a pair, or why it is left out: bad form, a name or a whole pair that came before, a held-out text."""
    place_of_id: dict[str, SourceLocation] = {}
    place_of_pair: dict[bytes, SourceLocation] = {}
    for number, (place, row) in enumerate(source.rows()):
        try:
            if isinstance(row, RowError):
                raise row
            pair = preference_from_row(row, config, number)
        except (RowError, ValidationError) as error:
            yield place, Refused(str(number) if config.idx is None else None, error_reason(error))
            continue
        content = _pair_hash(pair)
        if pair in held_out:
            reason = "its document or prompt is held out for `evaluate`"
            yield place, Refused(pair.id, reason, held_out=True)
        elif first := place_of_pair.get(content):
            yield place, Refused(pair.id, f"the same pair as {first.within(place.file)}", duplicate=True)
        elif first := place_of_id.get(pair.id):
            yield place, Refused(pair.id, f"idx {pair.id} stands in {first.within(place.file)} already")
        else:
            place_of_id[pair.id] = place_of_pair[content] = place
            yield place, pair


def _is_published(row: Row, config: PairsConfig) -> bool:
    """Whether the row is of preference_pairs.jsonl: the columns that the settings name come first."""
    named = config.chosen in row or config.rejected in row
    return not named and "win_response" in row and "lose_response" in row


def _context(row: Row, config: PairsConfig) -> str:
    if config.context not in row and config.context != PairsConfig.model_fields["context"].default:
        raise missing_key(config.context, row)
    context = join_paragraphs(row.get(config.context), config.context)
    if context is None:
        return ""
    if not isinstance(context, str):
        raise RowError(f"{config.context} is {type(context).__name__}, expected text")
    return context


def _cell(row: Row, column: str) -> object:
    if column not in row:
        raise missing_key(column, row)
    return row[column]


def _prompt_hash(context: str, query: str) -> bytes:
    """The same for a document and a question in two columns and for both in one text."""
    return hash_words(f"{context} {query}").digest()


def _pair_hash(pair: PreferencePair) -> bytes:
    texts = (pair.context, pair.query, pair.chosen.text, pair.rejected.text)
    return hash_words(" ".join(hash_words(text).hexdigest() for text in texts)).digest()
