"""The records that pipeline stages exchange, in pipeline order.

    Example        {"id": "11", "document_id": "…", "context": "…", "query": "…", "answer": "…"}
    Response       {"id": "11-3", "example_id": "11", "query": "…", "text": "…", "token_ids": […]}
    Extraction     {"example_id": "11", "query": "…", "extracts": […]}
    ScoredResponse {"response": {…}, "verdicts": {"helpfulness": {"score": 7.0, …}, …}}
    PreferencePair {"id": "11", "query": "…", "context": "…", "chosen": {…}, "rejected": {…}, …}

All records are frozen. `longreward.data.formats` reads and writes them as the files that the LongReward authors
published.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

PaperDimension = Literal["helpfulness", "logicality", "faithfulness", "completeness"]
OptionalDimension = Literal["rubric", "citations"]
Dimension = PaperDimension | OptionalDimension
DIMENSIONS: tuple[PaperDimension, ...] = ("helpfulness", "logicality", "faithfulness", "completeness")
"""The dimensions of the paper, which every response is scored in."""
OPTIONAL_DIMENSIONS: tuple[OptionalDimension, ...] = ("rubric", "citations")
"""Further dimensions, which `score.optional_dimensions` adds."""
EQUAL_WEIGHTS: Mapping[Dimension, float] = dict.fromkeys(DIMENSIONS, 1.0)
Role = Literal["sft", "dpo"]
"""Which of the two compared models: the SFT model, or the model that DPO trained from it."""
Bounds = tuple[float, float]
"""The lowest and the highest possible value; both are equal when the value is known."""


class Record(BaseModel):
    """A frozen record; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RubricItem(Record):
    """One requirement of a good response."""

    text: str
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class Example(Record):
    """A query about a long document, with the reference answer and the rubric of the data set if there are any."""

    id: str
    document_id: str
    context: str
    query: str
    answer: str | None = None
    rubric: tuple[RubricItem, ...] = ()


class Response(Record):
    """One sampled response; its id is `<example id>-<n>`.

    The last five fields describe the sampling. They are None in published files, and partly None for servers that
    return no token ids.
    """

    id: str
    example_id: str
    query: str
    text: str
    tokens: int | None = None
    """Number of sampled tokens without the end token."""
    finish_reason: Literal["stop", "length"] | None = None
    """`length`: the response was cut at the token limit."""
    token_ids: tuple[NonNegativeInt, ...] | None = None
    """Sampled token ids, including the end token unless the response was truncated."""
    prompt_tokens: int | None = None
    """Tokens of the prompt that the model received, after truncation to the context window."""
    prompt_hash: str | None = None
    """Hash of the token ids of that prompt (`policy.hash_ids`)."""

    @property
    def truncated(self) -> bool:
        """Whether the response was cut at the token limit."""
        return self.finish_reason == "length"

    @property
    def number(self) -> int:
        """Index of this sample among the samples of its example; it breaks ties between equal rewards."""
        return int(self.id.rpartition("-")[2])


class Extract(Record):
    """Information relevant to the query in `context[start:end]`; `text` is None if there is none or no answer."""

    start: int
    end: int
    first_percent: int
    last_percent: int
    text: str | None
    reason: str | None = None  # why the reply cannot be parsed; None if the judge said "nothing relevant"
    truncated: bool = False  # the text is the complete part of a reply that was cut at its token limit


class JudgeUsage(Record):
    """The judge and the prompts behind a result, and the number of calls and tokens."""

    prompt_hashes: tuple[str, ...] = ()
    judge: str = ""
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Extraction(JudgeUsage):
    """The extracts of one example in document order, shared by all of its responses."""

    example_id: str
    query: str
    extracts: tuple[Extract, ...]


class Rubric(JudgeUsage):
    """The rubric of one prompt, shared by all of its responses; the usage is that of writing it.

    `reason`: why there are no items.
    """

    items: tuple[RubricItem, ...] = ()
    reason: str | None = None


class Evidence(Record):
    """A chunk that the judge was shown: `text == context[start:end]`."""

    start: int
    end: int
    text: str
    relevance: float | None = None
    """For a cited passage: 1 if it has something that the statement says, else 0."""


class Statement(Record):
    """One factual statement of a response with its support by the document: 1, 0.5, 0 or None (unreadable).

    `votes` has the support by each judge of a panel (`judge.panel`), of which `support` is the majority. In the
    dimension rubric it is an item of the rubric, with support 1 if the response meets it, else 0.
    """

    text: str
    support: float | None
    votes: dict[str, float | None] = Field(default_factory=dict)
    analysis: str | None = None
    evidence: tuple[Evidence, ...] = ()
    reason: str | None = None
    weight: float = 1.0


class MemberScore(JudgeUsage):
    """The score of one dimension by one judge of a panel, None without a readable reply, with the judge's usage."""

    score: float | None


class Verdict(JudgeUsage):
    """The score of one dimension from 0 to 10, or the reason why there is none.

    `bounds` is set if adaptive scoring stopped before the score was known because the pair does not depend on it.
    `truncated`: the score rests on the complete part of a reply that was cut at its token limit.
    """

    score: float | None = Field(ge=0, le=10)
    bounds: Bounds | None = None
    reason: str | None = None
    analysis: str | None = None
    statements: tuple[Statement, ...] = ()
    truncated: bool = False
    members: tuple[MemberScore, ...] = ()
    """The judges of a panel; empty for one judge."""

    @property
    def score_bounds(self) -> Bounds | None:
        """Bounds of the score; None if the response is unscored."""
        return self.bounds if self.score is None else (self.score, self.score)


class ScoredResponse(Record):
    """A response with a verdict in each dimension of the paper and in the optional ones that are in use, or with the
    reward of a reward model.
    """

    response: Response
    verdicts: dict[Dimension, Verdict]
    model_reward: float | None = None
    """The reward of a reward model, on its own scale, in place of verdicts."""

    @property
    def complete(self) -> bool:
        """Whether every dimension has a score."""
        return all(d in self.verdicts and self.verdicts[d].score is not None for d in self.dimensions)

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The dimensions of the paper and the optional ones with a verdict."""
        return (*DIMENSIONS, *(d for d in OPTIONAL_DIMENSIONS if d in self.verdicts))

    @property
    def reward(self) -> float | None:
        """The mean of the scores, 0 to 10 (paper, section 3.1); None unless every dimension has a score.

        With a reward model, its reward.
        """
        if self.model_reward is not None:
            return self.model_reward
        bounds = self.reward_bounds()
        return bounds[0] if bounds is not None and self.complete else None

    def reward_bounds(self, weights: Mapping[Dimension, float] = EQUAL_WEIGHTS) -> Bounds | None:
        """Bounds of the weighted mean of the scores; None if a dimension with a weight is unscored."""
        if self.model_reward is not None:
            return self.model_reward, self.model_reward
        return weighted_bounds({d: verdict.score_bounds for d, verdict in self.verdicts.items()}, weights)


def weighted_bounds(
    bounds: Mapping[Dimension, Bounds | None], weights: Mapping[Dimension, float] = EQUAL_WEIGHTS
) -> Bounds | None:
    """Return bounds of the weighted mean of the scores, 0 to 10.

    An optional dimension that is judged has weight 1 unless `weights` has another. None if a dimension with a weight
    has no bounds: such a response takes no part in pairs.
    """
    # Summed in a fixed order: floating-point addition is monotonic, so a later score never leaves these bounds.
    low = high = total = 0.0
    for dimension in (*DIMENSIONS, *OPTIONAL_DIMENSIONS):
        weight = weights.get(dimension, float(dimension in bounds))
        if weight == 0:
            continue
        dimension_bounds = bounds.get(dimension)
        if dimension_bounds is None:
            return None
        low, high, total = low + weight * dimension_bounds[0], high + weight * dimension_bounds[1], total + weight
    return low / total, high / total


class PreferencePair(Record):
    """The chosen and the rejected response to one example.

    Rewards are on the scale of the pair method: means from 0 to 10 for `longreward`, logits of the reward model for
    `srm`, None for methods without rewards.
    """

    id: str
    context: str
    query: str
    chosen: Response
    rejected: Response
    chosen_reward: float | None
    rejected_reward: float | None
    method: str = "longreward"
    """The `pair.method` that made the pair; `given` for pairs of an external data set."""
    member_margins: dict[str, float] = Field(default_factory=dict)
    """The margin by each judge of a panel (`judge.panel`), negative where it prefers the rejected response."""
    disputed: bool = False
    """Whether these margins lie further apart than `pair.max_disagreement`."""

    @property
    def margin(self) -> float | None:
        """Chosen minus rejected reward; None without rewards."""
        if self.chosen_reward is None or self.rejected_reward is None:
            return None
        return self.chosen_reward - self.rejected_reward
