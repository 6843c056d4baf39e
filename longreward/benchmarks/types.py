"""The one shape of all benchmarks, and the records that they exchange.

    Case      one question of the benchmark, with all that judging it needs
    Answer    {"case_id": "81", "turns": ["Aloha! …", "Aloha, …"], …}
    Verdict   {"case_id": "81", "part": "turn 1", "exact": 7.0, "strict": 7.0, "judgment": "… [[7]]", …}
    Summary   figures with intervals, read in two ways

Two readings of every verdict stand side by side. `exact` is what the benchmark's published code would make of it, with
its quirks; `strict` counts a failure as a failure: what cannot be read is unscored, and counted as such.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from longreward.evaluation.statistics import Estimate
from longreward.judge import Judge

OnProgress = Callable[[int], None]
"""Called with the number of cases done so far."""

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class GenerationRequest:
    """What the model is asked once: a conversation that ends with the user's turn."""

    id: str  # its random stream is made of it and of `seed`
    messages: tuple[Message, ...]
    temperature: float
    max_new_tokens: int
    seed: int = 0
    max_prompt_tokens: int | None = None
    """The last turn keeps its first and last halves where it has more tokens, or the window no room for it."""


@dataclass(frozen=True)
class Completion:
    """What the model said to one Ask."""

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"] | None
    prompt_tokens: int  # as asked, after a cut
    cut: bool = False


class ChatClient(Protocol):
    """A model that answers conversations, in this process or at a server."""

    @property
    def name(self) -> str:
        """As files and tables name it."""
        ...

    async def say(self, asks: Sequence[GenerationRequest], *, tell: OnProgress = lambda done: None) -> list[Completion]:
        """One answer to each, in their order. PolicyError or ServerUnavailable where none can be had."""
        ...


@dataclass(frozen=True)
class Answer:
    """A model's answer to one case: a turn for each of the case's turns."""

    case_id: str
    turns: tuple[str, ...]
    tokens: tuple[int, ...]
    finish_reasons: tuple[str | None, ...]
    prompt_tokens: tuple[int, ...]
    cut: bool
    created: float  # seconds since 1970


@dataclass(frozen=True)
class Verdict:
    """One question to the judge about an answer, all that it said, and what both readings make of it."""

    case_id: str
    part: str  # "turn 2", "reference 1", "fact 3", "swapped", …: unique within its case
    template: str
    system: str
    prompt: str
    judgment: str
    exact: float | None  # None: the published code leaves it out
    strict: float | None  # None exactly where `reason` says why
    reason: str | None = None
    judge: str = ""
    created: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """One number of the summary under both readings, in the benchmark's own units."""

    name: str  # "score", "turn_1", "category/math", "set/qasper"
    exact: Estimate | None
    strict: Estimate | None
    cases: int
    unscored: int  # verdicts without a strict reading


@dataclass(frozen=True)
class CaseValue:
    """One case's value for pictures: scores by category, against the context's length, their distribution."""

    case_id: str
    category: str
    context_tokens: int
    value: float  # the strict reading, in the units of the benchmark's `top`


@dataclass(frozen=True)
class Summary:
    """What a model is worth on one benchmark; `figures[0]` is the headline."""

    benchmark: str
    figures: tuple[Metric, ...]
    values: tuple[CaseValue, ...]
    ratings: tuple[float, ...]  # each strict verdict as the judge gave it

    def metrics(self) -> dict[str, float]:
        """`mt_bench/score/strict`, `…/exact`, `…/unscored` and so on: the same names for every model."""
        found: dict[str, float] = {}
        for figure in self.figures:
            name = f"{self.benchmark}/{figure.name}"
            found |= {f"{name}/{mode}": each.value for mode, each in _modes(figure) if each is not None}
            found[f"{name}/unscored"] = float(figure.unscored)
        return found


def _modes(figure: Metric) -> tuple[tuple[str, Estimate | None], ...]:
    return ("exact", figure.exact), ("strict", figure.strict)


@dataclass(frozen=True)
class IntervalOptions:
    """How intervals are computed."""

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0


class Case(Protocol):
    """What every benchmark's own case has."""

    @property
    def id(self) -> str: ...

    @property
    def category(self) -> str: ...


C = TypeVar("C", bound=Case)


class Benchmark(Protocol[C]):
    """One benchmark with its files read."""

    @property
    def name(self) -> str:
        """`mt_bench`: of figures, files and settings."""
        ...

    @property
    def top(self) -> float:
        """The highest score, for axes."""
        ...

    @property
    def official(self) -> bool:
        """Whether the published cases are put to the published judge prompts: else no score can be held against
        published ones."""
        ...

    @property
    def judging(self) -> "JudgeOptions":
        """How its judge is asked."""
        ...

    @property
    def cases(self) -> Sequence[C]:
        """All cases, in the order of their file."""
        ...

    async def answer(self, speaker: ChatClient, cases: Sequence[C], *, tell: OnProgress) -> list[Answer]:
        """The model's answers, in the order of `cases`."""
        ...

    async def judge(
        self, judge: Judge, items: Sequence[tuple[C, Answer]], *, tell: OnProgress
    ) -> list[tuple[Verdict, ...]]:
        """The verdicts on each answer, in the order of `items`."""
        ...

    def summarise(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], intervals: IntervalOptions) -> Summary:
        """Figures over everything; pure, so that kept files can be summarised again."""
        ...

    def write(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """The benchmark's own files below `folder`, where it has such; nothing otherwise."""
        ...


@dataclass(frozen=True)
class JudgeOptions:
    """What differs from the judge's own settings: the published protocol's temperatures and tries."""

    temperature: float = 0.0
    retry_temperature: float = 0.0
    attempts: int = 1
