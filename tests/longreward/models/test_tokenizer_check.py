import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from longreward.errors import PolicyError
from longreward.models.tokenizer_check import check_round_trip, normalized_words


def bytes_tokenizer(decoder: object | None) -> PreTrainedTokenizerFast:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(sorted(alphabet))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if decoder is not None:
        tokenizer.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def word_tokenizer(known: str, normalizer: object | None = None) -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *known.split()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def test_bytes_give_back_english_and_chinese() -> None:
    check_round_trip(bytes_tokenizer(decoders.ByteLevel()), "models/x")


def test_a_tokenizer_whose_words_come_back_as_marks_of_bytes_is_refused_with_what_went_in_and_came_out() -> None:
    with pytest.raises(PolicyError, match=r'models/x: .*"Who was the first.* comes out as "W h o Ġ w a s'):
        check_round_trip(bytes_tokenizer(None), "models/x")


def test_a_tokenizer_that_loses_the_spaces_between_words_is_refused() -> None:
    with pytest.raises(PolicyError, match='comes out as "Whowasthefirst'):
        check_round_trip(bytes_tokenizer(decoders.Sequence([decoders.ByteLevel(), decoders.Replace(" ", "")])), "x")


def test_a_small_vocabulary_may_leave_out_words_and_all_of_chinese() -> None:
    check_round_trip(word_tokenizer("Who was the first of two ? in town and ."), "x")


def test_a_tokenizer_may_fold_case_but_not_turn_words_into_others() -> None:
    check_round_trip(word_tokenizer("who was the first ?", normalizers.Lowercase()), "x")
    with pytest.raises(PolicyError, match="was mal"):
        check_round_trip(word_tokenizer("Who was mal first ?", normalizers.Replace("the", "mal")), "x")


def test_one_that_breaks_chinese_alone_is_refused() -> None:
    spoilt = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("河", "何")])
    with pytest.raises(PolicyError, match=r"在河的北边.* comes out as .*在何的北边"):
        check_round_trip(bytes_tokenizer(spoilt), "x")


def test_white_space_unicode_form_and_case_do_not_count() -> None:
    assert (
        normalized_words("Cafe\u0301 in the  Town.")
        == normalized_words(" café in the town .")
        == ["café", "in", "the", "town", "."]
    )
    assert normalized_words("北边，1912") == normalized_words("北 边 , 1912")
