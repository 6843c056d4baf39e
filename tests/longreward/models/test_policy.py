import json
from pathlib import Path

import pytest

from longreward.errors import ConfigError, PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.policy import PolicyTokenizer, fit_window, load_policy, load_tokenizer, policy_window


def config_of(folder: Path, **fields) -> PolicyConfig:
    return PolicyConfig(base_model=str(folder), **fields)


@pytest.fixture(scope="module")
def policy(tiny_policy):
    return load_policy(config_of(tiny_policy), tiny_policy)


def test_prompt_is_context_blank_line_query_in_chat_template(policy):
    assert (
        policy.encoder.prompt_text("The river is north.", "Who?")
        == "<s><|user|> The river is north.\n\nWho? <|assistant|> "
    )
    # <s> <|user|> the river is north . who ? <|assistant|>
    assert policy.encoder.prompt_ids("The river is north.", "Who?") == [2, 4, 6, 17, 9, 19, 35, 12, 34, 5]


def test_slot_names_inside_document_kept(policy):
    assert "the {query} is {context}\n\nWho?" in policy.encoder.prompt_text("the {query} is {context}", "Who?")


def test_prompt_template_can_reorder_slots(tiny_policy):
    encoder = load_tokenizer(config_of(tiny_policy, prompt_template="{query} in: {context}"), tiny_policy)
    assert encoder.prompt_text("the town", "where ?") == "<s><|user|> where ? in: the town <|assistant|> "


def test_prompt_template_without_context_rejected():
    with pytest.raises(ConfigError, match=r"must hold \{context\}"):
        PolicyConfig.parse({"base_model": "x", "prompt_template": "{query}"}, source="params.yaml: policy")


def test_completion_ends_with_end_token(policy):
    assert policy.encoder.completion_ids("Anna built it.") == [21, 27, 31, 35, 3]


def test_prompt_and_completion_equal_rendered_conversation(policy):
    whole = policy.tokenizer.apply_chat_template(
        [{"role": "user", "content": "the town\n\nwho ?"}, {"role": "assistant", "content": "anna ."}],
        tokenize=True,
        return_dict=False,
    )
    assert policy.encoder.prompt_ids("the town", "who ?") + policy.encoder.completion_ids("anna .") == whole


def test_count_tokens_adds_no_special_tokens(policy):
    assert policy.encoder.count_tokens("The mayor, Anna.") == 5


@pytest.mark.parametrize("separator", [" ", "\n\n", " ,  "])
def test_long_document_counted_piece_by_piece(policy, monkeypatch, separator):
    """Words are whole tokens here, so that a border at white space costs none."""
    monkeypatch.setattr("longreward.models.policy.MAX_TOKENIZED_CHARACTERS", 20)
    encode, lengths = PolicyTokenizer.encode, []
    monkeypatch.setattr(PolicyTokenizer, "encode", lambda self, text: lengths.append(len(text)) or encode(self, text))
    for context in ("", "anna", separator.join(["anna is the mayor ."] * 30), "the bridge stands in the north ."):
        assert policy.encoder.count_prompt_tokens(context, "who ?") == len(policy.encoder.prompt_ids(context, "who ?"))
    assert len(lengths) > 15
    assert max(lengths) <= 40


def test_window_comes_from_model_or_settings(policy, tiny_policy):
    assert policy.window == 256
    assert load_policy(config_of(tiny_policy, window=100), tiny_policy).window == 100


def test_policy_window_needs_no_weights(save_tiny_policy, tmp_path):
    folder = save_tiny_policy(tmp_path / "policy", window=512)
    (folder / "model.safetensors").unlink()
    assert policy_window(config_of(folder), folder) == 512
    assert policy_window(config_of(folder, window=100), folder) == 100


def test_window_larger_than_model_window_is_rejected(tiny_policy):
    for load in (policy_window, load_policy):
        with pytest.raises(
            PolicyError, match=r"policy\.window is 257, and the config of .* allows 256 tokens; lower it"
        ):
            load(config_of(tiny_policy, window=257), tiny_policy)


def test_unsupported_model_rejected_although_window_is_set(save_tiny_policy, tmp_path):
    folder = save_tiny_policy(tmp_path / "policy")
    (folder / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(PolicyError, match="encoder-decoder"):
        policy_window(config_of(folder, window=100), folder)


def test_model_without_window_has_none(save_tiny_policy, tmp_path):
    folder = save_tiny_policy(tmp_path / "policy")
    (folder / "config.json").write_text('{"model_type": "bloom", "n_layer": 1}')
    assert policy_window(config_of(folder), folder) is None


def test_unknown_model_type_reported(save_tiny_policy, tmp_path):
    folder = save_tiny_policy(tmp_path / "policy")
    (folder / "config.json").write_text('{"model_type": "lama"}')
    with pytest.raises(PolicyError, match=r"policy: the config cannot be loaded"):
        policy_window(config_of(folder), folder)


def test_weights_for_training_are_float32(save_tiny_policy, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    folder = save_tiny_policy(tmp_path / "policy")
    AutoModelForCausalLM.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)
    assert load_policy(config_of(folder), folder).model.dtype == torch.bfloat16
    assert load_policy(config_of(folder), folder, training=True).model.dtype == torch.float32


def test_tokenizer_without_chat_template_rejected_with_advice(save_tiny_policy, tmp_path):
    folder = save_tiny_policy(tmp_path / "policy", template=None)
    with pytest.raises(PolicyError, match=r"no chat template.*put a chat_template\.jinja"):
        load_policy(config_of(folder), folder)


def test_configured_chat_template_replaces_tokenizer_template(save_tiny_policy, tmp_path):
    folder = save_tiny_policy(tmp_path / "policy", template=None)
    own_template = (
        "{% for message in messages %}<|{{ message.role }}|> {{ message.content }} {{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|> {% endif %}"
    )
    file = tmp_path / "own.jinja"
    file.write_text(own_template)
    for template in (own_template, str(file)):
        encoder = load_tokenizer(config_of(folder, chat_template=template), folder)
        assert encoder.prompt_text("the town", "where ?") == "<|user|> the town\n\nwhere ? </s><|assistant|> "
        assert encoder.completion_ids("anna .") == [21, 35, 3]


TURN_END_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|user|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)  # <|user|> takes the place of an end of turn, as <|im_end|> or <|eot_id|> of base models


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_completion_ends_at_first_token_that_stops_sampling(save_tiny_policy, tmp_path, file):
    folder = save_tiny_policy(tmp_path / "policy", template=TURN_END_TEMPLATE)
    encoder = load_tokenizer(config_of(folder), folder)
    assert (encoder.end_ids, encoder.completion_ids("anna .")) == ((3,), [21, 35, 4, 3])  # nothing stops at <|user|>
    if file == "config.json":  # by which generation goes where there is no file of its own
        (folder / "generation_config.json").unlink()
    settings = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**settings, "eos_token_id": [4, 3]}))
    encoder = load_tokenizer(config_of(folder), folder)
    assert (encoder.end_ids, encoder.completion_ids("anna .")) == ((3, 4), [21, 35, 4])
    assert load_policy(config_of(folder), folder).encoder.end_ids == (3, 4)


def test_configured_chat_template_saved_with_tokenizer(save_tiny_policy, tmp_path):
    folder = save_tiny_policy(tmp_path / "policy", template=None)
    template = "{% for message in messages %}{{ message.content }} {{ eos_token }}{% endfor %}"
    load_tokenizer(config_of(folder, chat_template=template), folder).tokenizer.save_pretrained(folder)
    assert load_tokenizer(config_of(folder), folder).prompt_text("the", "town") == "the\n\ntown </s>"


def test_missing_chat_template_file_reported(tiny_policy):
    with pytest.raises(PolicyError, match=r"policy\.chat_template: own\.jinja cannot be read"):
        load_tokenizer(config_of(tiny_policy, chat_template="own.jinja"), tiny_policy)


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_device_map_does_not_change_logits(policy, tiny_policy, device_map):
    import torch

    mapped = load_policy(config_of(tiny_policy, device="cpu", device_map=device_map), tiny_policy)
    ids = torch.tensor([[2, 4, 6, 17]], device=mapped.device)
    assert torch.equal(mapped.model(ids).logits, policy.model(ids).logits)


def test_device_map_with_missing_gpus_rejected(tiny_policy):
    for device in ("cuda:63", 63):
        with pytest.raises(PolicyError, match=rf"device_map names the device {device}, and torch sees [0-9]+ GPUs"):
            load_policy(config_of(tiny_policy, device_map={"": device}), tiny_policy)


@pytest.mark.parametrize(
    ("context", "query", "words"),
    [("这座城镇在河的北边，建于一九一二年。", "谁是第一个？", 21), ("xylophon", "quagga", 2)],
    ids=["chinese", "english"],
)
def test_prompt_of_unknown_words_rejected(policy, context, query, words):
    with pytest.raises(PolicyError, match=f"keeps [0-9]+ tokens of a prompt with {words} words"):
        policy.encoder.prompt_ids(context, query)


def test_tokenizer_that_drops_every_word_is_rejected(save_tiny_policy, tmp_path):
    folder = save_tiny_policy(tmp_path / "policy")
    text = (folder / "tokenizer.json").read_text()
    # What a byte-level pre-tokenizer over a word-level vocabulary does: no piece is a known word any more.
    changed = text.replace(
        '"type": "WhitespaceSplit"', '"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true'
    )
    assert changed != text
    (folder / "tokenizer.json").write_text(changed)
    with pytest.raises(PolicyError, match=r"keeps [0-9]+ tokens of a prompt"):
        load_tokenizer(config_of(folder), folder)


def test_name_next_to_other_folders_is_not_hub_id(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PolicyError, match=r"models/absent: no such folder"):
        load_policy(config_of("models/absent"), "models/absent")


def test_missing_folder_not_searched_on_hub(tmp_path):
    with pytest.raises(PolicyError, match="no such folder"):
        load_policy(config_of(tmp_path), tmp_path / "absent")


def test_folder_without_weights_reported(save_tiny_policy, tmp_path):
    folder = save_tiny_policy(tmp_path / "policy")
    (folder / "model.safetensors").unlink()
    with pytest.raises(PolicyError, match=r"policy: the model cannot be loaded"):
        load_policy(config_of(folder), folder)


def test_truncated_weights_reported(save_tiny_policy, tmp_path):
    folder = save_tiny_policy(tmp_path / "policy")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(PolicyError, match=r"policy: the model cannot be loaded"):
        load_policy(config_of(folder), folder)


def test_fit_window_keeps_prompt_that_fits():
    assert fit_window([1, 2, 3], limit=3, rule="refuse", name="7") == [1, 2, 3]


def test_fit_window_keeps_both_ends():
    assert fit_window([1, 2, 3, 4, 5, 6, 7], limit=5, rule="keep_ends", name="7") == [1, 2, 5, 6, 7]


def test_fit_window_names_rejected_example():
    with pytest.raises(PolicyError, match="example 7: its prompt has 4 tokens, and 3 fit"):
        fit_window([1, 2, 3, 4], limit=3, rule="refuse", name="7")
