"""The tiny base's tokenizer: one token for each word of the corpus's grammar.

A word-level vocabulary of about a thousand entries keeps the embedding of a tiny model small, and every value is one or
two tokens. Other texts lose their unknown words (`<unk>`): it only shows that the pipeline runs.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from longreward.builtin import grammar, word_lists
from longreward.errors import PolicyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BEGIN, USER, ASSISTANT, SYSTEM, END, PAD, UNKNOWN = (
    "<|begin|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|pad|>", "<unk>",
)  # fmt: skip
SPECIAL_TOKENS = (PAD, UNKNOWN, BEGIN, USER, ASSISTANT, SYSTEM, END)
WORD_PATTERN = r"\n\n|\w+(?:['-]\w+)*|[^\w\s]"
MARKS = (".", ",", "?", "!", ";", ":")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}<|{{ message['role'] }}|>{{ message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Without whitespace between turns, so that the prompt's tokens are a prefix of those of prompt and completion."""


def vocabulary() -> list[str]:
    """Return every token in the order of its id: special tokens, then the others sorted."""
    texts = [*grammar.SCENES, *grammar.INTRODUCTIONS, *grammar.MEMBERS]
    for group in (grammar.OPENERS, grammar.TAILS, grammar.THEME_OPENERS, grammar.PHRASES):
        texts += [text for choices in group.values() for text in choices]
    for relation in grammar.RELATIONS.values():
        question = relation.question.replace("{name}", " ")
        texts += [relation.cue, relation.unit, question, question[0].upper() + question[1:]]
    words = {word for text in texts for word in re.findall(WORD_PATTERN, re.sub(r"\{\w+\}", " ", text))}
    words |= {word for lists in grammar.VALUES.values() for words_ in lists for word in words_}
    words |= {*word_lists.SOCIETIES, *word_lists.SOCIETY_KINDS, "and", "while", "\n\n", *MARKS}
    return [*SPECIAL_TOKENS, *sorted(words)]


TOKEN_IDS = {word: id_ for id_, word in enumerate(vocabulary())}


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """Return the tokenizer with its chat template; it pads on the left, as batched sampling needs."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(TOKEN_IDS, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="removed", invert=True)
    # Decoding puts a space before each word; then those before marks and around paragraph breaks are removed.
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="\u0000", cleanup=False),
            decoders.Fuse(),
            *(decoders.Replace(f" {mark}", mark) for mark in MARKS),
            decoders.Replace(" \n\n ", "\n\n"),
        ]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=2048,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_tokenizer(folder: Path) -> "PreTrainedTokenizerFast":
    """Write the tokenizer to `folder`, and check that both loaders read it back; raises PolicyError if not.

    AutoTokenizer was seen to load such a checkpoint as another model's tokenizer, which silently dropped every word.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    text = "Mara Voss was born in Kelden.\n\nWhere was Mara Voss born, and what did Ivo Lang build?"
    for loader in (AutoTokenizer, PreTrainedTokenizerFast):
        loaded = loader.from_pretrained(folder)
        ids = loaded(text)["input_ids"]
        if loaded.decode(ids) != text or ids != tokenizer(text)["input_ids"]:
            raise PolicyError(f"{loader.__name__} does not read the tokenizer in {folder} back: {loaded.decode(ids)!r}")
    return tokenizer
