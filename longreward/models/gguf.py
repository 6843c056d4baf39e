"""Read a GGUF file, the format of llama.cpp and Ollama, as a model that can be trained and saved.

transformers loads such a file with the tokenizer and chat template in it, and refuses to save the result
("quantized with gguf and is not serializable"). `unquantized` removes the marks of quantization from the loaded model,
whose weights are ordinary tensors by then.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from longreward.errors import PolicyError

SUFFIX = ".gguf"
CONVERT_ADVICE = (
    "name the original checkpoint instead of the GGUF file (a folder or a hub id), or convert the file to a folder "
    "with safetensors, config.json and the tokenizer"
)


def is_gguf(model: str | Path) -> bool:
    """Return whether `model` is the path of an existing GGUF file."""
    return Path(model).suffix.lower() == SUFFIX and Path(model).is_file()


def gguf_kwargs(file: Path) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that name a GGUF file.

    Raises PolicyError if the package gguf is not installed, or if the file does not start as a GGUF file.
    """
    with file.open("rb") as stream:
        magic = stream.read(4)
    if magic != b"GGUF":
        raise PolicyError(f"{file} is not a GGUF file (it starts with {magic!r}); {CONVERT_ADVICE}")
    if find_spec("gguf") is None:
        raise PolicyError(f"{file}: reading GGUF files needs a package: pip install 'longreward[gguf]'")
    return {"pretrained_model_name_or_path": str(file.absolute().parent), "gguf_file": file.name}


def dequantize_kwargs() -> dict[str, Any]:
    """Return the arguments of `from_pretrained` by which every weight becomes an ordinary tensor."""
    import transformers

    # Releases that lack this class always dequantize; later ones may keep packed blocks, which cannot be trained.
    config_class = getattr(transformers, "GgufConfig", None)
    return {} if config_class is None else {"quantization_config": config_class(dequantize=True)}


def unquantized(model: Any, path: str | Path) -> Any:
    """Return the `model` of the GGUF file `path` without the marks that keep transformers from training and saving it.

    Raises PolicyError if some weights are still packed.
    """
    packed = [name for name, weight in model.state_dict().items() if not weight.dtype.is_floating_point]
    if packed:
        raise PolicyError(f"{path}: {packed[0]} was not dequantized; {CONVERT_ADVICE}")
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(model)
    return model
