import threading
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from longreward.errors import ConfigError
from longreward.utils.token_spans import open_tokenizer


def tokens(text: str, name: str = "simple") -> list[str]:
    return [text[start:end] for start, end in open_tokenizer(name).spans(text)]


def test_simple_tokens() -> None:
    assert tokens("Information, 12345 km!!") == ["Inform", "ation", ",", "123", "45", "km", "!!"]


def test_each_han_character_is_simple_token() -> None:
    assert tokens("林桥 bridge建于1988年。") == ["林", "桥", "bridge", "建", "于", "198", "8", "年", "。"]


def test_whitespace_has_no_token() -> None:
    assert tokens(" \n\t ") == []
    assert tokens("") == []


def test_local_tokenizer_from_folder_or_file(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"the": 0, "lake": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.enable_truncation(max_length=2)
    words.save(str(tmp_path / "tokenizer.json"))
    assert tokens("the deep lake", str(tmp_path)) == ["the", "deep", "lake"]  # the saved truncation is ignored
    assert tokens("the deep lake", str(tmp_path / "tokenizer.json")) == ["the", "deep", "lake"]


def test_byte_tokens_of_one_character_do_not_overlap(tmp_path: Path) -> None:
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytewise = Tokenizer(models.BPE(alphabet, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    bytewise.save(str(tmp_path / "tokenizer.json"))
    spans = open_tokenizer(str(tmp_path)).spans("a林b")
    assert spans == [(0, 1), (1, 2), (2, 2), (2, 2), (2, 3)]  # 林 is three bytes


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"score\.tokenizer: there is no .*nowhere/at/all"):
        open_tokenizer(str(tmp_path / "nowhere/at/all"))


def test_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no tokenizer\.json at"):
        open_tokenizer(str(tmp_path))


def test_invalid_tokenizer_file(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"has no usable tokenizer\.json"):
        open_tokenizer(str(tmp_path))


def test_file_tokenizer_releases_interpreter_lock() -> None:
    """`Tokenizer.encode` of tokenizers 0.23 holds the interpreter lock: the count would stay below 3."""
    tokenizer = open_tokenizer(str(Path(__file__).parents[3] / "models" / "tiny-base"))
    thread = threading.Thread(target=tokenizer.spans, args=("The lighthouse on Varn Point was lit. " * 15_000,))
    thread.start()
    ticks = 0
    while thread.is_alive():
        thread.join(0.002)
        ticks += 1
    assert ticks >= 10
