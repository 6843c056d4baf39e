"""The policy: a causal language model, its tokenizer, and the one rendering of a prompt that all stages share.

    "{context}\\n\\n{query}" --fill in one pass--> content --chat template--> text --tokenizer--> prompt ids
    answer --the template's assistant turn, up to its end token--> completion ids

Sampled answers are not rendered again: training uses the ids that were sampled (`Response.token_ids`).

`sft`, `sample`, `train` and `evaluate` see the same ids, since none of them renders or tokenizes by itself.
"""

import hashlib
import os
import re
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.errors import PolicyError
from longreward.models.chat_encoding import PROBE_ANSWER, PROBE_USER, ChatEncoder
from longreward.models.compatibility import (
    check_attention,
    check_device_map,
    check_missing_weights,
    check_model_type,
    load_errors,
)
from longreward.models.config import OverWindow, PolicyConfig, chat_template
from longreward.models.model_ref import pretrained_kwargs, write_pointer
from longreward.models.tokenizer_check import check_round_trip
from longreward.utils.language import HAN_RANGE

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PolicyTokenizer:
    """A tokenizer with the prompt rendering of its policy."""

    tokenizer: Any
    template: str
    end_ids: tuple[int, ...]  # each of them ends an answer

    @cached_property
    def chat(self) -> ChatEncoder:
        """The chat template with this tokenizer."""
        return ChatEncoder(self.tokenizer, self.end_ids)

    def message(self, context: str, query: str) -> str:
        """What the user's turn holds: the query alone where there is no document.

        Slots are filled in one pass: a document that holds `{query}` keeps it.
        """
        if not context:
            return query
        values = {"{context}": context, "{query}": query}
        return re.sub(r"\{context\}|\{query\}", lambda slot: values[slot.group()], self.template)

    def prompt_text(self, context: str, query: str) -> str:
        """The text that the model continues."""
        return self.chat.render(self._prompt(context, query), generate=True)

    def prompt_ids(self, context: str, query: str) -> list[int]:
        """The ids of `prompt_text`; PolicyError where the tokenizer loses most of the words, as a wrong one does.

        Special tokens in the context or the query are encoded as ordinary text.
        """
        ids = self.chat.encode_messages(self._prompt(context, query), generate=True)
        lost = {*self.tokenizer.all_special_ids}  # among them the id of unknown words
        kept, words = sum(i not in lost for i in ids), _count_words(context) + _count_words(query)
        if kept < words / 4:
            raise PolicyError(
                f"the tokenizer ({type(self.tokenizer).__name__} of {self.tokenizer.name_or_path}) keeps {kept} tokens "
                f"of a prompt with {words:,} words that ends {query[-60:]!r}: it is not the one that the model was "
                "trained with, or was loaded as another class (see tokenizer_class in tokenizer_config.json)"
            )
        return ids

    def count_prompt_tokens(self, context: str, query: str) -> int:
        """The length of `prompt_ids`; of a document above COUNTED_WHOLE characters, a piece at a time.

        Tokenizing takes over a hundred times a text's size in memory (122 bytes a byte with tokenizers 0.23, word
        level). Pieces end before white space where there is some; at each border a token more or less may be counted
        than in the whole.
        """
        first, *others = _pieces(context, COUNTED_WHOLE)
        return len(self.prompt_ids(first, query)) + sum(map(self.count_tokens, others))

    def completion_ids(self, answer: str, *, ended: bool = True) -> list[int]:
        """What a model should generate for `answer`: the template's assistant turn, up to its end token.

        Special tokens in the answer are encoded as ordinary text. Without `ended`, of an answer that was truncated,
        what closes the turn is left out.
        """
        return self.chat.encode_answer(answer, ended=ended)

    def conversation_text(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text that the model continues behind these turns, `{"role": …, "content": …}` each.

        PolicyError where the chat template refuses them.
        """
        return self.chat.render(messages, generate=True)

    def conversation_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The ids that the model continues behind these turns; special tokens in them are ordinary text."""
        return self.chat.encode_messages(messages, generate=True)

    def count_tokens(self, text: str) -> int:
        """The length of bare text, without special tokens."""
        return len(self.encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def encode(self, text: str) -> list[int]:
        """The ids of a bare text: no special tokens are added, and those in it are ordinary text."""
        return self.chat.encode_text(text)

    def _prompt(self, context: str, query: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.message(context, query)}]


@dataclass(frozen=True)
class Policy:
    """A loaded model in evaluation mode, with its tokenizer; `window` counts prompt and completion together."""

    config: PolicyConfig
    name: str
    model: Any
    text: PolicyTokenizer
    window: int
    device: "torch.device"

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self.text.tokenizer

    def prompt_ids(self, context: str, query: str) -> list[int]:
        """The ids that the model continues."""
        return self.text.prompt_ids(context, query)

    def count_tokens(self, text: str) -> int:
        """The length of bare text, without special tokens."""
        return self.text.count_tokens(text)


def load_policy(config: PolicyConfig, path: str | Path, *, training: bool = False) -> Policy:
    """Loads model and tokenizer from a folder, or from a hub id at `config.revision`; PolicyError where it cannot.

    With `training`, `dtype: auto` means float32: an update of 1e-6 vanishes in a bfloat16 weight.
    """
    import torch
    from transformers import AutoModelForCausalLM

    _quiet_unless_terminal()
    check_attention(config)
    check_device_map(config)
    _model_config(config, path)
    text = load_tokenizer(config, path)
    device = torch.device(_device(config.device))
    dtype = "float32" if training and config.dtype == "auto" else config.dtype
    wanted = {"dtype": dtype, "attn_implementation": config.attention, "device_map": config.device_map}
    with load_errors("model", path, config):
        model, found = AutoModelForCausalLM.from_pretrained(
            **pretrained_kwargs(config, path), **wanted, output_loading_info=True
        )
    check_missing_weights(found["missing_keys"], path)
    _check_vocabulary(text.tokenizer, model, path)
    window = _window(config, model.config, path)
    if window is None:
        raise PolicyError(f"{path}: its config does not say how long a text may be; set policy.window")
    if config.device_map is not None:
        device = _first_device(model)
    elif not _goes_in_parts():
        model = model.to(device)
    return Policy(config, str(path), model.eval(), text, window, device)


def policy_window(config: PolicyConfig, path: str | Path) -> int | None:
    """Most tokens of prompt and completion together, from `policy.window` or else the model's own config.

    None where neither says. Reads no weights, so that a stage can measure prompts long before a model is loaded, and
    hears of a model that can be no policy: PolicyError, also where the settings want more than the model's config says.
    """
    return _window(config, _model_config(config, path), path)


def load_tokenizer(config: PolicyConfig, path: str | Path) -> PolicyTokenizer:
    """The tokenizer alone, which is all that measuring lengths needs; proven on a prompt of real words."""
    from transformers import AutoTokenizer

    with load_errors("tokenizer", path, config):
        tokenizer = AutoTokenizer.from_pretrained(**pretrained_kwargs(config, path))
    if (template := chat_template(config)) is not None:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        raise PolicyError(
            f"{path}: the tokenizer has no chat template, so nothing says where a prompt ends and an answer begins; "
            "put a chat_template.jinja into the folder, set policy.chat_template, or name an instruction-tuned model"
        )
    if tokenizer.eos_token_id is None:
        raise PolicyError(f"{path}: the tokenizer has no eos_token, so no answer could end; name one")
    text = PolicyTokenizer(tokenizer, config.prompt_template, _end_ids(config, tokenizer, path))
    text.prompt_ids(*PROBE_EXAMPLE)
    check_round_trip(tokenizer, path)
    if text.completion_ids(PROBE_EXAMPLE[0])[-1] not in text.end_ids:
        raise PolicyError(f"{path}: the end of an answer, {tokenizer.eos_token!r}, is not one token; check eos_token")
    return text


def link_pretrained(config: PolicyConfig, model: str, out: Path) -> None:
    """Makes `out` a folder that only says which model stands for it, at which commit; `load_policy` follows it."""
    load_tokenizer(config, model)
    _model_config(config, model)
    write_pointer(config, model, out)


def fit_window(ids: list[int], *, room: int, rule: OverWindow, name: str) -> list[int]:
    """`ids` where they fit into `room` tokens, else their first and last halves (as the paper's benchmarks cut).

    PolicyError under `refuse`; `name` is the example that it speaks of.
    """
    if len(ids) <= room:
        return ids
    if room < 2 or rule == "refuse":
        raise PolicyError(
            f"example {name}: its prompt has {len(ids):,} tokens, and {max(room, 0):,} fit beside the answer; leave it "
            "out, lower max_new_tokens, raise policy.window if the model can, or set over_window to keep_ends"
        )
    first = room // 2
    return ids[:first] + ids[len(ids) - (room - first) :]


def hash_ids(ids: Sequence[int]) -> str:
    """A short name of token ids, by which a training recognizes the prompt that was sampled from."""
    return hashlib.sha256(array("I", ids).tobytes()).hexdigest()[:16]


def _quiet_unless_terminal() -> None:
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()


def _model_config(config: PolicyConfig, path: str | Path) -> Any:
    """The model's own config, of a model that can be a policy."""
    from transformers import AutoConfig

    with load_errors("config", path, config):
        found = AutoConfig.from_pretrained(**pretrained_kwargs(config, path))
    check_model_type(found, path)
    return found


def _window(config: PolicyConfig, model_config: Any, path: str | Path) -> int | None:
    of_text = model_config.get_text_config()
    said = (getattr(of_text, name, None) for name in WINDOW_NAMES)
    own = next((int(window) for window in said if window), None)
    if config.window and own and config.window > own:
        raise PolicyError(
            f"policy.window is {config.window:,}, and the config of {path} says {own:,} tokens; lower it, name a model "
            "for longer texts, or raise the model's own figure with its rope_parameters where it was trained for more"
        )
    return config.window or own


def _device(wanted: str) -> str:
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise PolicyError("policy.device is cuda, and torch sees no GPU; set it to auto or cpu")
    return "cuda" if available and wanted != "cpu" else "cpu"


def _goes_in_parts() -> bool:
    """Whether accelerate's launcher will hand each process a part of the model, which may not fit whole on a GPU."""
    return any(os.environ.get(name) == "true" for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"))


def _first_device(model: Any) -> "torch.device":
    """Where a model that was spread out takes its input: its first GPU, or the CPU where it uses none."""
    import torch

    used = [place for place in getattr(model, "hf_device_map", {}).values() if place not in ("cpu", "disk")]
    return torch.device(used[0] if used else "cpu")


def _end_ids(config: PolicyConfig, tokenizer: Any, path: str | Path) -> tuple[int, ...]:
    """The tokenizer's end token and those of the generation config, such as the end of a turn. Reads no weights.

    Without a file for it, transformers takes the end token of the model's config for generation.
    """
    from transformers import AutoConfig, GenerationConfig

    files = pretrained_kwargs(config, path)
    name = files.pop("pretrained_model_name_or_path")
    more: Any = None
    for kind in (GenerationConfig, AutoConfig):
        try:
            more = kind.from_pretrained(name, **files).eos_token_id
            break
        except (OSError, ValueError, AttributeError):  # no such file, or no model's
            continue
    listed = more if isinstance(more, list) else [] if more is None else [more]
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *listed]))


def _check_vocabulary(tokenizer: Any, model: Any, path: str | Path) -> None:
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise PolicyError(f"{path}: the tokenizer knows {len(tokenizer)} tokens, the model {rows}: they are not a pair")


WINDOW_NAMES = ("max_position_embeddings", "max_seq_len", "seq_length")  # the last two: models with code of their own

# Words that even a vocabulary of some hundred holds in part; enough to see a tokenizer that drops every word.
PROBE_EXAMPLE = (PROBE_USER, PROBE_ANSWER)

COUNTED_WHOLE = 2**20
WORD = re.compile(rf"[{HAN_RANGE}]|[^\W{HAN_RANGE}]+")
WHITE_SPACE = re.compile(r"\s")


def _count_words(text: str) -> int:
    return sum(1 for _ in WORD.finditer(text))


def _pieces(text: str, size: int) -> Iterator[str]:
    """The text in pieces of `size` characters and what follows up to white space, at most twice as many."""
    start = 0
    while len(text) - start > size:
        space = WHITE_SPACE.search(text, start + size, start + 2 * size)
        end = space.start() if space else start + size
        yield text[start:end]
        start = end
    yield text[start:]
