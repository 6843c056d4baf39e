"""Small tokenizers of the usual kinds, and chat templates in the style of published model families."""

import string
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

END, TURN_END = "</s>", "<|im_end|>"
SPECIAL = (
    *("<unk>", "<pad>", "<s>", END, "<|im_start|>", TURN_END, "[INST]", "[/INST]", "<|start_header_id|>"),
    *("<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>"),
)
THOUGHT = ("<think>", "</think>")  # added tokens that are not special, as in Qwen3
TEXTS = [
    "The town of Keld lies in the north, on the river Ash. It was founded in 1905 by Ann Lee.",
    "Who founded Keld, and when? Ann Lee founded Keld in 1905; the bridge was built by Tom Ray in 1912.",
    "user assistant system model inst im start end header id of turn eot s think < > | / [ ] _",
    "Das Café in Zürich öffnete 1930.\n\nEs schloss 1951.",
] * 3

TEMPLATES = {
    "plain": "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}"
    "{% endif %}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
    # An empty thought before an answer that has none; the generation prompt does not show it.
    "empty thought": "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and "
    "'</think>' not in m.content %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "space before the answer": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} "
    "[/INST]{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
    "trimmed turns": "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant"
    "<|end_header_id|>\n\n{% endif %}",
    "renamed role": "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else "
    "m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n"
    "{% endif %}",
    "turns of a base model": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
}
TURN_ENDS = {
    "plain": END,
    "empty thought": TURN_END,
    "space before the answer": END,
    "trimmed turns": "<|eot_id|>",
    "renamed role": "<end_of_turn>",
    "turns of a base model": TURN_END,
}
"""What generation stops at; only in "plain" and "space before the answer" it is the tokenizer's end token."""


def _bpe_trainer() -> Any:
    return trainers.BpeTrainer(vocab_size=500, special_tokens=[*SPECIAL], initial_alphabet=[*string.printable])


def _byte_level() -> tuple[Tokenizer, Any]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, special_tokens=[*SPECIAL])


def _metaspace(scheme: str) -> tuple[Tokenizer, Any]:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme, split=False)
    return tokenizer, trainers.BpeTrainer(
        vocab_size=500, special_tokens=[*SPECIAL], initial_alphabet=[*string.printable]
    )


def _prepending() -> tuple[Tokenizer, Any]:
    """As the first Llamas: a normalizer writes the spaces, before each piece between special tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)]
    )
    return tokenizer, trainers.BpeTrainer(
        vocab_size=500, special_tokens=[*SPECIAL], initial_alphabet=[*string.printable]
    )


def _unigram() -> tuple[Tokenizer, Any]:
    """Its vocabulary lists the special tokens as pieces of probability 1, which text alone would give."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, trainers.UnigramTrainer(vocab_size=300, special_tokens=[*SPECIAL], unk_token="<unk>")


def _wordpiece() -> tuple[Tokenizer, Any]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer, trainers.WordPieceTrainer(vocab_size=500, special_tokens=[*SPECIAL])


def _word_level() -> tuple[Tokenizer, Any]:
    """Splits at white space alone, so that a special token between spaces is a word of the vocabulary."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer, trainers.WordLevelTrainer(special_tokens=[*SPECIAL])


KINDS = {
    "byte-level": _byte_level,
    "metaspace first": lambda: _metaspace("first"),
    "metaspace always": lambda: _metaspace("always"),
    "prepending normalizer": _prepending,
    "unigram": _unigram,
    "wordpiece": _wordpiece,
    "word-level": _word_level,
}


@cache
def _definition(kind: str) -> str:
    tokenizer, trainer = KINDS[kind]()
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in THOUGHT])
    return str(tokenizer.to_str())


def make_tokenizer(kind: str, family: str) -> Any:
    """A transformers tokenizer of this kind with the chat template of this family."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_definition(kind)),
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token=END,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATES[family]
    return fast


def end_ids(tokenizer: Any, family: str) -> tuple[int, ...]:
    """The tokenizer's end token and that of the generation config."""
    return tuple(dict.fromkeys([tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(TURN_ENDS[family])]))
