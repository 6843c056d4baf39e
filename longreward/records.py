"""The records that stages exchange, in the order in which they come into being.

    Example        {"id": "11", "document_id": "…", "context": "…", "query": "…", "answer": "…"}
    Response       {"id": "11-3", "example_id": "11", "query": "…", "text": "…", "token_ids": […]}
    Extraction     {"example_id": "11", "query": "…", "extracts": […]}
    ScoredResponse {"response": {…}, "verdicts": {"helpfulness": {"score": 7.0, …}, …}}
    PreferencePair {"id": "11", "query": "…", "context": "…", "chosen": {…}, "rejected": {…}, …}

All are frozen. `longreward.data.formats` reads and writes them as the published files of the LongReward authors.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

Dimension = Literal["helpfulness", "logicality", "faithfulness", "completeness"]
DIMENSIONS: tuple[Dimension, ...] = ("helpfulness", "logicality", "faithfulness", "completeness")
EQUAL_WEIGHTS: Mapping[Dimension, float] = dict.fromkeys(DIMENSIONS, 1.0)
Method = Literal["longreward", "srm", "contrast", "pairwise", "random", "given"]
"""How a pair's two responses were told apart: `pair.method`; those of `train.short` are `given` too."""
Role = Literal["sft", "dpo"]
"""Which of the two compared models: the SFT model, or the one that DPO trained from it."""
SHORT = "short/"
"""How the ids of examples and pairs without a document begin, wherever they are among others."""
Bounds = tuple[float, float]
"""The lowest and the highest that something can still turn out to be; twice the same value where it is known."""


def is_short(name: str) -> bool:
    """Whether an example or a pair of this id has no document."""
    return name.startswith(SHORT)


class Record(BaseModel):
    """Frozen; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Example(Record):
    """One query about one long document, with the data's own answer where there is one."""

    id: str
    document_id: str
    context: str
    query: str
    answer: str | None = None


class Response(Record):
    """One sampled answer; its id is `<example id>-<n>`.

    The last five fields say how it was sampled. They are absent where that is not known: in published files, and in
    part at servers that return no token ids.
    """

    id: str
    example_id: str
    query: str
    text: str
    tokens: int | None = None
    """Sampled tokens, without the end token."""
    finish_reason: Literal["stop", "length"] | None = None
    """`length`: the response reached the limit of tokens before it ended."""
    token_ids: tuple[NonNegativeInt, ...] | None = None
    """What was sampled, with the end token unless the response was truncated."""
    prompt_tokens: int | None = None
    """Tokens of the prompt as it was put to the model, which may have been cut to fit."""
    prompt_hash: str | None = None
    """Of the prompt's token ids (`policy.hash_ids`)."""

    @property
    def truncated(self) -> bool:
        """Whether it reached the limit of tokens before it ended."""
        return self.finish_reason == "length"

    @property
    def number(self) -> int:
        """Which sample of its example it is: equal rewards go by it."""
        return int(self.id.rpartition("-")[2])


class Extract(Record):
    """What the judge took from `context[start:end]` that bears on the query; `None`: nothing there, or no answer."""

    start: int
    end: int
    first_percent: int
    last_percent: int
    text: str | None
    reason: str | None = None  # why there is no readable answer; None where the judge said "nothing relevant"
    truncated: bool = False  # the complete points of a reply that was cut at its token limit


class Judged(Record):
    """Which prompts and judge something comes from, and what it cost."""

    prompt_hashes: tuple[str, ...] = ()
    judge: str = ""
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Extraction(Judged):
    """The extracts of one example, in document order; made once for all of its responses."""

    example_id: str
    query: str
    extracts: tuple[Extract, ...]


class Evidence(Record):
    """A chunk that was shown to the judge: `text == context[start:end]`."""

    start: int
    end: int
    text: str


class Statement(Record):
    """One factual statement of a response and how far the document supports it: 1, 0.5 or 0 (None: unreadable)."""

    text: str
    support: float | None
    analysis: str | None = None
    evidence: tuple[Evidence, ...] = ()
    reason: str | None = None


class Verdict(Judged):
    """One dimension's score from 0 to 10, or the reason why there is none, with all that the judge said for it.

    `bounds` only where the judge was not asked (to the end) because the pair did not depend on it: the score that it
    would have given lies between them. `truncated`: the score rests on the complete part of a reply that was cut at its
    token limit (`judge.truncated_replies`).
    """

    score: float | None = Field(ge=0, le=10)
    bounds: Bounds | None = None
    reason: str | None = None
    analysis: str | None = None
    statements: tuple[Statement, ...] = ()
    truncated: bool = False

    @property
    def known(self) -> Bounds | None:
        """What is known of the score; None where there is none to be had."""
        return self.bounds if self.score is None else (self.score, self.score)


class ScoredResponse(Record):
    """A response with a verdict for each dimension that was asked."""

    response: Response
    verdicts: dict[Dimension, Verdict]

    @property
    def complete(self) -> bool:
        """Whether all four dimensions have a score."""
        return all(d in self.verdicts and self.verdicts[d].score is not None for d in DIMENSIONS)

    @property
    def reward(self) -> float | None:
        """The mean of the four scores, 0 to 10 (paper, section 3.1); None unless all four are there."""
        known = self.bounds()
        return known[0] if known is not None and self.complete else None

    def bounds(self, weights: Mapping[Dimension, float] = EQUAL_WEIGHTS) -> Bounds | None:
        """Between which values the mean of the scores lies; None where a dimension of some weight is unscored."""
        return reward_bounds({d: verdict.known for d, verdict in self.verdicts.items()}, weights)


def reward_bounds(
    known: Mapping[Dimension, Bounds | None], weights: Mapping[Dimension, float] = EQUAL_WEIGHTS
) -> Bounds | None:
    """Between which values the weighted mean of scores lies, 0 to 10; with equal weights that is the reward.

    None where a dimension of some weight is None or absent: the response then takes no part in pairs. Floats are added
    one by one, so that a sum never falls when a part of it rises: no later score leads out of the bounds.
    """
    low = high = whole = 0.0
    for dimension in DIMENSIONS:
        weight = weights[dimension]
        if weight == 0:
            continue
        bounds = known.get(dimension)
        if bounds is None:
            return None
        low, high, whole = low + weight * bounds[0], high + weight * bounds[1], whole + weight
    return low / whole, high / whole


class PreferencePair(Record):
    """The better against the worse response to one example.

    Rewards are on the method's own scale: means from 0 to 10 of LongReward, the reward model's figures of `srm`; None
    where the method gives none.
    """

    id: str
    context: str
    query: str
    chosen: Response
    rejected: Response
    chosen_reward: float | None
    rejected_reward: float | None
    method: Method = "longreward"

    @property
    def margin(self) -> float | None:
        """By how much the chosen one's reward is higher; None where there are none."""
        if self.chosen_reward is None or self.rejected_reward is None:
            return None
        return self.chosen_reward - self.rejected_reward
