import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from longreward.errors import PolicyError
from longreward.models.compatibility import check_round_trip, normalized_words
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_policy, policy_window


def config_of(folder: Path, **fields: object) -> PolicyConfig:
    return PolicyConfig(base_model=str(folder), **fields)


def rewrite(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True}, "model_type is t5, an encoder-decoder"),
        ({"model_type": "qwen2_vl", "vision_config": {}}, "model_type is qwen2_vl, a model of text and images"),
        ({"model_type": "qwen2_audio"}, "model_type is qwen2_audio, a model of text and sound"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "saved as LlamaForSequenceClassification"),
    ],
)
def test_unsupported_model_types_rejected_without_reading_weights(save_tiny_policy, tmp_path, fields, message) -> None:
    folder = save_tiny_policy(tmp_path / "policy")
    rewrite(folder, **fields)
    (folder / "model.safetensors").unlink()
    for load in (policy_window, load_policy):
        with pytest.raises(PolicyError, match=message):
            load(config_of(folder), folder)


def test_missing_weights_rejected(save_tiny_policy, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny_policy(tmp_path / "policy")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        PolicyError, match=r"no weights for model\.layers\.1\.mlp\.up_proj\.weight, which would be initialized"
    ):
        load_policy(config_of(folder), folder)


@pytest.fixture
def remote_code_model(save_tiny_policy, tmp_path) -> Path:
    """A model whose class is defined in a Python file next to its weights."""
    folder = save_tiny_policy(tmp_path / "policy")
    names = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    rewrite(folder, model_type="own", architectures=["OwnForCausalLM"], auto_map=names)
    (folder / "modeling_own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    return folder


def test_remote_code_runs_only_with_trust_remote_code(remote_code_model, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    with pytest.raises(PolicyError, match=r"Python code of its own, .* set policy\.trust_remote_code to true"):
        policy_window(config_of(remote_code_model), remote_code_model)
    policy = load_policy(config_of(remote_code_model, trust_remote_code=True), remote_code_model)
    assert type(policy.model).__name__ == "OwnForCausalLM"


def test_failing_remote_code_reported_as_such(remote_code_model, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    (remote_code_model / "modeling_own.py").write_text("raise AttributeError('is_torch_fx_available')")
    with pytest.raises(PolicyError, match=r"is_torch_fx_available\); if its own code fails"):
        policy_window(config_of(remote_code_model, trust_remote_code=True), remote_code_model)


@pytest.mark.skipif(bool(find_spec("flash_attn") or find_spec("kernels")), reason="flash attention is installed")
def test_missing_flash_attention_rejected_with_advice(tiny_policy) -> None:
    with pytest.raises(
        PolicyError, match=r"flash-attn is not installed; run `pip install .*set policy\.attention to sdpa"
    ):
        load_policy(config_of(tiny_policy, attention="flash_attention_2"), tiny_policy)


def byte_level_tokenizer(decoder: object | None) -> PreTrainedTokenizerFast:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(sorted(alphabet))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if decoder is not None:
        tokenizer.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def word_level_tokenizer(vocabulary_words: str, normalizer: object | None = None) -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *vocabulary_words.split()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def test_byte_level_tokenizer_passes() -> None:
    check_round_trip(byte_level_tokenizer(decoders.ByteLevel()), "models/x")


def test_missing_byte_decoder_rejected_with_input_and_output() -> None:
    with pytest.raises(PolicyError, match=r'models/x: .*"Who was the first.* is decoded as "W h o Ġ w a s'):
        check_round_trip(byte_level_tokenizer(None), "models/x")


def test_lost_spaces_rejected() -> None:
    with pytest.raises(PolicyError, match='is decoded as "Whowasthefirst'):
        check_round_trip(
            byte_level_tokenizer(decoders.Sequence([decoders.ByteLevel(), decoders.Replace(" ", "")])), "x"
        )


def test_small_vocabulary_may_drop_words_and_chinese() -> None:
    check_round_trip(word_level_tokenizer("Who was the first of two ? in town and ."), "x")


def test_lower_case_accepted_and_replaced_words_rejected() -> None:
    check_round_trip(word_level_tokenizer("who was the first ?", normalizers.Lowercase()), "x")
    with pytest.raises(PolicyError, match="was mal"):
        check_round_trip(word_level_tokenizer("Who was mal first ?", normalizers.Replace("the", "mal")), "x")


def test_error_in_chinese_alone_rejected() -> None:
    decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("河", "何")])
    with pytest.raises(PolicyError, match=r"在河的北边.* is decoded as .*在何的北边"):
        check_round_trip(byte_level_tokenizer(decoder), "x")


def test_normalized_words_ignores_white_space_unicode_form_and_case() -> None:
    assert (
        normalized_words("Cafe\u0301 in the  Town.")
        == normalized_words(" café in the town .")
        == ["café", "in", "the", "town", "."]
    )
    assert normalized_words("北边，1912") == normalized_words("北 边 , 1912")
