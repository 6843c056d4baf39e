"""What a reward model reads of a response: the document as far as it fits, the query, the response.

    with a chat template    user: document, blank line, query    assistant: response
    without                 document, query and response, blank lines between

Where that is longer than the window, the document keeps its first and last halves, and query and response stay whole.
Special tokens in any of the three are read as ordinary text.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.errors import PolicyError
from longreward.models.chat_encoding import ChatEncoder
from longreward.models.compatibility import check_missing_weights, load_errors
from longreward.models.config import PolicyConfig
from longreward.models.model_ref import pretrained_kwargs
from longreward.models.policy import WINDOW_FIELDS
from longreward.pairs.config import SrmConfig
from longreward.pairs.selection import Outcome, PairConfig, sampled_order, select_by_reward
from longreward.records import Bounds, Example, Response


@dataclass(frozen=True)
class RewardModelInput:
    """Token ids; `ids` is None where query and response alone are longer than the window."""

    ids: list[int] | None
    cut: bool


def render_input(encoder: ChatEncoder, *, context: str, query: str, response: str, window: int) -> RewardModelInput:
    """PolicyError where the chat template refuses the turns, or the tokenizer does not say where its tokens lie."""
    whole = _ids(encoder, context, query, response)
    if len(whole) <= window:
        return RewardModelInput(whole, cut=False)
    spans = _spans(encoder.tokenizer, context)
    room = len(spans)
    ids = whole
    while len(ids) > window and room > 0:
        room = max(0, room - (len(ids) - window))
        ids = _ids(encoder, keep_ends(context, spans, room), query, response)
    return RewardModelInput(ids if len(ids) <= window else None, cut=True)


def keep_ends(text: str, spans: Sequence[tuple[int, int]], room: int, *, between: str = "\n") -> str:
    """The first and last halves of `room` of the text's tokens, which lie at `spans`, with `between` in their midst.

    >>> both_ends("one two three four", [(0, 3), (4, 7), (8, 13), (14, 18)], 3)
    'one two\\nfour'
    """
    first, last = room - room // 2, room // 2
    begin = text[: spans[first - 1][1]] if first else ""
    return f"{begin}{between}{text[spans[-last][0] :]}" if last else begin


def _spans(tokenizer: Any, context: str) -> list[tuple[int, int]]:
    if not tokenizer.is_fast:
        raise PolicyError(
            f"{tokenizer.name_or_path}: its tokenizer does not say where its tokens lie (it is no fast one), so "
            "that no document can be cut to the window; name another reward model"
        )
    found = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    return [(start, end) for start, end in found]


def _ids(encoder: ChatEncoder, context: str, query: str, response: str) -> list[int]:
    asked = f"{context}\n\n{query}" if context else query
    if not encoder.tokenizer.chat_template:
        return encoder.encode_text(f"{asked}\n\n{response}", add_special_tokens=True)
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": response}]
    return encoder.encode_messages(turns, add_generation_prompt=False)


# A short-context reward model ranks the responses (SRM; paper, section 4.1): any sequence classifier of one output.
#
#     model = load_reward_model(SrmConfig(model="org/reward-model@revision"))
#     model.rank([(example, responses)])      # [Ranked(example_id="11", rewards=(Reward("11-0", -1.25), …))]
#
# What it reads is in `rendering.py`. A response is scored once, however often it was sampled.


if TYPE_CHECKING:
    import torch

TOO_LONG = "query and response are longer than the window"
NOT_FINITE = "the model's figure is not a finite number"


@dataclass(frozen=True)
class ResponseReward:
    """What the model says of a response, on its own scale; None with the reason where it says nothing."""

    response_id: str
    reward: float | None
    reason: str | None = None
    tokens: int = 0
    cut: bool = False
    """Whether the document was cut."""


@dataclass(frozen=True)
class RankedResponses:
    """The rewards of one example's responses, in their order."""

    example_id: str
    rewards: tuple[ResponseReward, ...]


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
    ) -> list[RankedResponses]:
        """Texts of like length pass the model together; `progress(done, all)` counts texts."""
        items = list(items)
        texts = [
            (example, text) for example, responses in items for text in dict.fromkeys(one.text for one in responses)
        ]
        read = [
            render_input(self.encoder, context=e.context, query=e.query, response=text, window=self.window)
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
            RankedResponses(example.id, tuple(_of(one.id, *known[example.id, one.text]) for one in responses))
            for example, responses in items
        ]

    def _rewards(self, rows: list[list[int]]) -> list[float]:
        import torch

        longest, filler = max(map(len, rows)), self.tokenizer.pad_token_id
        ids = torch.tensor([row + [filler] * (longest - len(row)) for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self.device)
        with torch.inference_mode():
            return [float(value) for value in self.model(input_ids=ids, attention_mask=mask).logits.float().squeeze(-1)]


def srm_pair(
    config: PairConfig, example: Example, responses: Iterable[Response], ranked: RankedResponses | None
) -> Outcome:
    """Best against worst (or second) by the model's rewards."""
    known = {one.response_id: one.reward for one in ranked.rewards} if ranked else {}
    sampled = sampled_order(config, responses)
    bounds: list[Bounds | None] = [
        None if (reward := known.get(one.id)) is None else (reward, reward) for one in sampled
    ]
    return select_by_reward(config, example, sampled, bounds, method="srm", min_margin=config.srm.min_margin)


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
    with load_errors("config", name, files):
        told = AutoConfig.from_pretrained(**pretrained_kwargs(files, name))
    if told.num_labels != 1:
        raise PolicyError(
            f"{name} has {told.num_labels} outputs, and a reward is one figure; name a sequence-classification model "
            "with one output"
        )
    with load_errors("tokenizer", name, files):
        tokenizer = AutoTokenizer.from_pretrained(**pretrained_kwargs(files, name))
    with load_errors("model", name, files):
        model, found = AutoModelForSequenceClassification.from_pretrained(
            **pretrained_kwargs(files, name), dtype=config.dtype, output_loading_info=True
        )
    check_missing_weights(found["missing_keys"], name)
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
    said = (getattr(told.get_text_config(), name, None) for name in WINDOW_FIELDS)
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


def _of(response_id: str, reward: float | None, reason: str | None, tokens: int, cut: bool) -> ResponseReward:
    return ResponseReward(response_id, reward, reason, tokens, cut)


UNLIMITED = 10**9  # tokenizers that know no limit say a number with thirty digits
