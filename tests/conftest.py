"""Fixtures of all tests."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_sizes import TINY_SIZES

# Under `nohup`, or in the background of a script, SIGINT is ignored, and every child process would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch is first imported: threads that spin while they wait slow each other down on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

WORDS = """
    [UNK] <pad> <s> </s> <|user|> <|assistant|> the of in is was a who where when mayor town river bridge north south
    anna ben cara 1901 1912 1930 built opened stands and it first two ? . ,
""".split()  # noqa: SIM905
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}<|user|> {{ message.content }} "
    "{% else %}<|assistant|> {{ message.content }} {{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)


@pytest.fixture(scope="session")
def save_tiny_policy() -> Callable[..., Path]:
    """Return `save_tiny_policy(folder, seed=0, window=256, template=…)`; the same seed gives the same weights."""
    return _save


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random Llama of some thousand weights with a word-level tokenizer; do not write to it."""
    return _save(tmp_path_factory.mktemp("tiny") / "policy")


@pytest.fixture(scope="session")
def save_classifier(save_tiny_policy: Callable[..., Path]) -> Callable[..., Path]:
    """Return `save_classifier(folder, labels=1, template=…)`: the tiny policy's body under a head for classes."""

    def save(folder: Path, *, labels: int = 1, **options: Any) -> Path:
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification

        save_tiny_policy(folder, **options)
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(folder, num_labels=labels)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a Prefect server for the session and return its address; it ends with this process."""
    # Imported late: most tests do not need Prefect, whose import takes seconds.
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    from longreward.tasks import prefect_server as module
    from longreward.tasks.state import STATE_VARIABLE

    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings(restore_defaults={PREFECT_API_URL, PREFECT_API_AUTH_STRING}),
    ):
        patch.setenv(STATE_VARIABLE, str(tmp_path_factory.mktemp("prefect")))
        server = module.prefect_server()
    with temporary_settings(server.settings):
        yield server.url


@pytest.fixture(scope="session")
def write_lines() -> Callable[..., Path]:
    """Return `write_lines(path, rows)`, which writes JSON lines."""

    def write(path: Path, rows: list[dict[str, Any]]) -> Path:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


def _make_tokenizer(words: list[str] = WORDS, template: str | None = TEMPLATE) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
    )
    fast.chat_template = template
    return fast


def _save(folder: Path, *, seed: int = 0, window: int = 256, template: str | None = TEMPLATE) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        max_position_embeddings=window,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=1,
        **TINY_SIZES,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    _make_tokenizer(template=template).save_pretrained(folder)
    return folder
