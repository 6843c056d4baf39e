"""Memory of a training's tokenised pairs: on the disk, as trainings keep them, against lists in memory.

    python benchmarks/tokenized_rows.py [--pairs 200] [--tokens 16384]

Each way runs in a process of its own, on the same file of pairs with random words of a word-level tokenizer. Printed is
peak memory above that of the process before, with the pages of the file that were read; then the same for a second
start, which finds the rows on the disk.
"""

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

WORDS = [f"w{number}" for number in range(2000)]
ANSWER = 500
WAYS = ("memory", "disk", "disk again")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=16384, help="of a prompt")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        _write_pairs(Path(folder) / "pairs.jsonl", options.pairs, options.tokens)
        for way in WAYS:
            with context.Pool(1) as pool:
                found[way] = pool.apply(measure, (way, Path(folder)))
        size = sum(file.stat().st_size for file in (Path(folder) / "rows").rglob("*")) / 2**20
    print(f"{options.pairs} pairs of {options.tokens:,} tokens; on the disk {size:.0f} MB")
    plain_seconds, plain_memory = found["memory"]
    for way, (seconds, memory) in found.items():
        print(
            f"  {way:10} {seconds:6.2f} s  {memory:6.0f} MB   "
            f"{plain_seconds / seconds:5.1f}x faster, {plain_memory / max(memory, 1):5.1f}x less memory"
        )


def measure(way: str, folder: Path) -> tuple[float, float]:
    """Seconds, and MB of peak memory above what imports and the tokenizer took, until the first batch is read."""
    import datasets

    from longreward.data.formats import read_pairs
    from longreward.training.training_data import tokenize_pairs

    text = _tokenizer()
    keep = None if way == "memory" else folder / "rows"
    before, started = _peak(), time.perf_counter()
    rows = tokenize_pairs(text, read_pairs(folder / "pairs.jsonl"), max_length=1 << 20, keep=keep).rows
    if way == "memory":
        rows = datasets.Dataset.from_list(rows)
    assert len(rows[len(rows) - 1]["prompt_ids"]) > 0
    return time.perf_counter() - started, _peak() - before


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from longreward.models.policy import PolicyTokenizer

    known = {word: number for number, word in enumerate(["[UNK]", "<s>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", bos_token="<s>", eos_token="</s>")
    fast.chat_template = "{{ bos_token }} {{ messages[0].content }}"
    return PolicyTokenizer(fast, "{context}\n\n{query}", (2,))


def _write_pairs(path: Path, pairs: int, tokens: int) -> None:
    drawn = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(pairs):
            context, chosen, rejected = (" ".join(drawn.choices(WORDS, k=k)) for k in (tokens, ANSWER, ANSWER))
            row = {"idx": number, "context": context, "query": "w1", "win_response": chosen, "lose_response": rejected}
            file.write(json.dumps(row) + "\n")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
