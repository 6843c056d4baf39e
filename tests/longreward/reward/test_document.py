"""Work on large documents runs in threads, once, while the event loop goes on."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from longreward.judge import Judge
from longreward.judge.escaping import PromptEscaper
from longreward.records import Example, Response
from longreward.retrieval import Bm25Retriever, Index
from longreward.reward import ScoreConfig, Scorer
from longreward.reward import scorer as scorer_module
from longreward.reward.document import Document
from longreward.utils.concurrency import SharedResult
from longreward.utils.token_spans import SimpleTokenizer

REPLIES = {
    "helpfulness": "[[8]]",
    "logicality": "[[9]]",
    "statements": "<statement>The lamp was lit in 1874.</statement>",
    "support": "[[Fully supported]]",
    "extraction": "1. A lamp was lit.",
    "completeness": "[[6]]",
}
QUERY = "When was the lamp lit?"
RESPONSES = [Response(id=f"1-{n}", example_id="1", query=QUERY, text=f"In 187{n}.") for n in range(3)]


class Ticker:
    """A task that counts how often the event loop lets it run."""

    def __init__(self) -> None:
        self.ticks = 0
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            self.ticks += 1
            await asyncio.sleep(0.001)

    def stop(self) -> None:
        self._task.cancel()


async def test_large_document_does_not_block_other_tasks(
    scripted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of work runs in another thread, and in pieces, between which the loop gets the interpreter lock."""
    document = ("The lamp on Varn Point was lit in 1874." + 960 * " ") * 3_000
    assert len(document) > 2_900_000
    during: Counter[str] = Counter()
    ticker = Ticker()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            before = ticker.ticks
            result = function(*arguments, **options)
            during[name] += ticker.ticks - before
            return result

        return run

    monkeypatch.setattr(SimpleTokenizer, "spans", counted("tokenization", SimpleTokenizer.spans))
    monkeypatch.setattr(Bm25Retriever, "index", counted("index", Bm25Retriever.index))
    monkeypatch.setattr(PromptEscaper, "escape", counted("escaping", PromptEscaper.escape))
    model = scripted(REPLIES)
    async with Judge.from_model(model) as judge:
        example = Example(id="1", document_id="1", context=document, query=QUERY)
        scored = await Scorer(ScoreConfig()).score(judge, example, RESPONSES[:1])
    ticker.stop()
    assert scored.responses[0].complete
    assert len(scored.extraction.extracts) == 9  # 11 tokens per sentence
    # One is enough: in the loop's own thread, or in one piece, there is none. More depends on the load of the machine.
    assert min(during[name] for name in ("tokenization", "index", "escaping")) >= 1


async def test_document_chunked_and_indexed_once_in_thread(
    scripted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, bool]] = []

    class Tokenizer(SimpleTokenizer):
        def spans(self, text: str) -> list[tuple[int, int]]:
            done.append(("cut", threading.current_thread() is threading.main_thread()))
            return super().spans(text)

    class Retriever(Bm25Retriever):
        def index(self, chunks: Sequence[str]) -> Index:
            done.append(("index", threading.current_thread() is threading.main_thread()))
            return super().index(chunks)

    monkeypatch.setattr(scorer_module, "open_tokenizer", lambda name: Tokenizer())
    async with Judge.from_model(scripted(REPLIES)) as judge:
        scorer = Scorer(ScoreConfig(), retriever=Retriever())
        example = Example(id="1", document_id="1", context="The lamp was lit in 1874. " * 100, query=QUERY)
        await asyncio.gather(*(scorer.score(judge, example, RESPONSES) for _ in range(3)))
    assert done == [("cut", False), ("index", False)]


async def test_extraction_requests_come_first(
    scripted: Callable[..., Any],
) -> None:
    model = scripted(REPLIES)
    context = "".join(f"Lamp {n} was lit in 1874. " for n in range(1500))
    async with Judge.from_model(model) as judge:
        example = Example(id="1", document_id="1", context=context, query=QUERY)
        await Scorer(ScoreConfig()).score(judge, example, RESPONSES)
    requests = [question.template for question in model.requests]
    assert requests.count("extraction") >= 3
    assert set(requests[: requests.count("extraction")]) == {"extraction"}


async def test_shared_result_computed_once_despite_cancellation() -> None:
    started, release = threading.Event(), threading.Event()
    runs = []

    def work() -> int:
        runs.append(threading.current_thread())
        started.set()
        assert release.wait(30)
        return 7

    shared = SharedResult(work)
    first = asyncio.ensure_future(shared.get())
    await asyncio.to_thread(started.wait, 30)
    second = asyncio.ensure_future(shared.get())
    await asyncio.sleep(0)
    first.cancel()
    release.set()
    assert await second == 7
    assert first.cancelled()
    assert await shared.get() == 7
    assert len(runs) == 1
    assert runs[0] is not threading.main_thread()


async def test_shared_result_error_reaches_all() -> None:
    def work() -> int:
        raise ValueError("no")

    shared = SharedResult(work)
    results = await asyncio.gather(shared.get(), shared.get(), return_exceptions=True)
    assert [str(result) for result in results] == ["no", "no"]


def test_document_works_in_several_event_loops() -> None:
    document = Document("The lamp was lit. " * 50, ScoreConfig(), SimpleTokenizer(), Bm25Retriever())
    evidence = [asyncio.run(document.evidence(["A lamp was lit."], 1)) for _ in range(2)]
    assert evidence[0] == evidence[1]
    assert evidence[0][0][0].start == 0
