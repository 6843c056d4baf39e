import json
from pathlib import Path

import pytest

from longreward.errors import PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.model_ref import FULL_HASH_BYTES, fingerprint, pretrained_kwargs
from longreward.models.policy import link_pretrained, load_policy, load_tokenizer


def config_of(name: str | Path, **fields: object) -> PolicyConfig:
    return PolicyConfig(base_model=str(name), **fields)


def test_hub_id_may_carry_own_revision() -> None:
    config = config_of("org/base", revision="v1")
    assert pretrained_kwargs(config, "org/base")["revision"] == "v1"
    kwargs = pretrained_kwargs(config, "org/mine@v2")
    assert (kwargs["pretrained_model_name_or_path"], kwargs["revision"]) == ("org/mine", "v2")


def test_folder_has_no_revision_and_is_local(tiny_policy) -> None:
    assert pretrained_kwargs(config_of(tiny_policy, revision="v1"), tiny_policy) == {
        "pretrained_model_name_or_path": str(tiny_policy),
        "trust_remote_code": False,
        "local_files_only": True,
    }


@pytest.fixture
def linked(save_tiny_policy, tmp_path) -> tuple[Path, Path]:
    """A model and the folder that points to it."""
    model, out = save_tiny_policy(tmp_path / "mine"), tmp_path / "models" / "sft"
    link_pretrained(config_of("x", sft_model=str(model)), str(model), out)
    return model, out


def test_load_policy_follows_pointer(linked) -> None:
    model, out = linked
    assert json.loads((out / "model.json").read_text())["model"] == str(model)
    assert load_policy(config_of("x"), out).name == str(out)


def test_changed_model_behind_pointer_rejected(linked, save_tiny_policy) -> None:
    model, out = linked
    save_tiny_policy(model, seed=1)  # the same names and sizes, other weights
    with pytest.raises(PolicyError, match=r"has changed since; run `dvc repro --force sft`"):
        load_policy(config_of("x"), out)
    with pytest.raises(PolicyError, match="has changed since"):
        load_tokenizer(config_of("x"), out)


def test_fingerprint_ignores_readme_and_hidden_files(linked) -> None:
    model, out = linked
    (model / "README.md").write_text("a note")
    (model / ".cache").mkdir()
    (model / ".cache" / "x.json").write_text("{}")
    load_tokenizer(config_of("x"), out)


def test_missing_model_behind_pointer_rejected(linked) -> None:
    model, out = linked
    model.rename(model.with_name("elsewhere"))
    with pytest.raises(PolicyError, match=r"model\.json points to .*mine, which is gone"):
        load_policy(config_of("x"), out)


def test_pointer_without_fingerprint_followed(tiny_policy, tmp_path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"model": str(tiny_policy), "revision": None}))
    load_tokenizer(config_of("x"), tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"revision": null}'])
def test_damaged_pointer_rejected(tmp_path, text) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(PolicyError, match=r"model\.json is not a valid model pointer.*dvc repro --force sft"):
        load_tokenizer(config_of("x"), tmp_path)


@pytest.mark.parametrize("position", [0, 100, FULL_HASH_BYTES // 2, 2 * FULL_HASH_BYTES - 1])
def test_fingerprint_of_large_file_detects_changes_at_any_position(tmp_path, position) -> None:
    weights = tmp_path / "model.safetensors"
    with weights.open("wb") as file:
        file.truncate(2 * FULL_HASH_BYTES)
    before = fingerprint(tmp_path)
    with weights.open("r+b") as file:  # 1 MiB, as training changes every part of the file
        file.seek(position // (1 << 20) * (1 << 20))
        file.write(b"x" * (1 << 20))
    assert fingerprint(tmp_path) != before


def test_pointer_to_hub_model_pinned_to_cached_commit(save_tiny_policy, tmp_path, monkeypatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--org--mine"
    save_tiny_policy(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    (cached / "refs" / "v2").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    link_pretrained(config_of("org/base", revision="none-such"), "org/mine@v2", tmp_path / "v2")
    load_tokenizer(config_of("org/base"), tmp_path / "v2")
    link_pretrained(config_of("org/base"), "org/mine", tmp_path / "newest")
    expected = {"model": "org/mine", "revision": commit, "fingerprint": None}
    assert json.loads((tmp_path / "v2" / "model.json").read_text()) == expected
    assert json.loads((tmp_path / "newest" / "model.json").read_text()) == expected
