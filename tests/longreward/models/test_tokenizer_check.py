import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from longreward.errors import PolicyError
from longreward.models.tokenizer_check import check_round_trip, normalized_words


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


def test_missing_byte_decoder_is_rejected_with_input_and_output() -> None:
    with pytest.raises(PolicyError, match=r'models/x: .*"Who was the first.* is decoded as "W h o Ġ w a s'):
        check_round_trip(byte_level_tokenizer(None), "models/x")


def test_lost_spaces_are_rejected() -> None:
    with pytest.raises(PolicyError, match='is decoded as "Whowasthefirst'):
        check_round_trip(
            byte_level_tokenizer(decoders.Sequence([decoders.ByteLevel(), decoders.Replace(" ", "")])), "x"
        )


def test_small_vocabulary_may_drop_words_and_chinese() -> None:
    check_round_trip(word_level_tokenizer("Who was the first of two ? in town and ."), "x")


def test_lower_case_is_accepted_and_replaced_words_are_rejected() -> None:
    check_round_trip(word_level_tokenizer("who was the first ?", normalizers.Lowercase()), "x")
    with pytest.raises(PolicyError, match="was mal"):
        check_round_trip(word_level_tokenizer("Who was mal first ?", normalizers.Replace("the", "mal")), "x")


def test_error_in_chinese_alone_is_rejected() -> None:
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
