"""A reward model: any sequence classifier with one output computes the reward of a response.

    model = load_reward_model(RewardModelConfig(model="org/reward-model@revision"))
    model.rank([(example, responses)])   # [RankedResponses("11", rewards=(ResponseReward("11-0", -1.25), …))]

`reward_model_input.py` describes the input. The model runs in this process, or at a server (`reward_model_server.py`).
"""

import asyncio
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from pydantic import Field, model_validator

from longreward.config import Config
from longreward.errors import PolicyError, ServerRefused, ServerUnavailable
from longreward.models.chat_encoding import ChatEncoder
from longreward.models.compatibility import check_missing_weights, load_errors
from longreward.models.config import PolicyConfig
from longreward.models.model_ref import pretrained_kwargs
from longreward.models.policy import WINDOW_FIELDS
from longreward.records import Example, Extraction, Response, ScoredResponse
from longreward.reward.long_reward import to_records
from longreward.reward.reward_model_input import DocumentPart, InputEncoder
from longreward.reward.reward_model_server import RewardModelServer
from longreward.reward.scorer import ScoredExample
from longreward.utils.endpoints import BaseUrl, KeyVariable

if TYPE_CHECKING:
    import torch

TOO_LONG = "query and response are longer than the window"
NOT_FINITE = "the reward is not a finite number"
INPUT_KEY = "longreward_input"  # in config.json: the window and the part of documents that a model was trained with
UNLIMITED = 10**9  # tokenizers without a limit report a number of thirty digits as model_max_length


class RewardModelConfig(Config):
    """A reward model: a sequence classifier with one output."""

    section: ClassVar[str] = "RewardModelConfig"
    """Where errors tell users to change a setting."""
    model: str | None = None
    """A sequence-classification model with one output: a folder or a hub id with an optional revision
    (`org/name@revision`). null: a tiny model is trained once on the built-in short preferences and kept in the state
    folder; it knows only the words of the built-in corpus."""
    revision: str | None = None
    """Commit, tag or branch for a hub id without its own revision; not used for a folder."""
    trust_remote_code: bool = False
    """Whether to execute Python code of the model repository."""
    window: int | None = Field(default=None, ge=16)
    """Maximum tokens of query, response and context together; null: the limit in the model's config."""
    batch_size: int = Field(default=8, ge=1)
    """Responses per forward pass or request; they are sorted by length."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights in memory; auto: as saved."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the first GPU if there is one."""
    document: DocumentPart | None = None
    """What remains of a document that exceeds the window: its first and last halves (ends), or the chunks that share
    most terms with query and response (extracts); null: as the model was trained by `longreward distill`, else ends."""
    base_url: BaseUrl | None = None
    """A vLLM server of this model, such as `http://localhost:8000`, or one of its endpoints: `/classify` (default) or
    `/pooling`. It receives token ids, so that `model` must name its folder or hub id, of which config and tokenizer are
    read. null: the model runs in this process."""
    api_key_env: KeyVariable | None = None
    """The environment variable with the server's API key; null: no key is sent."""
    max_concurrency: int = Field(default=4, ge=1, le=1000)
    """Concurrent requests to the server, of batch_size responses each."""
    timeout_s: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    """Seconds without a byte from the server after which a request fails; failed requests are repeated."""

    @model_validator(mode="after")
    def _server_needs_tokenizer(self) -> Self:
        if self.base_url is not None and self.model is None:
            raise ValueError(
                f"base_url is {self.base_url}, and model names no tokenizer: set model to the folder or hub id"
            )
        return self


@dataclass(frozen=True)
class ResponseReward:
    """The model's reward of a response on its own scale; None with a reason if there is none."""

    response_id: str
    reward: float | None
    reason: str | None = None
    tokens: int = 0
    cut: bool = False
    """Whether the document was shortened."""


@dataclass(frozen=True)
class RankedResponses:
    """The rewards of one example's responses, in input order."""

    example_id: str
    rewards: tuple[ResponseReward, ...]


class RewardBackend(Protocol):
    """Where the model runs."""

    def rewards(self, batches: Sequence[Sequence[list[int]]]) -> Iterator[list[float]]:
        """Yield the rewards of each batch of token ids, in order."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in this process; inputs are padded on the right."""

    model: Any
    padding: int
    """The token id by which transformers finds the last token of an input, where the reward is read."""
    device: "torch.device"

    def rewards(self, batches: Sequence[Sequence[list[int]]]) -> Iterator[list[float]]:
        import torch

        for rows in batches:
            longest = max(map(len, rows))
            padded = [row + [self.padding] * (longest - len(row)) for row in rows]
            mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
            ids, attended = (torch.tensor(values, device=self.device) for values in (padded, mask))
            with torch.inference_mode():
                logits = self.model(input_ids=ids, attention_mask=attended).logits
            yield [float(value) for value in logits.float().squeeze(-1)]


@dataclass(frozen=True)
class RewardModel:
    """A reward model; `name` includes its revision.

    `best_of_n` and `OnlineReward` take it in place of a LongReward.
    """

    name: str
    encoder: InputEncoder
    backend: RewardBackend
    batch_size: int

    @property
    def window(self) -> int:
        """Maximum tokens of an input."""
        return self.encoder.window

    def rank(
        self,
        items: Iterable[tuple[Example, Sequence[Response]]],
        *,
        progress: Callable[[int, int], None] = lambda finished, total: None,
    ) -> list[RankedResponses]:
        """Compute the reward of every response, equal texts of an example once; `progress` counts texts."""
        items = list(items)
        inputs: dict[tuple[str, str], tuple[list[int] | None, bool]] = {}
        for example, responses in items:
            for text in dict.fromkeys(response.text for response in responses):
                inputs[example.id, text] = self.encoder.encode(
                    context=example.context, query=example.query, response=text
                )
        # Padding is expensive, so texts of similar length share a batch.
        fitting = [(key, ids) for key, (ids, _) in inputs.items() if ids is not None]
        fitting.sort(key=lambda item: len(item[1]), reverse=True)  # longest first: running out of memory shows at once
        batches = [fitting[start : start + self.batch_size] for start in range(0, len(fitting), self.batch_size)]
        values: dict[tuple[str, str], float] = {}
        all_rewards = self.backend.rewards([[ids for _, ids in batch] for batch in batches])
        for batch, rewards in zip(batches, all_rewards, strict=True):
            values |= {key: value for (key, _), value in zip(batch, rewards, strict=True)}
            progress(len(values), len(fitting))

        def response_reward(example: Example, response: Response) -> ResponseReward:
            key = (example.id, response.text)
            ids, cut = inputs[key]
            if ids is None:
                return ResponseReward(response.id, None, TOO_LONG, 0, cut)
            if not math.isfinite(values[key]):
                return ResponseReward(response.id, None, NOT_FINITE, len(ids), cut)
            return ResponseReward(response.id, values[key], None, len(ids), cut)

        return [
            RankedResponses(example.id, tuple(response_reward(example, response) for response in responses))
            for example, responses in items
        ]

    async def ascore_examples(
        self, examples: Iterable[tuple[Example, Sequence[Response | str]]]
    ) -> list[ScoredExample]:
        """Return the responses with their rewards as `model_reward`, without verdicts; results in input order."""
        items = [(example, to_records(example, responses)) for example, responses in examples]
        ranked = await asyncio.to_thread(self.rank, items)  # computing blocks
        return [
            ScoredExample(
                Extraction(example_id=example.id, query=example.query, extracts=()),
                tuple(
                    ScoredResponse(response=response, verdicts={}, model_reward=reward.reward)
                    for response, reward in zip(responses, rewards.rewards, strict=True)
                ),
            )
            for (example, responses), rewards in zip(items, ranked, strict=True)
        ]

    async def ascore_responses(self, example: Example, responses: Sequence[Response | str]) -> ScoredExample:
        """Return the responses to one example with their rewards."""
        [scored] = await self.ascore_examples([(example, responses)])
        return scored


def load_reward_model(
    config: RewardModelConfig, path: str | Path | None = None, *, setting: str | None = None
) -> RewardModel:
    """Load `path` (None: `config.model`), or connect to `config.base_url`.

    Errors name `setting`, by default the key `model` of the config's section.

    PolicyError if it is not a reward model or cannot be loaded, ServerUnavailable or ServerRefused of a server.
    """
    name = str(path or config.model)
    try:
        return _open(config, name)
    except (ServerUnavailable, ServerRefused):
        raise
    except PolicyError as error:
        raise PolicyError(f"{setting or f'{config.section}.model'}: {error}") from error


def _open(config: RewardModelConfig, name: str) -> RewardModel:
    from transformers import AutoConfig, AutoTokenizer

    # Files are located and read like those of a policy.
    files = PolicyConfig(base_model=name, revision=config.revision, trust_remote_code=config.trust_remote_code)
    with load_errors("config", name, files):
        model_config = AutoConfig.from_pretrained(**pretrained_kwargs(files, name))
    if model_config.num_labels != 1:
        raise PolicyError(
            f"{name} has {model_config.num_labels} outputs, but a reward is a single number; choose a "
            "sequence-classification model with one output"
        )
    with load_errors("tokenizer", name, files):
        tokenizer = AutoTokenizer.from_pretrained(**pretrained_kwargs(files, name))
    limits = [_model_window(model_config, tokenizer)]
    backend: RewardBackend
    if config.base_url is not None:
        backend = RewardModelServer(
            config.base_url,
            section=config.section,
            key_env=config.api_key_env,
            timeout_s=config.timeout_s,
            max_concurrency=config.max_concurrency,
        )
        limits.append(backend.window)
    else:
        backend = _load_model(config, name, files, tokenizer)
    saved = getattr(model_config, INPUT_KEY, {})  # of a distilled model
    limits.append(saved.get("window"))
    window = config.window or min((limit for limit in limits if limit), default=None)
    if window is None:
        raise PolicyError(f"{name}: its config has no maximum length; set {config.section}.window")
    versioned_name = name
    if not Path(name).is_dir() and "@" not in name:
        revision = getattr(model_config, "_commit_hash", None) or config.revision
        versioned_name = f"{name}@{revision}" if revision else name
    encoder = InputEncoder(ChatEncoder(tokenizer), window, config.document or saved.get("document", "ends"))
    return RewardModel(versioned_name, encoder, backend, config.batch_size)


def _model_window(model_config: Any, tokenizer: Any) -> int | None:
    # The smaller limit of config and tokenizer: some position embeddings (RoBERTa) count two positions that no text can
    # use, which only the tokenizer knows.
    values = (getattr(model_config.get_text_config(), field, None) for field in WINDOW_FIELDS)
    config_limit = next((int(value) for value in values if value), None)
    limits = [limit for limit in (config_limit, int(tokenizer.model_max_length)) if limit and limit < UNLIMITED]
    return min(limits, default=None)


def _load_model(config: RewardModelConfig, name: str, files: PolicyConfig, tokenizer: Any) -> LoadedModel:
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    with load_errors("model", name, files):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            **pretrained_kwargs(files, name), dtype=config.dtype, output_loading_info=True
        )
    check_missing_weights(info["missing_keys"], name)
    set_padding_token(model, tokenizer, name)
    device = torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
    return LoadedModel(model.to(device).eval(), tokenizer.pad_token_id, device)


def set_padding_token(model: Any, tokenizer: Any, name: str) -> None:
    """Set the padding token of a classifier, which reads the reward before it. PolicyError if there is none."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise PolicyError(f"{name}: its tokenizer has neither pad_token nor eos_token for padding")
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
