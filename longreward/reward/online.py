"""A reward function for TRL's online trainers, such as GRPOTrainer.

    trainer = GRPOTrainer(
        model="models/sft",
        reward_funcs=OnlineReward(LongReward(judge, ledger=Path("ledger.sqlite"))),
        train_dataset=Dataset.from_list(list(prompt_rows(examples, tokenizer))),
        …
    )

TRL calls it once per batch with the prompts, the completions and every column of the data set, each a list of the
batch's length, and awaits it together with other asynchronous reward functions. `None` means that a completion has no
reward; TRL then leaves it out of its group.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from longreward.data.formats import parse_rubric
from longreward.errors import ConfigError
from longreward.records import Example, RubricItem, ScoredResponse
from longreward.reward.long_reward import LongReward
from longreward.utils.jsonl import RowError

if TYPE_CHECKING:
    from longreward.models.policy import PolicyTokenizer
    from longreward.reward.reward_model import RewardModel

Completion: TypeAlias = str | Sequence[Mapping[str, Any]]
"""The generated text, or the messages of a conversation, of which the last one's content counts."""


class OnlineReward:
    """Returns the reward of each completion: 0 to 10, or None if a dimension has no score.

    A reward model (`load_reward_model`) in place of a LongReward gives rewards on its own scale, without dimensions.

    Completions to one prompt share the extracts of its document, equal completions are judged once, and with a ledger
    no request is ever repeated. `context`, `query` and `rubric` name the columns with the document, the query and the
    rubric (`prompt_rows` writes them); without a column of rubrics the judge writes them, if they are in use. The
    trainer logs the mean of each dimension and the share of unscored completions as metrics, and each dimension as a
    column of its table of completions.
    """

    __name__ = "longreward"  # the name in TRL's logs

    def __init__(
        self,
        reward: "LongReward | RewardModel | None" = None,
        *,
        context: str = "context",
        query: str = "query",
        rubric: str | None = None,
    ) -> None:
        self._reward = reward or LongReward()
        if isinstance(self._reward, LongReward):
            self._reward.check_immediate("an online reward")
        else:
            self.__name__ = "reward_model"
        self._columns = (context, query)
        self._rubric = rubric

    async def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Score a batch, with TRL's signature. Raises ConfigError for a missing column, and the errors of the judge."""
        contexts, queries = (self._texts(name, columns, len(completions)) for name in self._columns)
        # TRL repeats the prompt of a group once per completion; grouped, its document is processed once.
        groups: dict[tuple[str, str, tuple[RubricItem, ...]], list[int]] = {}
        for index, prompt in enumerate(zip(contexts, queries, self._rubrics(columns, len(completions)), strict=True)):
            groups.setdefault(prompt, []).append(index)
        examples = [
            (
                Example(id=str(number), document_id=str(number), context=context, query=query, rubric=rubric),
                [completion_text(completions[index]) for index in indices],
            )
            for number, ((context, query, rubric), indices) in enumerate(groups.items())
        ]
        by_index: dict[int, ScoredResponse] = {}
        for indices, scored in zip(groups.values(), await self._reward.ascore_examples(examples), strict=True):
            by_index |= zip(indices, scored.responses, strict=True)
        responses = [by_index[index] for index in range(len(completions))]
        for dimension in responses[0].verdicts:  # a reward model gives none
            scores = [scored.verdicts[dimension].score for scored in responses]
            available = [score for score in scores if score is not None]
            if log_extra is not None:
                log_extra(dimension, scores)
            if log_metric is not None and available:
                log_metric(f"longreward/{dimension}", sum(available) / len(available))
        if log_metric is not None:
            log_metric(f"{self.__name__}/unscored", sum(scored.reward is None for scored in responses) / len(responses))
        return [scored.reward for scored in responses]

    def _rubrics(self, columns: Mapping[str, Any], count: int) -> list[tuple[RubricItem, ...]]:
        if self._rubric is None:
            return [()] * count
        try:
            return [parse_rubric(value) for value in self._column(self._rubric, columns, count)]
        except RowError as error:
            raise ConfigError(f"the column {self._rubric!r} of the training data: {error}") from None

    def _texts(self, name: str, columns: Mapping[str, Any], count: int) -> list[str]:
        values = self._column(name, columns, count)
        for value in values:
            if not isinstance(value, str):
                raise ConfigError(f"the column {name!r} of the training data: a text is needed, not {value!r:.80}")
        return values

    @staticmethod
    def _column(name: str, columns: Mapping[str, Any], count: int) -> list[Any]:
        values = columns.get(name)
        if not isinstance(values, list) or len(values) != count:
            existing = ", ".join(key for key, column in columns.items() if isinstance(column, list)) or "none"
            raise ConfigError(
                f"the online reward needs the column {name!r} in the training data, which has: {existing}. Name your "
                "columns with OnlineReward(context=…, query=…, rubric=…), or create the rows with prompt_rows"
            )
        return values


def prompt_rows(examples: Iterable[Example], tokenizer: "PolicyTokenizer") -> Iterator[dict[str, Any]]:
    """Yield rows for TRL: the prompt as every stage renders it, and the columns that the reward needs.

    TRL tokenizes the prompt itself. A space is therefore inserted into special tokens in a document (`< |im_end|>`).
    """
    for example in examples:
        content = tokenizer.chat.break_controls(tokenizer.message(example.context, example.query))
        # A conversation, not a string: TRL then applies the model's own chat template.
        row = {"prompt": [{"role": "user", "content": content}], "context": example.context, "query": example.query}
        yield row | ({"rubric": [item.model_dump() for item in example.rubric]} if example.rubric else {})


def completion_text(completion: Completion) -> str:
    """Return the text of a completion; of a conversation, the last message without images and tool calls."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
    return content or ""
