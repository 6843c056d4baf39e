"""The reward while a policy learns: a reward function for TRL's online trainers, such as GRPOTrainer.

    trainer = GRPOTrainer(
        model="models/sft",
        reward_funcs=OnlineReward(LongReward(judge, ledger=Path("ledger.sqlite"))),
        train_dataset=Dataset.from_list(list(prompt_rows(examples, tokenizer))),
        …
    )

TRL calls it once a batch with the prompts, the completions and every column of the data set, each a list of the batch's
length, and awaits it beside its other asynchronous reward functions. `None` says that a completion has no reward: it
then takes no part in its group.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from longreward.errors import ConfigError
from longreward.records import DIMENSIONS, Example, ScoredResponse
from longreward.reward.long_reward import LongReward

if TYPE_CHECKING:
    from longreward.models.policy import PolicyTokenizer

Completion: TypeAlias = str | Sequence[Mapping[str, Any]]
"""The generated text, or the turns of a conversation, of which the last one's content counts."""


class OnlineReward:
    """The reward of each completion, 0 to 10, or None where a dimension of it has no score.

    Completions to one prompt share what the judge extracts from its document, equal ones are judged once, and with a
    ledger nothing that was ever asked is asked again. `context` and `query` name the columns with the document and the
    question. As metrics the trainer gets the mean of each dimension and the share without a reward; to its table of
    completions each dimension is a column.
    """

    __name__ = "longreward"  # under which TRL logs it

    def __init__(self, reward: LongReward | None = None, *, context: str = "context", query: str = "query") -> None:
        self._reward = reward or LongReward()
        self._reward.check_immediate("an online reward")
        self._columns = (context, query)

    async def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """TRL's contract. Raises ConfigError where a column is missing, and what the judge raises."""
        contexts, queries = (self._column(name, columns, len(completions)) for name in self._columns)
        groups: dict[tuple[str, str], list[int]] = {}
        for place, prompt in enumerate(zip(contexts, queries, strict=True)):
            groups.setdefault(prompt, []).append(place)
        examples = [
            (
                Example(id=str(number), document_id=str(number), context=context, query=query),
                [completion_text(completions[place]) for place in places],
            )
            for number, ((context, query), places) in enumerate(groups.items())
        ]
        scored = await self._reward.ascore_examples(examples)
        cards: dict[int, ScoredResponse] = {}
        for places, group in zip(groups.values(), scored, strict=True):
            cards |= zip(places, group.responses, strict=True)
        _log([cards[place] for place in range(len(completions))], log_extra, log_metric)
        return [cards[place].reward for place in range(len(completions))]

    def _column(self, name: str, columns: Mapping[str, Any], count: int) -> list[str]:
        found = columns.get(name)
        if not isinstance(found, list) or len(found) != count or not all(isinstance(text, str) for text in found):
            there = ", ".join(key for key, values in columns.items() if isinstance(values, list)) or "none"
            raise ConfigError(
                f"the online reward needs the column {name!r} of texts in the training data; it has {there}. Name "
                "yours with OnlineReward(context=…, query=…), or make the rows with prompt_rows"
            )
        return found


def prompt_rows(examples: Iterable[Example], tokenizer: "PolicyTokenizer") -> Iterator[dict[str, Any]]:
    """Rows for TRL: the prompt as every stage renders it, and the columns that the reward needs.

    TRL tokenizes the prompt by itself, so special tokens in a document get a space inside, as in `< |im_end|>`.
    """
    for example in examples:
        content = tokenizer.chat.break_controls(tokenizer.message(example.context, example.query))
        yield {"prompt": [{"role": "user", "content": content}], "context": example.context, "query": example.query}


def completion_text(completion: Completion) -> str:
    """The text of a completion; of a conversation, what its last turn says, without images and calls of tools."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
    return content or ""


def _log(
    cards: Sequence[ScoredResponse],
    log_extra: Callable[[str, list[Any]], None] | None,
    log_metric: Callable[[str, float], None] | None,
) -> None:
    for dimension in DIMENSIONS:
        scores = [card.verdicts[dimension].score for card in cards]
        known = [score for score in scores if score is not None]
        if log_extra is not None:
            log_extra(dimension, scores)
        if log_metric is not None and known:
            log_metric(f"longreward/{dimension}", sum(known) / len(known))
    if log_metric is not None:
        log_metric("longreward/unscored", sum(card.reward is None for card in cards) / len(cards))
