"""The policy: a causal language model, its tokenizer, and the prompt rendering that all stages share.

    "{context}\\n\\n{query}" --prompt template--> user message --chat template--> text --tokenizer--> prompt ids
    response --the chat template's assistant turn, up to its end token--> completion ids

Every stage encodes prompts with this module, so `sft`, `sample`, `train` and `evaluate` use the same ids. Sampled
responses are not encoded again: training uses the sampled ids (`Response.token_ids`).
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
from longreward.models.chat_encoding import PROBE_RESPONSE, PROBE_USER, ChatEncoder, Messages
from longreward.models.compatibility import (
    check_attention,
    check_device_map,
    check_missing_weights,
    check_model_type,
    check_round_trip,
    load_errors,
)
from longreward.models.config import OverWindow, PolicyConfig, read_chat_template
from longreward.models.gguf import dequantize_kwargs, is_gguf, unquantized
from longreward.models.model_ref import pretrained_kwargs, write_pointer
from longreward.utils.language import HAN_RANGE
from longreward.utils.memory_allocator import keep_freed_memory

if TYPE_CHECKING:
    import torch

WINDOW_FIELDS = ("max_position_embeddings", "max_seq_len", "seq_length")  # the last two: models with remote code
PROBE_EXAMPLE = (PROBE_USER, PROBE_RESPONSE)
"""A context and a query that show whether a tokenizer drops every word."""

MAX_TOKENIZED_CHARACTERS = 2**20
MODEL_WINDOW_ADVICE = "raise policy.window if the model allows it"
WORD = re.compile(rf"[{HAN_RANGE}]|[^\W{HAN_RANGE}]+")
WHITE_SPACE = re.compile(r"\s")


@dataclass(frozen=True)
class PolicyTokenizer:
    """A tokenizer with its chat template and the policy's prompt template."""

    tokenizer: Any
    template: str
    end_ids: tuple[int, ...]
    """Token ids that end a response."""

    @cached_property
    def chat(self) -> ChatEncoder:
        """The encoder of chat messages."""
        return ChatEncoder(self.tokenizer, self.end_ids)

    def message(self, context: str, query: str) -> str:
        """Return the content of the user turn: the filled prompt template, or the query alone without a context."""
        if not context:
            return query
        # Both slots are filled in one pass, so a document that contains `{query}` keeps it.
        values = {"{context}": context, "{query}": query}
        return re.sub(r"\{context\}|\{query\}", lambda slot: values[slot.group()], self.template)

    def prompt_text(self, context: str, query: str) -> str:
        """Return the text that the model continues."""
        return self.conversation_text(self._user_turn(context, query))

    def prompt_ids(self, context: str, query: str) -> list[int]:
        """Return the ids of `prompt_text`; special tokens in the context or query are encoded as ordinary text.

        Raises PolicyError if the tokenizer drops most of the words, which means that it is the wrong one.
        """
        ids = self.conversation_ids(self._user_turn(context, query))
        special = {*self.tokenizer.all_special_ids}  # includes the unknown token
        kept = sum(i not in special for i in ids)
        words = sum(1 for text in (context, query) for _ in WORD.finditer(text))  # no list of a long document's words
        if kept < words / 4:
            raise PolicyError(
                f"the tokenizer ({type(self.tokenizer).__name__} of {self.tokenizer.name_or_path}) keeps {kept} tokens "
                f"of a prompt with {words:,} words that ends with {query[-60:]!r}; the model was trained with another "
                "tokenizer, or this one was loaded as the wrong class (see tokenizer_class in tokenizer_config.json)"
            )
        return ids

    def count_prompt_tokens(self, context: str, query: str) -> int:
        """Return the length of `prompt_ids`, tokenizing a long document piece by piece.

        Tokenizing takes over a hundred times a text's size in memory (122 bytes per byte with tokenizers 0.23, word
        level). Pieces end before white space if possible; each boundary may change the count by one token.
        """
        first, *others = _split_text(context, MAX_TOKENIZED_CHARACTERS)
        return len(self.prompt_ids(first, query)) + sum(map(self.count_tokens, others))

    def completion_ids(self, response: str, *, ended: bool = True) -> list[int]:
        """Return the ids that a model should generate for `response`: the assistant turn up to its end token.

        Special tokens in the response are ordinary text. `ended=False` (a truncated response) omits the end token.
        """
        return self.chat.encode_response(response, ended=ended)

    def conversation_text(self, messages: Messages) -> str:
        """Return the text that the model continues after `messages`.

        Raises PolicyError if the chat template rejects them.
        """
        return self.chat.render(messages, add_generation_prompt=True)

    def conversation_ids(self, messages: Messages) -> list[int]:
        """Return the ids that the model continues after `messages`; special tokens in them are ordinary text."""
        return self.chat.encode_messages(messages, add_generation_prompt=True)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a bare text: no special tokens are added, and those in it are ordinary text."""
        return self.chat.encode_text(text)

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a bare text, without special tokens."""
        return len(self.encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _user_turn(self, context: str, query: str) -> list[Mapping[str, str]]:
        return [{"role": "user", "content": self.message(context, query)}]


@dataclass(frozen=True)
class Policy:
    """A loaded model in evaluation mode with its tokenizer; `window` counts prompt and completion tokens together."""

    config: PolicyConfig
    name: str
    model: Any
    encoder: PolicyTokenizer
    window: int
    device: "torch.device"

    @property
    def window_advice(self) -> str:
        """How to get a larger window, for messages."""
        return MODEL_WINDOW_ADVICE

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self.encoder.tokenizer


def load_policy(config: PolicyConfig, path: str | Path, *, training: bool = False) -> Policy:
    """Load model and tokenizer from a folder, a GGUF file, a hub id or a pointer.

    With `training`, `dtype: auto` means float32, because an update of 1e-6 is lost in a bfloat16 weight. A GGUF file
    has no dtype of its own, so it means float32 there, too. Raises PolicyError if the model cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    # Progress bars fill log files with thousands of lines.
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    check_attention(config)
    check_device_map(config)
    # Unsuitable models and tokenizers are rejected before weights are read.
    _load_model_config(config, path)
    encoder = load_tokenizer(config, path)
    device = select_device(config)
    from_gguf = is_gguf(path)
    kwargs = pretrained_kwargs(config, path) | {
        "dtype": "float32" if (training or from_gguf) and config.dtype == "auto" else config.dtype,
        "attn_implementation": config.attention,
        "device_map": config.device_map,
    }
    if from_gguf:
        kwargs |= dequantize_kwargs()
    with load_errors("model", path, config):
        model, loading_info = AutoModelForCausalLM.from_pretrained(**kwargs, output_loading_info=True)
    if from_gguf:
        model = unquantized(model, path)
    check_missing_weights(loading_info["missing_keys"], path)
    embeddings = model.get_input_embeddings().num_embeddings
    if len(encoder.tokenizer) > embeddings:
        raise PolicyError(
            f"{path}: the tokenizer has {len(encoder.tokenizer)} tokens and the model {embeddings} embeddings; they do "
            "not match"
        )
    window = _context_window(config, model.config, path)
    if window is None:
        raise PolicyError(f"{path}: its config states no maximum length; set policy.window")
    # accelerate's launcher gives each process a part of the model, which may not fit on one GPU as a whole.
    sharded = any(os.environ.get(name) == "true" for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"))
    if device.type == "cpu":
        keep_freed_memory()
    if config.device_map is not None:
        # Inputs go to the first GPU of the map, or to the CPU if it uses none.
        gpus = [part for part in getattr(model, "hf_device_map", {}).values() if part not in ("cpu", "disk")]
        device = torch.device(gpus[0] if gpus else "cpu")
    elif not sharded:
        model = model.to(device)
    return Policy(config, str(path), model.eval(), encoder, window, device)


def select_device(config: PolicyConfig) -> "torch.device":
    """Return the first GPU, or the CPU if there is none or `policy.device` says so; PolicyError for a missing GPU."""
    import torch

    if config.device == "cuda" and not torch.cuda.is_available():
        raise PolicyError("policy.device is cuda, and torch sees no GPU; set it to auto or cpu")
    return torch.device("cuda" if torch.cuda.is_available() and config.device != "cpu" else "cpu")


def load_tokenizer(config: PolicyConfig, path: str | Path) -> PolicyTokenizer:
    """Load and check the tokenizer alone, which is enough to measure lengths."""
    from transformers import AutoTokenizer

    with load_errors("tokenizer", path, config):
        tokenizer = AutoTokenizer.from_pretrained(**pretrained_kwargs(config, path))
    if (template := read_chat_template(config)) is not None:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        raise PolicyError(
            f"{path}: the tokenizer has no chat template, which marks where a prompt ends and a response begins; put a "
            "chat_template.jinja into the folder, set policy.chat_template, or name an instruction-tuned model"
        )
    if tokenizer.eos_token_id is None:
        raise PolicyError(f"{path}: the tokenizer has no eos_token, so responses could not end; set one")
    encoder = PolicyTokenizer(tokenizer, config.prompt_template, _end_token_ids(config, tokenizer, path))
    # Fails for a tokenizer that drops words, for example one that was loaded as the wrong class.
    encoder.prompt_ids(*PROBE_EXAMPLE)
    check_round_trip(tokenizer, path)
    if encoder.completion_ids(PROBE_USER)[-1] not in encoder.end_ids:
        raise PolicyError(f"{path}: the end token {tokenizer.eos_token!r} is not one token; check eos_token")
    return encoder


def policy_window(config: PolicyConfig, path: str | Path) -> int | None:
    """Return the context window from `policy.window` or the model's config, without reading weights; None if unknown.

    Stages call this long before they load a model. Raises PolicyError for a model that cannot be a policy, and if
    `policy.window` exceeds the window in the model's config.
    """
    return _context_window(config, _load_model_config(config, path), path)


def link_pretrained(config: PolicyConfig, model: str, out: Path) -> None:
    """Check a fine-tuned model and write a pointer to it into the folder `out`, which `load_policy` follows."""
    load_tokenizer(config, model)
    _load_model_config(config, model)
    write_pointer(config, model, out)


def fit_window(
    ids: list[int], *, limit: int, rule: OverWindow, name: str, window_advice: str = MODEL_WINDOW_ADVICE
) -> list[int]:
    """Return `ids` if they fit into `limit` tokens, otherwise their first and last halves, as LongBench truncates.

    Raises PolicyError that names the example `name` if `rule` is "refuse".
    """
    if len(ids) <= limit:
        return ids
    if limit < 2 or rule == "refuse":
        raise PolicyError(
            f"example {name}: its prompt has {len(ids):,} tokens, and {max(limit, 0):,} fit next to the response; drop "
            f"the example (prepare.over_window), lower max_new_tokens, {window_advice}, or set over_window to keep_ends"
        )
    # Both ends are kept because instructions and questions usually are there.
    first = limit // 2
    return ids[:first] + ids[len(ids) - (limit - first) :]


def hash_ids(ids: Sequence[int]) -> str:
    """Return a short hash of token ids, by which training recognizes the prompt that a response was sampled from."""
    return hashlib.sha256(array("I", ids).tobytes()).hexdigest()[:16]


def _load_model_config(config: PolicyConfig, path: str | Path) -> Any:
    from transformers import AutoConfig

    with load_errors("config", path, config):
        model_config = AutoConfig.from_pretrained(**pretrained_kwargs(config, path))
    check_model_type(model_config, path)
    return model_config


def _context_window(config: PolicyConfig, model_config: Any, path: str | Path) -> int | None:
    # Nested in the configs of some model families.
    text_config = model_config.get_text_config()
    values = (getattr(text_config, name, None) for name in WINDOW_FIELDS)
    limit = next((int(value) for value in values if value), None)
    if config.window and limit and config.window > limit:
        raise PolicyError(
            f"policy.window is {config.window:,}, and the config of {path} allows {limit:,} tokens; lower it, name a "
            "model for longer texts, or raise the limit in the model's config (rope_parameters) if the model was "
            "trained for more"
        )
    return config.window or limit


def _end_token_ids(config: PolicyConfig, tokenizer: Any, path: str | Path) -> tuple[int, ...]:
    """Return the tokenizer's end token and those of the generation config, such as the end of a turn."""
    from transformers import AutoConfig, GenerationConfig

    kwargs = pretrained_kwargs(config, path)
    name = kwargs.pop("pretrained_model_name_or_path")
    configured: Any = None
    # Without generation_config.json, transformers generates with the end token of config.json.
    for config_class in (GenerationConfig, AutoConfig):
        try:
            configured = config_class.from_pretrained(name, **kwargs).eos_token_id
            break
        except (OSError, ValueError, AttributeError):  # no such file, or a config without the field
            continue
    ids = configured if isinstance(configured, list) else [] if configured is None else [configured]
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *ids]))


def _split_text(text: str, size: int) -> Iterator[str]:
    """Yield pieces of `size` characters extended to the next white space, each at most twice as long."""
    start = 0
    while len(text) - start > size:
        space = WHITE_SPACE.search(text, start + size, start + 2 * size)
        end = space.start() if space else start + size
        yield text[start:end]
        start = end
    yield text[start:]
