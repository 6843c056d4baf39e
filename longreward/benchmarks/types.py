"""The base class of all benchmarks and the records that they exchange.

    case                 one question of the benchmark with everything that judging it needs
    GenerationRequest    a conversation that the model continues once
    Answer               the model's turns for one case
    Verdict              one reply of the judge about an answer
    Summary              the metrics of one model, each with a confidence interval

Every verdict has one value. `benchmark.parsing` selects how it is parsed: `published` as the benchmark's published code
does, with its quirks, to compare with published scores; `strict` accepts only the requested format, and everything else
is unscored, with a reason, and counted.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar

from longreward.benchmarks.published_formats import IndexedJsonList
from longreward.chat_model import ChatRequest
from longreward.evaluation.statistics import Estimate, IntervalOptions
from longreward.judge import Judge, ParsedReply
from longreward.utils.concurrency import gather, with_progress
from longreward.utils.jsonl import IndexedJsonl

OnProgress = Callable[[int], None]
"""Called with the number of completed cases."""
Role = Literal["system", "user", "assistant"]
TOY_DATA = Path(__file__).parents[1] / "builtin" / "benchmarks"


def ignore_progress(done: int) -> None:
    """Do nothing: the default progress callback."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class GenerationRequest:
    """A conversation that ends with a user turn, and how to sample the next assistant turn."""

    id: str  # together with `seed` it selects the random stream
    messages: tuple[Message, ...]
    temperature: float
    max_new_tokens: int
    seed: int = 0
    max_prompt_tokens: int | None = None
    """A longer last turn is truncated in the middle: its first and last halves remain."""
    chat: bool = True
    """False: the model continues the text of the only turn as it is, without its chat template."""
    answer_prefix: str = ""
    """The text that the model's turn starts with. A server that renders prompts itself gets it at the end of the last
    turn instead."""


@dataclass(frozen=True)
class Completion:
    """The model's reply to one request."""

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"] | None
    prompt_tokens: int  # after truncation
    prompt_truncated: bool = False


# The generation settings of LongReward's evaluation code, which are the same for all cases of a benchmark.
LONGREWARD_MAX_NEW_TOKENS = 1024
LONGREWARD_MAX_PROMPT_TOKENS = 64_000
LONGREWARD_TEMPERATURE = 1.0
LONGREWARD_SEED = 42


def longreward_request(request_id: str, prompt: str, *, max_new_tokens: int | None = None) -> GenerationRequest:
    """Return a single-turn request with LongReward's settings; `max_new_tokens` can only lower the limit."""
    return GenerationRequest(
        request_id,
        (Message("user", prompt),),
        LONGREWARD_TEMPERATURE,
        lower_limit(LONGREWARD_MAX_NEW_TOKENS, max_new_tokens),
        seed=LONGREWARD_SEED,
        max_prompt_tokens=LONGREWARD_MAX_PROMPT_TOKENS,
    )


class ChatClient(Protocol):
    """A model that continues conversations, in this process or on a server."""

    @property
    def name(self) -> str:
        """The model's name in files and tables."""
        ...

    @property
    def window(self) -> int:
        """The maximum number of prompt and answer tokens together."""
        ...

    def count_tokens(self, request: GenerationRequest) -> int:
        """Return the tokens of the rendered prompt, without truncation."""
        ...

    async def generate(
        self, requests: Sequence[GenerationRequest], *, on_progress: OnProgress = ignore_progress
    ) -> list[Completion]:
        """Return one completion per request, in order. Raises PolicyError or ServerUnavailable."""
        ...


@dataclass(frozen=True)
class Answer:
    """A model's answer to one case, with one entry per turn."""

    case_id: str
    turns: tuple[str, ...]
    tokens: tuple[int, ...]
    finish_reasons: tuple[str | None, ...]
    prompt_tokens: tuple[int, ...]
    prompt_truncated: bool
    created: float  # Unix time in seconds

    @classmethod
    def from_completions(cls, case_id: str, completions: Sequence[Completion]) -> Self:
        """Combine the completions of all turns."""
        return cls(
            case_id,
            turns=tuple(completion.text for completion in completions),
            tokens=tuple(completion.tokens for completion in completions),
            finish_reasons=tuple(completion.finish_reason for completion in completions),
            prompt_tokens=tuple(completion.prompt_tokens for completion in completions),
            prompt_truncated=any(completion.prompt_truncated for completion in completions),
            created=time.time(),
        )


@dataclass(frozen=True)
class Verdict:
    """One request to the judge about an answer, its reply, and the parsed value."""

    case_id: str
    part: str  # "turn 2", "reference 1", "sentence 1, fact 3", …: unique within its case
    template: str
    system: str
    prompt: str
    judgment: str
    value: float | None  # None: unscored, for the `reason`
    reason: str | None = None
    judge: str = ""
    created: float = 0.0
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_reply(
        cls,
        case_id: str,
        part: str,
        request: ChatRequest,
        reply: ParsedReply[Any],
        *,
        value: float | None,
        unscored_reason: str,
        metadata: dict[str, Any],
    ) -> Self:
        """Combine a request with its parsed reply.

        Args:
            unscored_reason: The reason if the judge replied but the reply has no value.
        """
        return cls(
            case_id,
            part,
            request.template,
            request.system,
            request.text,
            reply.text,
            value=value,
            reason=None if value is not None else reply.reason or unscored_reason,
            judge=reply.judge,
            created=time.time(),
            metadata=metadata,
        )


@dataclass(frozen=True)
class Metric:
    """One metric, in the benchmark's own units."""

    name: str  # "score", "turn_1", "category/math", "set/qasper"
    estimate: Estimate | None
    cases: int
    unscored: int  # verdicts without a value
    is_score: bool = True  # False: on another scale than the scores, such as a length; not in plots


@dataclass(frozen=True)
class CaseScore:
    """The score of one case, on the scale from 0 to the benchmark's `max_score`."""

    case_id: str
    category: str
    context_tokens: int
    score: float


@dataclass(frozen=True)
class Summary:
    """The result of one model on one benchmark; the first metric is the headline."""

    benchmark: str
    metrics: tuple[Metric, ...]
    case_scores: tuple[CaseScore, ...]
    ratings: tuple[float, ...]  # of all verdicts with a value, on the judge's scale
    curve: tuple[tuple[int, float], ...] = ()
    """Mean score by the tokens of the context, if a benchmark has several cases of each length; plotted instead of the
    cases."""

    def to_dict(self) -> dict[str, float]:
        """Return the metrics as logged: `mt_bench/score`, `mt_bench/score/unscored`."""
        values: dict[str, float] = {}
        for metric in self.metrics:
            name = f"{self.benchmark}/{metric.name}"
            if metric.estimate is not None:
                values[name] = metric.estimate.value
            values[f"{name}/unscored"] = float(metric.unscored)
        return values


@dataclass(frozen=True)
class JudgeOptions:
    """The judge settings that a published protocol prescribes."""

    temperature: float = 0.0
    retry_temperature: float = 0.0
    max_attempts: int = 1


class Case(Protocol):
    """The attributes that the cases of all benchmarks have."""

    @property
    def id(self) -> str: ...

    @property
    def category(self) -> str: ...


C = TypeVar("C", bound=Case)


@dataclass(frozen=True)
class DocumentCase:
    """A case with a long text. The texts of a benchmark may be gigabytes: they are read from its file on access."""

    read_context: Callable[[], str] = field(kw_only=True, repr=False, compare=False)

    @property
    def context(self) -> str:
        """The text, read from the file."""
        return self.read_context()


D = TypeVar("D", bound=DocumentCase)


def scan_cases(file: IndexedJsonl[D] | IndexedJsonList[D]) -> Iterator[D]:
    """Yield the cases of a file, whose texts are read again on access. Raises DataError at the first bad row."""
    for offset, case in file.scan():
        yield replace(case, read_context=partial(_read_context, file, offset))


def _read_context(file: IndexedJsonl[D] | IndexedJsonList[D], offset: int) -> str:
    return file[offset].context


class Benchmark(ABC, Generic[C]):
    """A benchmark with its cases and prompts.

    Subclasses define `summarize`, `judge_answer` if they use a judge, and `request` unless they override `answer`.
    Their constructor takes the paths of `files`, by default those of the built-in toy data, `max_new_tokens`, which
    lowers the benchmark's own limit, and `parsing`. It raises DataError for a missing or malformed file.
    """

    name: ClassVar[str]
    files: ClassVar[Mapping[str, str]]
    """The names in `sources.yaml` of the constructor's arguments; files that are not there keep the default."""
    max_score: ClassVar[float]
    judge_options: ClassVar[JudgeOptions] = JudgeOptions()
    uses_judge: ClassVar[bool] = True
    """False: answers are compared with references, and there are no verdicts."""
    cases: Sequence[C]
    official: bool
    """Whether cases and judge prompts are the published ones. Otherwise scores are not comparable to published ones."""

    def request(self, case: C) -> GenerationRequest:
        """Return the request that a single-turn benchmark sends to the model."""
        raise NotImplementedError

    def case_text(self, case: C) -> str:
        """Return what the model reads of a case, to search for it in the training data."""
        return "\n".join(message.content for message in self.request(case).messages)

    def question_and_document(self, case: C) -> tuple[str, str | None]:
        """Return what the model reads of a case for display: the question, and the document if the case has one."""
        return self.case_text(case), None

    async def answer(
        self, client: ChatClient, cases: Sequence[C], *, on_progress: OnProgress = ignore_progress
    ) -> list[Answer]:
        """Generate the model's answers, in the order of `cases`."""
        completions = await client.generate([self.request(case) for case in cases], on_progress=on_progress)
        return [
            Answer.from_completions(case.id, [completion]) for case, completion in zip(cases, completions, strict=True)
        ]

    async def judge_answer(self, judge: Judge, case: C, answer: Answer) -> list[Verdict]:
        """Query the judge about one answer; no verdict without `uses_judge`."""
        if self.uses_judge:
            raise NotImplementedError
        return []

    async def judge(
        self, judge: Judge, items: Sequence[tuple[C, Answer]], *, on_progress: OnProgress = ignore_progress
    ) -> list[tuple[Verdict, ...]]:
        """Return the verdicts on each answer, in the order of `items`."""

        async def judge_item(case: C, answer: Answer) -> tuple[Verdict, ...]:
            return tuple(await self.judge_answer(judge, case, answer))

        return await gather(starmap(with_progress(judge_item, on_progress), items))

    @abstractmethod
    def summarize(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], options: IntervalOptions) -> Summary:
        """Compute all metrics. Pure, so that saved answers and verdicts can be summarized again."""

    def write_files(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """Write the files of the published code below `folder`; nothing for benchmarks that define none."""
        return


def join_turns(turns: Sequence[str]) -> str:
    """Return the text of a conversation's turns for display, numbered if there are several."""
    if len(turns) == 1:
        return turns[0]
    return "\n\n".join(f"[turn {number}]\n{turn}" for number, turn in enumerate(turns, start=1))


def lower_limit(default: int, limit: int | None) -> int:
    """Return the benchmark's own token limit, or the configured one if that is lower."""
    return default if limit is None else min(default, limit)
