"""Which models can be a policy: one that continues text, whole, in a class that can be loaded here.

What cannot is told apart by its config, before any weights are read, or by what was missing when they were.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.errors import PolicyError

if TYPE_CHECKING:
    from longreward.models.config import PolicyConfig

SENSES = {"vision_config": "images", "audio_config": "sound"}
SHOWN = 3  # names of weights that an error lists


def check_model_type(model_config: Any, path: str | Path) -> None:
    """PolicyError for what does not continue text: encoder-decoders, models of images or sound, other heads."""
    kind = f"{path}: its model_type is {model_config.model_type}"
    if getattr(model_config, "is_encoder_decoder", False):
        raise PolicyError(f"{kind}, an encoder-decoder; a policy continues its prompt: name a causal language model")
    for part, sense in SENSES.items():
        if getattr(model_config, part, None) is not None:
            raise PolicyError(
                f"{kind}, a model of text and {sense}; only models of text alone are trained here: name the text-only "
                "checkpoint of the family, or save its language model as a causal one"
            )
    heads = tuple(model_config.architectures or ())
    if heads and all(head.endswith(OTHER_HEADS) for head in heads):
        raise PolicyError(f"{path}: it was saved as {heads[0]}, which writes no text; name a causal language model")


def check_attention(config: "PolicyConfig") -> None:
    """PolicyError where flash attention is asked for and there is nothing that provides it."""
    if config.attention == "flash_attention_2" and not (find_spec("flash_attn") or find_spec("kernels")):
        raise PolicyError(
            "policy.attention is flash_attention_2, and the package flash-attn is not installed; `pip install "
            "flash-attn --no-build-isolation` (an NVIDIA GPU and its compiler are needed), or set policy.attention to "
            "sdpa, whose kernels need as little memory here: texts are never masked by padding"
        )


def check_device_map(config: "PolicyConfig") -> None:
    """PolicyError where the map names a GPU that torch does not see."""
    import torch

    named = config.device_map.values() if isinstance(config.device_map, dict) else ()
    count = torch.cuda.device_count()
    for place in named:
        number = place if isinstance(place, int) else int(str(place).partition("cuda:")[2] or 0)
        if (isinstance(place, int) or str(place).startswith("cuda")) and number >= count:
            raise PolicyError(f"policy.device_map names the device {place}, and torch sees {count} GPUs")


def check_missing_weights(missing: Iterable[str], path: str | Path) -> None:
    """PolicyError where the files lacked weights, which transformers would make up at random."""
    names = sorted(missing)
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise PolicyError(
            f"{path}: its files hold no weights for {', '.join(names[:SHOWN])}{more}, and random ones would take their "
            "place; a file is missing, or this is a model with another head, such as a reward model"
        )


@contextmanager
def load_errors(what: str, path: str | Path, config: "PolicyConfig") -> Iterator[None]:
    """Gives what goes wrong under transformers a name; errors of no known class only where a model's own code runs."""
    from safetensors import SafetensorError

    try:
        yield
    except PolicyError:
        raise
    except Exception as error:
        if isinstance(error, (*KNOWN, SafetensorError)) or config.trust_remote_code:
            raise PolicyError(_why(what, path, error, config)) from error
        raise


def _why(what: str, path: str | Path, error: Exception, config: "PolicyConfig") -> str:
    lines = str(error).strip().splitlines()
    if "trust_remote_code" in str(error) and not config.trust_remote_code:
        return (
            f"{path}: the {what} comes with Python code of its own, which would run here with your rights; read that "
            "code, pin it with policy.revision and set policy.trust_remote_code to true, or name a checkpoint of a "
            "class that transformers has itself"
        )
    told = f"{path}: the {what} cannot be loaded ({type(error).__name__}: {lines[0] if lines else ''})"
    if config.trust_remote_code and not isinstance(error, OSError):
        told += "; where its own code fails (policy.trust_remote_code), it may want another version of transformers"
    return told


KNOWN = (OSError, ValueError, KeyError, ImportError, RuntimeError)
OTHER_HEADS = (
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForRewardModeling",
)
