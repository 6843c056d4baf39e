"""A short-context reward model ranks the responses (SRM; paper, section 4.1): any sequence classifier of one output.

    model = load_reward_model(SrmConfig(model="org/reward-model@revision"))
    model.rank([(example, responses)])      # [Ranked(example_id="11", rewards=(Reward("11-0", -1.25), …))]

What it reads is in `rendering.py`. A response is scored once, however often it was sampled.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.errors import PolicyError
from longreward.models.chat_encoding import ChatEncoder
from longreward.models.compatibility import check_whole, loading
from longreward.models.model_ref import source
from longreward.models.policy import WINDOW_NAMES, PolicyConfig
from longreward.pairs.config import SrmConfig
from longreward.pairs.reward_model_input import rendered
from longreward.pairs.selection import Outcome, PairConfig, presentation_order, select
from longreward.records import Bounds, Example, Response

if TYPE_CHECKING:
    import torch

TOO_LONG = "query and response are longer than the window"
NOT_FINITE = "the model's figure is not a finite number"


@dataclass(frozen=True)
class Reward:
    """What the model says of a response, on its own scale; None with the reason where it says nothing."""

    response_id: str
    reward: float | None
    reason: str | None = None
    tokens: int = 0
    cut: bool = False
    """Whether the document was cut."""


@dataclass(frozen=True)
class Ranked:
    """The rewards of one example's responses, in their order."""

    example_id: str
    rewards: tuple[Reward, ...]


@dataclass(frozen=True)
class RewardModel:
    """A loaded one; `name` says which, with its revision."""

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
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Ranked]:
        """Texts of like length pass the model together; `progress(done, all)` counts texts."""
        items = list(items)
        texts = [
            (example, text) for example, responses in items for text in dict.fromkeys(one.text for one in responses)
        ]
        read = [
            rendered(self.encoder, context=e.context, query=e.query, response=text, window=self.window)
            for e, text in texts
        ]
        fitting = [(place, one.ids) for place, one in enumerate(read) if one.ids is not None]
        fitting.sort(key=lambda placed: len(placed[1]), reverse=True)  # what does not fit into memory fails at once
        found: dict[int, float] = {}
        for at in range(0, len(fitting), self.batch_size):
            batch = fitting[at : at + self.batch_size]
            values = self._rewards([ids for _, ids in batch])
            found |= {place: value for (place, _), value in zip(batch, values, strict=True)}
            progress(len(found), len(fitting))
        known = {
            (example.id, text): _reward(read[place].ids, read[place].cut, found.get(place))
            for place, (example, text) in enumerate(texts)
        }
        return [
            Ranked(example.id, tuple(_of(one.id, *known[example.id, one.text]) for one in responses))
            for example, responses in items
        ]

    def _rewards(self, rows: list[list[int]]) -> list[float]:
        import torch

        longest, filler = max(map(len, rows)), self.tokenizer.pad_token_id
        ids = torch.tensor([row + [filler] * (longest - len(row)) for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self.device)
        with torch.inference_mode():
            return [float(value) for value in self.model(input_ids=ids, attention_mask=mask).logits.float().squeeze(-1)]


def srm_pair(config: PairConfig, example: Example, responses: Iterable[Response], ranked: Ranked | None) -> Outcome:
    """Best against worst (or second) by the model's rewards."""
    known = {one.response_id: one.reward for one in ranked.rewards} if ranked else {}
    sampled = presentation_order(config, responses)
    bounds: list[Bounds | None] = [
        None if (reward := known.get(one.id)) is None else (reward, reward) for one in sampled
    ]
    return select(config, example, sampled, bounds, method="srm", min_margin=config.srm.min_margin)


def load_reward_model(config: SrmConfig, path: str | Path | None = None) -> RewardModel:
    """Loads `path` (None: `config.model`); PolicyError where it is no reward model or cannot be loaded."""
    name = str(path or config.model)
    try:
        return _load(config, name)
    except PolicyError as error:
        raise PolicyError(f"pair.srm.model: {error}") from error


def _load(config: SrmConfig, name: str) -> RewardModel:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    # the files are found and read as a policy's are
    files = PolicyConfig(base_model=name, revision=config.revision, trust_remote_code=config.trust_remote_code)
    with loading("config", name, files):
        told = AutoConfig.from_pretrained(**source(files, name))
    if told.num_labels != 1:
        raise PolicyError(
            f"{name} has {told.num_labels} outputs, and a reward is one figure; name a sequence-classification model "
            "with one output"
        )
    with loading("tokenizer", name, files):
        tokenizer = AutoTokenizer.from_pretrained(**source(files, name))
    with loading("model", name, files):
        model, found = AutoModelForSequenceClassification.from_pretrained(
            **source(files, name), dtype=config.dtype, output_loading_info=True
        )
    check_whole(found["missing_keys"], name)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise PolicyError(f"{name}: its tokenizer has neither pad_token nor eos_token to fill a batch with")
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id  # by which it finds the end of a text
    window = config.window or _window(told, tokenizer)
    if window is None:
        raise PolicyError(f"{name}: its config does not say how long a text may be; set pair.srm.window")
    device = torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
    return RewardModel(
        _named(name, config, model), model.to(device).eval(), tokenizer, window, config.batch_size, device
    )


def _window(told: Any, tokenizer: Any) -> int | None:
    """The lesser of what config and tokenizer say: position embeddings may count two places that no text can use."""
    said = (getattr(told.get_text_config(), name, None) for name in WINDOW_NAMES)
    own = next((int(window) for window in said if window), None)
    limit = int(tokenizer.model_max_length)
    limits = [each for each in (own, limit if limit < UNLIMITED else None) if each]
    return min(limits, default=None)


def _named(name: str, config: SrmConfig, model: Any) -> str:
    if Path(name).is_dir() or "@" in name:
        return name
    revision = getattr(model.config, "_commit_hash", None) or config.revision
    return f"{name}@{revision}" if revision else name


def _reward(ids: list[int] | None, cut: bool, value: float | None) -> tuple[float | None, str | None, int, bool]:
    import math

    if ids is None:
        return None, TOO_LONG, 0, cut
    if value is None or not math.isfinite(value):
        return None, NOT_FINITE, len(ids), cut
    return value, None, len(ids), cut


def _of(response_id: str, reward: float | None, reason: str | None, tokens: int, cut: bool) -> Reward:
    return Reward(response_id, reward, reason, tokens, cut)


UNLIMITED = 10**9  # tokenizers that know no limit say a number with thirty digits
