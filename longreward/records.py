"""The records that stages exchange, in the order in which they come into being.

    Example        {"id": "11", "document_id": "…", "context": "…", "query": "…", "answer": "…"}
    Response       {"id": "11-3", "example_id": "11", "query": "…", "text": "…"}
    Extraction     {"example_id": "11", "query": "…", "extracts": […]}
    ScoredResponse {"response": {…}, "verdicts": {"helpfulness": {"score": 7.0, …}, …}}
    PreferencePair {"id": "11", "query": "…", "context": "…", "chosen": {…}, "rejected": {…}, …}

All are frozen. `longreward.formats` reads and writes them as the published files of the LongReward authors.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Dimension = Literal["helpfulness", "logicality", "faithfulness", "completeness"]
DIMENSIONS: tuple[Dimension, ...] = ("helpfulness", "logicality", "faithfulness", "completeness")


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
    """One sampled answer; its id is `<example id>-<n>`."""

    id: str
    example_id: str
    query: str
    text: str
    tokens: int | None = None
    finish_reason: Literal["stop", "length"] | None = None


class Extract(Record):
    """What the judge took from `context[start:end]` that bears on the query; `None`: nothing there, or no answer."""

    start: int
    end: int
    first_percent: int
    last_percent: int
    text: str | None
    reason: str | None = None  # why there is no readable answer; None where the judge said "nothing relevant"


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
    """One dimension's score from 0 to 10, or the reason why there is none, with all that the judge said for it."""

    score: float | None = Field(ge=0, le=10)
    reason: str | None = None
    analysis: str | None = None
    statements: tuple[Statement, ...] = ()


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
        scores = [self.verdicts[d].score for d in DIMENSIONS if d in self.verdicts]
        known = [score for score in scores if score is not None]
        return sum(known) / len(DIMENSIONS) if len(known) == len(DIMENSIONS) else None


class PreferencePair(Record):
    """The best against the worst response to one example; rewards are means on the scale of 0 to 10."""

    id: str
    context: str
    query: str
    chosen: Response
    rejected: Response
    chosen_reward: float
    rejected_reward: float
