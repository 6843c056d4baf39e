"""The tiny base model: its initialization, resumed pre-training, and the checkpoint in `models/`."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from longreward.builtin import pretrain
from longreward.builtin.pretrain import Difficulty, make_training_sequence
from longreward.builtin.tiny_model import init_lookup_heads, new_model
from longreward.builtin.tokenizer import TOKEN_IDS

BASE = Path(__file__).parents[3] / "models" / "tiny-base"
SMALL = Difficulty(people=2, facts_per_person=2, scenes=0, relations_per_theme=1)


def test_first_layer_heads_attend_one_to_four_positions_back() -> None:
    model = new_model(seed=1)
    model.set_attn_implementation("eager")
    ids = torch.tensor([make_training_sequence("l1", SMALL).ids[:40]])
    with torch.no_grad():
        attention = model(input_ids=ids, output_attentions=True).attentions[0][0]
    for head in range(4):
        assert attention[head, 30].argmax().item() == 30 - (head + 1)


def test_value_accuracy_counts_whole_values() -> None:
    sequence = make_training_sequence("l1", SMALL)
    logits = torch.nn.functional.one_hot(torch.tensor([[*sequence.ids[1:], 0]]), 2000).float()
    assert pretrain.value_accuracy([sequence], logits) == 1.0
    logits[0, sequence.values[0][1] - 2] = 0.0
    assert pretrain.value_accuracy([sequence], logits) == 1.0 - 1 / len(sequence.values)


def test_training_resumes_from_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "LEVELS", (SMALL,))
    monkeypatch.setattr(pretrain, "TOKENS_PER_STEP", 200)
    monkeypatch.setattr(pretrain, "held_out_accuracy", lambda model, level: 0.0)
    monkeypatch.setattr(pretrain, "_learning_rate", lambda step, steps: 0.1)
    for steps in (2, 4):
        pretrain.pretrain(tmp_path / "stopped", steps=steps, seed=1, checkpoint=tmp_path / "stopped.pt", every=2)
    pretrain.pretrain(tmp_path / "whole", steps=4, seed=1, checkpoint=tmp_path / "whole.pt", every=2)
    stopped, whole = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("stopped", "whole")
    )
    fresh = new_model(seed=1).state_dict()
    for name in whole:
        torch.testing.assert_close(stopped[name], whole[name])
    assert not torch.equal(whole["model.embed_tokens.weight"], fresh["model.embed_tokens.weight"])


def test_tiny_base_finds_facts_in_held_out_documents() -> None:
    model = AutoModelForCausalLM.from_pretrained(BASE)
    assert pretrain.held_out_accuracy(model, pretrain.LEVELS[-1], documents=8) > 0.95


def test_tiny_base_matches_tokenizer() -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(BASE), AutoTokenizer.from_pretrained(BASE)
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == model.config.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.config.max_position_embeddings == 2048
    assert sum(file.stat().st_size for file in BASE.iterdir()) < 5_000_000


def test_role_embeddings_initialized_from_punctuation() -> None:
    model = new_model(seed=1)
    init_lookup_heads(model)
    embeddings = model.get_input_embeddings().weight
    assert torch.equal(embeddings[TOKEN_IDS["<|assistant|>"]], embeddings[TOKEN_IDS["?"]])
    assert torch.equal(embeddings[TOKEN_IDS["<|end|>"]], embeddings[TOKEN_IDS["\n\n"]])


def test_unwritable_output_folder_reported_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["pretrain", "--out", str(tmp_path / "file/model")])
    with pytest.raises(SystemExit, match="file/model cannot be written"):
        pretrain.main()
