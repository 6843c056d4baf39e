"""Memory over a long scoring run: `python benchmarks/judge_client.py --memory 100000`.

Prompts with documents of 30,000 characters and ten responses each lie in files, as after sampling; a judge in the same
process answers at once. RSS is printed after every tenth of the calls. A run that held documents, answers or tasks
would grow with them: the documents and questions alone are told at the end, for comparison.
"""

import asyncio
import contextlib
import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from longreward.data.formats import write_examples, write_responses
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig, TokenUsage
from longreward.judge.ledger import Ledger
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, score_examples
from longreward.reward.score_files import ScoredFilesWriter, read_scoring_items

CALLS_A_PROMPT = 52  # ten responses: two ratings, statements, one support, completeness; two parts to extract from
SENTENCE = "The mill of Keld, number {}, was built by Ann Lee in the year of the flood. "
GROWTH_MB = 10.0  # from the third tenth on; before it, buffers and caches fill
ANSWERS = {
    "helpfulness": "On the point. Rating: [[8]]",
    "logicality": "No mistake. Rating: [[9]]",
    "completeness": "The mill is missing. Rating: [[6]]",
    "support": "In passage 1. Support: [[Fully supported]]",
    "extraction": "1. Ann Lee built the mill.",
}


class AtOnce:
    """A judge that costs nothing, so that all memory is the engine's."""

    name = "at-once"

    def __init__(self) -> None:
        self.calls = self.characters = 0

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.calls += 1
        self.characters += len(request.text)
        await asyncio.sleep(0)
        said = ANSWERS.get(request.template) or f"<statement>Statement {self.calls}.</statement>"
        return ChatReply(said, usage=TokenUsage(1000, 100))

    async def close(self) -> None:
        pass


def report(calls: int) -> int:
    """Prints RSS as calls go by; 0 where it stays flat."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder), calls))


async def _measure(folder: Path, calls: int) -> int:
    prompts = calls // CALLS_A_PROMPT + 1
    data, responses = folder / "data.jsonl", folder / "responses.jsonl"
    write_examples(data, _examples(prompts))
    write_responses(responses, _responses(prompts))
    model, found = AtOnce(), list[tuple[int, float]]()
    config = ScoreConfig()
    files = ScoredFilesWriter(
        complete=folder / "c.jsonl", unscored=folder / "u.jsonl", chunk_info=folder / "i.jsonl", settings={}
    )
    judge_config = JudgeConfig(max_concurrency=64)
    async with Judge.from_model(model, judge_config, ledger=Ledger(folder / "ledger.sqlite")) as judge:
        with files:
            scoring = score_examples(judge, config, read_scoring_items(data, responses), progress=None)
            async with contextlib.aclosing(scoring) as scored:
                async for one in scored:
                    files.add(one)
                    if model.calls >= (len(found) + 1) * calls // 10:
                        gc.collect()
                        found.append((model.calls, psutil.Process().memory_info().rss / 2**20))
                        print(f"  {found[-1][0]:>7,} calls  {found[-1][1]:6.1f} MB", flush=True)
    sizes = {path.name: path.stat().st_size / 2**20 for path in folder.iterdir()}
    print(
        f"documents on disk {sizes['data.jsonl']:.0f} MB, ledger {sizes['ledger.sqlite']:.0f} MB, "
        f"scored files {sizes['c.jsonl'] + sizes['i.jsonl']:.0f} MB, questions {model.characters / 2**20:,.0f} MB"
    )
    settled = [memory for _, memory in found[2:]]
    print(f"growth from the third tenth to the last: {settled[-1] - settled[0]:+.1f} MB (bound: {GROWTH_MB:g})")
    return int(settled[-1] - settled[0] > GROWTH_MB)


def _examples(prompts: int) -> Iterator[Example]:
    for number in range(prompts):
        context = f"Document {number}. " + "".join(SENTENCE.format(line) for line in range(380))
        yield Example(id=str(number), document_id=str(number), context=context, query=f"Who built mill {number}?")


def _responses(prompts: int) -> Iterator[Response]:
    for number in range(prompts):
        for sample in range(10):
            text = f"Ann Lee built mill {number}, as response {sample} says. " * 20
            yield Response(
                id=f"{number}-{sample}", example_id=str(number), query=f"Who built mill {number}?", text=text
            )
