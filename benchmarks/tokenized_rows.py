"""Memory of tokenized preference pairs: rows on disk, as training stores them, against Python lists.

    python benchmarks/tokenized_rows.py [--pairs 200] [--prompt-tokens 16384]

Each alternative runs in its own process on the same file of pairs, random words of a word-level tokenizer, until the
first row can be read. Memory is the peak above imports and tokenizer. "disk, reused" is a second start that reads the
rows of the first one.
"""

import json
import random
import tempfile
import time
from pathlib import Path

from common import Measurement, argument_parser, peak_rss_mb, print_comparison, run_in_process

from longreward.models.policy import PolicyTokenizer

WORDS = [f"w{number}" for number in range(2000)]
RESPONSE_TOKENS = 500
ALTERNATIVES = ("lists", "disk", "disk, reused")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--prompt-tokens", type=int, default=16384)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder / "pairs.jsonl", options.pairs, options.prompt_tokens)
        results = {alternative: run_in_process(measure, alternative, folder) for alternative in ALTERNATIVES}
        disk_mb = sum(file.stat().st_size for file in (folder / "rows").rglob("*")) / 2**20
    print(f"{options.pairs} pairs with prompts of {options.prompt_tokens:,} tokens; {disk_mb:.0f} MB on disk")
    print_comparison(results)


def measure(alternative: str, folder: Path) -> Measurement:
    """Tokenize all pairs and read a row; return the duration and peak memory."""
    import datasets

    from longreward.data.formats import read_pairs
    from longreward.training.training_data import tokenize_pairs

    tokenizer = word_tokenizer()
    rows_dir = None if alternative == "lists" else folder / "rows"
    memory_before, started = peak_rss_mb(), time.perf_counter()
    data = tokenize_pairs(tokenizer, read_pairs(folder / "pairs.jsonl"), max_length=1 << 20, rows_dir=rows_dir)
    rows = datasets.Dataset.from_list(list(data.rows)) if alternative == "lists" else data.rows
    assert len(rows[len(rows) - 1]["prompt_ids"]) > 0
    return Measurement(time.perf_counter() - started, peak_rss_mb() - memory_before)


def word_tokenizer() -> PolicyTokenizer:
    """Return a tokenizer that splits at spaces, with one token per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["[UNK]", "<s>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", bos_token="<s>", eos_token="</s>")
    fast.chat_template = (
        "{{ bos_token }}{% for message in messages %} {{ message.content }}{% endfor %}"
        "{% if messages[-1].role == 'assistant' %} {{ eos_token }}{% endif %}"
    )
    return PolicyTokenizer(fast, "{context}\n\n{query}", (2,))


def write_pairs(path: Path, pairs: int, prompt_tokens: int) -> None:
    """Write pairs of random words in the published format."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(pairs):
            lengths = (prompt_tokens, RESPONSE_TOKENS, RESPONSE_TOKENS)
            context, chosen, rejected = (" ".join(rng.choices(WORDS, k=length)) for length in lengths)
            row = {"idx": number, "context": context, "query": "w1", "win_response": chosen, "lose_response": rejected}
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
