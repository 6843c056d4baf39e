"""A reward model: any sequence classifier with one output computes the reward of a response.

    model = load_reward_model(RewardModelConfig(model="org/reward-model@revision"))
    model.rank([(example, responses)])   # [RankedResponses("11", rewards=(ResponseReward("11-0", -1.25), …))]

The model reads the document, the query and the response: with its chat template as user and assistant messages, without
one joined by blank lines. If that exceeds the window, the document keeps its first and last halves; query and response
stay complete. Special tokens in any of the three are read as ordinary text.
"""

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from longreward.config import Config
from longreward.errors import PolicyError
from longreward.models.chat_encoding import ChatEncoder
from longreward.models.compatibility import check_missing_weights, load_errors
from longreward.models.config import PolicyConfig
from longreward.models.model_ref import pretrained_kwargs
from longreward.models.policy import WINDOW_FIELDS
from longreward.records import Example, Response
from longreward.utils.token_spans import keep_ends

if TYPE_CHECKING:
    import torch

TOO_LONG = "query and response are longer than the window"
NOT_FINITE = "the reward is not a finite number"
UNLIMITED = 10**9  # tokenizers without a limit report a number of thirty digits as model_max_length


class RewardModelConfig(Config):
    """A reward model: a sequence classifier with one output."""

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
    """Responses per forward pass; they are sorted by length."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights in memory; auto: as saved."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the first GPU if there is one."""


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


@dataclass(frozen=True)
class RewardModel:
    """A loaded reward model; `name` includes its revision."""

    name: str
    model: Any
    tokenizer: Any
    window: int
    batch_size: int
    device: "torch.device"

    @cached_property
    def encoder(self) -> ChatEncoder:
        """The tokenizer with its chat template."""
        return ChatEncoder(self.tokenizer)

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
                inputs[example.id, text] = render_input(
                    self.encoder, context=example.context, query=example.query, response=text, window=self.window
                )
        # Padding is expensive, so texts of similar length share a batch.
        fitting = [(key, ids) for key, (ids, _) in inputs.items() if ids is not None]
        fitting.sort(key=lambda item: len(item[1]), reverse=True)  # longest first: running out of memory shows at once
        values: dict[tuple[str, str], float] = {}
        for start in range(0, len(fitting), self.batch_size):
            batch = fitting[start : start + self.batch_size]
            rewards = self._forward([ids for _, ids in batch])
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

    def _forward(self, rows: list[list[int]]) -> list[float]:
        """Return one reward per row of token ids; rows are padded on the right."""
        import torch

        longest, padding = max(map(len, rows)), self.tokenizer.pad_token_id
        ids = torch.tensor([row + [padding] * (longest - len(row)) for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self.device)
        # Attention masks padding, but the reward is read at the last token before the padding (pad_token_id).
        with torch.inference_mode():
            return [float(value) for value in self.model(input_ids=ids, attention_mask=mask).logits.float().squeeze(-1)]


def render_input(
    encoder: ChatEncoder, *, context: str, query: str, response: str, window: int
) -> tuple[list[int] | None, bool]:
    """Tokenize the input and shorten the document until it fits.

    Returns the token ids, or None if query and response alone exceed the window, and whether the document was
    shortened. Raises PolicyError if the chat template rejects the messages or the tokenizer gives no offsets.
    """
    ids = _encode(encoder, context, query, response)
    if len(ids) <= window:
        return ids, False
    tokenizer = encoder.tokenizer
    if not tokenizer.is_fast:
        raise PolicyError(
            f"{tokenizer.name_or_path}: its tokenizer is not a fast one and gives no token offsets, so that no "
            "document can be shortened to the window; choose another reward model"
        )
    spans = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    context_tokens = len(spans)
    # Repeated, because the tokens of the parts may merge or split where the document is cut.
    while len(ids) > window and context_tokens > 0:
        context_tokens = max(0, context_tokens - (len(ids) - window))
        ids = _encode(encoder, keep_ends(context, spans, context_tokens), query, response)
    return (ids if len(ids) <= window else None), True


def _encode(encoder: ChatEncoder, context: str, query: str, response: str) -> list[int]:
    prompt = f"{context}\n\n{query}" if context else query
    if not encoder.tokenizer.chat_template:
        return encoder.encode_text(f"{prompt}\n\n{response}", add_special_tokens=True)
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return encoder.encode_messages(messages, add_generation_prompt=False)


def load_reward_model(config: RewardModelConfig, path: str | Path | None = None) -> RewardModel:
    """Load `path` (None: `config.model`); PolicyError if it is not a reward model or cannot be loaded."""
    try:
        return _load(config, str(path or config.model))
    except PolicyError as error:
        raise PolicyError(f"pair.srm.model: {error}") from error


def _load(config: RewardModelConfig, name: str) -> RewardModel:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
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
    with load_errors("model", name, files):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            **pretrained_kwargs(files, name), dtype=config.dtype, output_loading_info=True
        )
    check_missing_weights(info["missing_keys"], name)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise PolicyError(f"{name}: its tokenizer has neither pad_token nor eos_token for padding")
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id  # transformers finds the last token by it
    # The smaller limit of config and tokenizer: some position embeddings (RoBERTa) count two positions that no text can
    # use, which only the tokenizer knows.
    values = (getattr(model_config.get_text_config(), field, None) for field in WINDOW_FIELDS)
    config_limit = next((int(value) for value in values if value), None)
    limits = [limit for limit in (config_limit, int(tokenizer.model_max_length)) if limit and limit < UNLIMITED]
    window = config.window or min(limits, default=None)
    if window is None:
        raise PolicyError(f"{name}: its config has no maximum length; set pair.srm.window")
    device = torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
    versioned_name = name
    if not Path(name).is_dir() and "@" not in name:
        revision = getattr(model.config, "_commit_hash", None) or config.revision
        versioned_name = f"{name}@{revision}" if revision else name
    return RewardModel(versioned_name, model.to(device).eval(), tokenizer, window, config.batch_size, device)
