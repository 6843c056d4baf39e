"""A GGUF file as a model: a llama of two layers with a byte-level tokenizer, written by the package gguf itself."""

from pathlib import Path

import numpy as np
import pytest
from transformers.convert_slow_tokenizer import bytes_to_unicode

from longreward.errors import PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.model_ref import fingerprint, pretrained_kwargs
from longreward.models.policy import load_policy, load_tokenizer
from longreward.training.sft import SftConfig, train_sft

gguf = pytest.importorskip("gguf", reason="needs the package gguf: pip install 'longreward[gguf]'")

HIDDEN, FEED_FORWARD, LAYERS, HEADS, WINDOW = 32, 64, 2, 4, 128
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONFIG = PolicyConfig(base_model="x")


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    """The weights of the linear layers are quantized to 8 bits, as in most files."""
    rng = np.random.default_rng(0)
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *bytes_to_unicode().values(), "th", "the"]
    file = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(WINDOW)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3, 3, 3] + [1] * (len(words) - 3))
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)

    def add(name: str, *shape: int) -> None:
        weights = rng.normal(0, 0.3, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, weights)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)

    add("token_embd.weight", len(words), HIDDEN)
    add("output.weight", len(words), HIDDEN)
    add("output_norm.weight", HIDDEN)
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{part}.weight", HIDDEN, HIDDEN)
        for part in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{part}.weight", FEED_FORWARD, HIDDEN)
        add(f"blk.{layer}.ffn_down.weight", HIDDEN, FEED_FORWARD)
        add(f"blk.{layer}.attn_norm.weight", HIDDEN)
        add(f"blk.{layer}.ffn_norm.weight", HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_gguf_file_loaded_with_own_tokenizer_and_window(gguf_file: Path) -> None:
    policy = load_policy(CONFIG, gguf_file)
    assert policy.window == WINDOW
    assert policy.encoder.prompt_text("the town", "who?") == (
        "<|im_start|>user\nthe town\n\nwho?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert policy.encoder.end_ids == (2,)
    assert str(policy.model.dtype) == "torch.float32"
    assert not getattr(policy.model, "is_quantized", False)


def test_sft_stage_converts_gguf_file_to_folder_with_same_weights(gguf_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "models" / "sft"
    config = CONFIG.model_copy(update={"sft_model": str(gguf_file)})
    train_sft(SftConfig(), config, base="x", data=tmp_path / "none", out=out, state=tmp_path / "state")
    converted, original = load_policy(CONFIG, out), load_policy(CONFIG, gguf_file)
    weights = original.model.state_dict()
    assert all(bool((weight == weights[name]).all()) for name, weight in converted.model.state_dict().items())
    prompt = ("the <|im_end|> town", "who?")
    assert converted.encoder.prompt_ids(*prompt) == original.encoder.prompt_ids(*prompt)


def test_sft_trains_from_gguf_file(gguf_file: Path, tmp_path: Path) -> None:
    from longreward.data.formats import write_examples
    from longreward.records import Example

    data, out = tmp_path / "sft.jsonl", tmp_path / "models" / "sft"
    write_examples(data, [Example(id="1", document_id="1", context="the town", query="who?", answer="the mayor")])
    settings = SftConfig(
        learning_rate=1e-2, max_steps=1, warmup=0, batch_size=1, bf16=False, gradient_checkpointing=False
    )
    train_sft(settings, CONFIG, base=str(gguf_file), data=data, out=out, state=tmp_path / "state")
    before, after = (load_policy(CONFIG, path).model.state_dict() for path in (gguf_file, out))
    assert any(bool((weight != after[name]).any()) for name, weight in before.items())


def test_changed_gguf_file_has_another_fingerprint(gguf_file: Path) -> None:
    before = fingerprint(gguf_file)
    content = bytearray(gguf_file.read_bytes())
    content[-1] ^= 1
    gguf_file.write_bytes(content)
    assert fingerprint(gguf_file) != before


def test_file_that_is_not_gguf_rejected(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(PolicyError, match=r"model\.gguf is not a GGUF file \(it starts with b'vers'\)"):
        load_tokenizer(CONFIG, file)


def test_missing_gguf_file_is_not_searched_on_hub(tmp_path: Path) -> None:
    for name in (str(tmp_path / "x.gguf"), "x.gguf", "org/name.gguf"):
        with pytest.raises(PolicyError, match="no such file; a GGUF file of the hub must be downloaded first"):
            pretrained_kwargs(CONFIG, name)


def test_missing_package_named(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longreward.models.gguf.find_spec", lambda name: None)
    with pytest.raises(PolicyError, match=r"pip install 'longreward\[gguf\]'"):
        pretrained_kwargs(CONFIG, gguf_file)


def test_unknown_architecture_reported_with_advice(tmp_path: Path) -> None:
    file = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(file, "unheard-of")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(PolicyError, match=r"unheard-of.*name the original checkpoint instead of the GGUF file"):
        load_policy(CONFIG, file)
