import threading
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from longreward.errors import ConfigError
from longreward.utils.token_spans import open_tokenizer


def pieces(text: str, name: str = "simple") -> list[str]:
    return [text[start:end] for start, end in open_tokenizer(name).spans(text)]


def test_simple_tokens_are_pieces_of_words_groups_of_digits_and_marks() -> None:
    assert pieces("Information, 12345 km!!") == ["Inform", "ation", ",", "123", "45", "km", "!!"]


def test_each_han_character_is_a_simple_token() -> None:
    assert pieces("林桥 bridge建于1988年。") == ["林", "桥", "bridge", "建", "于", "198", "8", "年", "。"]


def test_spaces_alone_hold_no_token() -> None:
    assert pieces(" \n\t ") == []
    assert pieces("") == []


def test_a_local_tokenizer_json_is_read_from_its_folder_or_by_its_name(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"the": 0, "lake": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.enable_truncation(max_length=2)
    words.save(str(tmp_path / "tokenizer.json"))
    assert pieces("the deep lake", str(tmp_path)) == ["the", "deep", "lake"]  # truncation saved with it is put aside
    assert pieces("the deep lake", str(tmp_path / "tokenizer.json")) == ["the", "deep", "lake"]


def test_the_byte_tokens_of_one_character_never_overlap(tmp_path: Path) -> None:
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytewise = Tokenizer(models.BPE(alphabet, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    bytewise.save(str(tmp_path / "tokenizer.json"))
    spans = open_tokenizer(str(tmp_path)).spans("a林b")
    assert spans == [(0, 1), (1, 2), (2, 2), (2, 2), (2, 3)]  # 林 is three bytes


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"score\.tokenizer: there is no .*nowhere/at/all"):
        open_tokenizer(str(tmp_path / "nowhere/at/all"))


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no tokenizer\.json"):
        open_tokenizer(str(tmp_path))


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is not a tokenizer\.json"):
        open_tokenizer(str(tmp_path))


def test_other_threads_run_while_a_tokenizer_file_reads_a_large_text() -> None:
    """`Tokenizer.encode` of tokenizers 0.23 keeps the interpreter lock to its end: the count would stay below 3."""
    tokenizer = open_tokenizer(str(Path(__file__).parents[3] / "models" / "tiny-base"))
    thread = threading.Thread(target=tokenizer.spans, args=("The lighthouse on Varn Point was lit. " * 15_000,))
    thread.start()
    ticks = 0
    while thread.is_alive():
        thread.join(0.002)
        ticks += 1
    assert ticks >= 10
