"""Checks that a model can be a policy: a causal language model of text, complete and with its own tokenizer.

Most unsuitable models are detected by their config, before any weights are read.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from longreward.errors import ConfigError, PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.gguf import CONVERT_ADVICE, is_gguf
from longreward.utils.language import HAN_RANGE

OTHER_MODALITIES = {"vision_config": "images", "audio_config": "sound"}
OTHER_HEADS = (
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForRewardModeling",
)
LISTED_WEIGHTS = 3
ENGLISH = "Who was the first of the two? It's 1,024.5 km (not less): the town, in the north of the river, and café."
CHINESE = "这座城镇在河的北边，建于1912年。谁是第一个？"
TOKEN = re.compile(rf"[{HAN_RANGE}]|[^\W{HAN_RANGE}]+|[^\w\s]")
LOAD_ERRORS = (OSError, ValueError, KeyError, ImportError, RuntimeError)


def check_model_type(model_config: Any, path: str | Path) -> None:
    """Raise PolicyError for encoder-decoders, multimodal models and models saved with another head."""
    model_type = f"{path}: its model_type is {model_config.model_type}"
    if getattr(model_config, "is_encoder_decoder", False):
        raise PolicyError(f"{model_type}, an encoder-decoder; name a causal language model")
    for field, modality in OTHER_MODALITIES.items():
        if getattr(model_config, field, None) is not None:
            raise PolicyError(
                f"{model_type}, a model of text and {modality}; only text models are supported: name the text-only "
                "checkpoint of the family, or save its language model as a causal one"
            )
    heads = tuple(model_config.architectures or ())
    if heads and all(head.endswith(OTHER_HEADS) for head in heads):
        raise PolicyError(f"{path}: it was saved as {heads[0]}, which generates no text; name a causal language model")


def check_attention(config: PolicyConfig) -> None:
    """Raise PolicyError if flash attention is configured and no installed package provides it."""
    # transformers 5 loads flash attention from flash-attn, or prebuilt from the hub through the package kernels.
    if config.attention == "flash_attention_2" and not (find_spec("flash_attn") or find_spec("kernels")):
        raise PolicyError(
            "policy.attention is flash_attention_2, and the package flash-attn is not installed; run `pip install "
            "flash-attn --no-build-isolation` (needs an NVIDIA GPU and a CUDA compiler), or set policy.attention to "
            "sdpa, which needs as little memory here because no text is masked by padding"
        )


def check_device_settings(config: PolicyConfig) -> None:
    """Raise ConfigError for contradictory settings, PolicyError if flash attention is not installed."""
    if config.device_map is not None and config.device != "auto":
        raise ConfigError(
            f"policy.device ({config.device}) and policy.device_map both place the model: leave device at auto"
        )
    if config.attention == "flash_attention_2" and (config.dtype == "float32" or config.device == "cpu"):
        raise ConfigError(
            "policy.attention: flash_attention_2 needs a GPU and 16-bit numbers; set policy.dtype to bfloat16 and "
            "policy.device to cuda, or attention to sdpa"
        )
    check_attention(config)


def check_device_map(config: PolicyConfig) -> None:
    """Raise PolicyError if `policy.device_map` names a GPU that torch does not see."""
    import torch

    devices = config.device_map.values() if isinstance(config.device_map, dict) else ()
    gpu_count = torch.cuda.device_count()
    for device in devices:
        index = device if isinstance(device, int) else int(str(device).partition("cuda:")[2] or 0)
        if (isinstance(device, int) or str(device).startswith("cuda")) and index >= gpu_count:
            raise PolicyError(f"policy.device_map names the device {device}, and torch sees {gpu_count} GPUs")


def check_missing_weights(missing: Iterable[str], path: str | Path) -> None:
    """Raise PolicyError if weights are missing in the files: transformers would initialize them at random."""
    names = sorted(missing)
    if names:
        suffix = f" and {len(names) - LISTED_WEIGHTS} more" if len(names) > LISTED_WEIGHTS else ""
        raise PolicyError(
            f"{path}: its files have no weights for {', '.join(names[:LISTED_WEIGHTS])}{suffix}, which would be "
            "initialized at random; a file is missing, or this is a model with another head, such as a reward model"
        )


def check_round_trip(tokenizer: Any, path: str | Path) -> None:
    """Raise PolicyError if decoding the ids of test sentences does not give them back; `path` is for the message.

    A tokenizer that fails would train the model on other words than those of the data. White space, Unicode form
    (NFC, NFKC) and letter case may change. Unknown words may be dropped, since a vocabulary without Chinese still
    serves English data. No word may turn into another word or merge with its neighbour.
    """
    for text in (ENGLISH, CHINESE):
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        decoded = str(tokenizer.decode(ids, skip_special_tokens=True))
        expected, actual = normalized_words(text), normalized_words(decoded)
        remaining = iter(expected)
        is_subsequence = all(word in remaining for word in actual)
        must_be_equal = text is ENGLISH and tokenizer.unk_token_id not in ids
        if not is_subsequence or (must_be_equal and actual != expected):
            raise PolicyError(
                f"{path}: the tokenizer ({type(tokenizer).__name__}) fails the round trip: {text!r} is decoded as "
                f"{decoded!r}; the model was trained with another tokenizer, or this one was loaded as the wrong class "
                "(see tokenizer_class in tokenizer_config.json)"
            )


def normalized_words(text: str) -> list[str]:
    """Split into words, single Han characters and punctuation marks, in one Unicode form (NFKC) and in lower case."""
    return TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


@contextmanager
def load_errors(component: str, path: str | Path, config: PolicyConfig) -> Iterator[None]:
    """Convert errors of transformers into PolicyError; `component` is "model", "tokenizer" or "config".

    Only the usual exception classes are converted, since others are bugs. Remote code may raise anything.
    """
    from safetensors import SafetensorError

    try:
        yield
    except PolicyError:
        raise
    except Exception as error:
        if not isinstance(error, (*LOAD_ERRORS, SafetensorError)) and not config.trust_remote_code:
            raise
        if "trust_remote_code" in str(error) and not config.trust_remote_code:
            raise PolicyError(
                f"{path}: the {component} is shipped with Python code of its own, which would run here with your "
                "permissions; read that code, pin it with policy.revision and set policy.trust_remote_code to true, or "
                "name a checkpoint of a class that is part of transformers"
            ) from error
        first_line = next(iter(str(error).strip().splitlines()), "")
        message = f"{path}: the {component} cannot be loaded ({type(error).__name__}: {first_line})"
        if config.trust_remote_code and not isinstance(error, OSError):
            message += "; if its own code fails (policy.trust_remote_code), it may need another version of transformers"
        if is_gguf(path):  # transformers reads the files of some architectures only
            message += f"; {CONVERT_ADVICE}"
        raise PolicyError(message) from error
