"""The word-level tokenizer: it has all words of the corpus, and texts round-trip."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from longreward.builtin.corpus import write_corpus
from longreward.builtin.documents import make_document
from longreward.builtin.pretrain import Difficulty, make_training_sequence
from longreward.builtin.tokenizer import TOKEN_IDS, build_tokenizer, save_tokenizer, vocabulary

TEXT = "Mara Voss settled in Tarn.\n\nAfter much debate, Ivo Lang built the wooden mill, and Tess Arden drew 198 maps."


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def test_corpus_texts_round_trip_without_unknown_words(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    written = write_corpus(tmp_path, seed=9, documents=150, questions_per_document=4)
    for line in written.corpus.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for text in (row["query"], row["answer"], row["context"], f"{row['context']}\n\n{row['query']}"):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_words_are_single_tokens() -> None:
    text_words = vocabulary()
    assert len(text_words) == len(set(text_words))
    assert text_words[:3] == ["<|pad|>", "<unk>", "<|begin|>"]
    assert 800 < len(text_words) < 1100


def test_unknown_words_become_special_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.decode(tokenizer("Mara Voss met Zebedee.")["input_ids"]) == "Mara Voss met <unk>."


def test_rendered_prompt_is_strict_prefix_of_prompt_and_completion(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = [{"role": "user", "content": "Mara Voss settled in Tarn.\n\nWhere did Mara Voss settle?"}]
    conversation = [*prompt, {"role": "assistant", "content": "Mara Voss settled in Tarn."}]
    prompt_ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    tokenized = tokenizer.apply_chat_template(conversation, return_dict=True, return_assistant_tokens_mask=True)
    answer = tokenizer("Mara Voss settled in Tarn.")["input_ids"]
    assert tokenized["input_ids"] == [*prompt_ids, *answer, tokenizer.eos_token_id]
    assert tokenized["assistant_masks"] == [0] * len(prompt_ids) + [1] * (len(answer) + 1)


def test_chat_template_accepts_system_message(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<|begin|><|system|>a<|user|>b"


def test_both_loaders_read_tokenizer_in_new_process(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    code = (
        "import sys; from transformers import AutoTokenizer, PreTrainedTokenizerFast\n"
        "for loader in (AutoTokenizer, PreTrainedTokenizerFast):\n"
        "    tokenizer = loader.from_pretrained(sys.argv[1])\n"
        "    ids = tokenizer(sys.argv[2])['input_ids']\n"
        "    assert tokenizer.decode(ids) == sys.argv[2], tokenizer.decode(ids)\n"
        "    assert tokenizer.unk_token_id not in ids and tokenizer.eos_token == '<|end|>'\n"
        "    assert tokenizer.chat_template and tokenizer.padding_side == 'left'\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), TEXT], check=True, timeout=120)


def test_training_sequence_equals_tokenized_text(tokenizer: PreTrainedTokenizerFast) -> None:
    sequence = make_training_sequence("l1", Difficulty(people=3, facts_per_person=4, scenes=1, relations_per_theme=6))
    text = tokenizer.decode(sequence.ids, skip_special_tokens=True)
    document = make_document("l1", people=3, facts_per_person=4, scenes=1)
    assert text.startswith(document.text + "\n\n")
    assert tuple(tokenizer(text)["input_ids"]) == sequence.ids[1:]
    assert len(sequence.values) == 12
    values = {tokenizer.decode(sequence.ids[start:end]) for start, end in sequence.values}
    assert values == {fact.value for fact in document.facts}
    assert len(TOKEN_IDS) == len(tokenizer)
