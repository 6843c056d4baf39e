"""From files to questions with grounded answers, with several contexts in flight and outcomes in document order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from longreward.judge import Judge
from longreward.records import Extraction
from longreward.reward import Scorer
from longreward.reward.faithfulness import judge_faithfulness
from longreward.reward.ratings import DimensionInput
from longreward.synthesis.config import SynthesizeConfig
from longreward.synthesis.documents import find_documents, read_documents, split_document
from longreward.synthesis.records import Context, Draft, Dropped, Outcome, SynthesisReport
from longreward.synthesis.writer import write_drafts
from longreward.utils.concurrency import bounded_map, gather
from longreward.utils.jsonl import open_atomic, to_line
from longreward.utils.token_spans import TextTokenizer

QUESTIONS_FILE, REJECTED_FILE = "questions.jsonl", "rejected.jsonl"


async def synthesize_files(
    judge: Judge,
    scorer: Scorer,
    config: SynthesizeConfig,
    *,
    root: Path,
    out: Path,
    tokenizer: TextTokenizer,
    progress: Callable[[int], None] = lambda questions: None,
) -> SynthesisReport:
    """Read `config.documents` below `root` and write questions.jsonl and rejected.jsonl to `out`, atomically.

    Args:
        tokenizer: Measures the lengths of documents.
        progress: Receives the number of questions kept so far.

    Raises ConfigError if no document is found or a reader is missing, DataError if no question was kept, and the errors
    of the judge, whose ledger then contains all replies.
    """
    report = SynthesisReport()
    source = config.documents or ""
    files = find_documents(root, source)
    # Atomic: a stopped stage leaves the previous files, and the ledger keeps the replies.
    with open_atomic(out / QUESTIONS_FILE) as questions, open_atomic(out / REJECTED_FILE) as rejected:
        contexts = _read_contexts(config, root, files, tokenizer)
        async with aclosing(synthesize(judge, scorer, config, contexts)) as outcomes:
            async for outcome in outcomes:
                (questions if isinstance(outcome, Draft) else rejected).write(to_line(outcome.to_row()))
                report.count(outcome)
                progress(report.kept.total())
        report.check_not_empty(source=source)
    return report


def write_empty_files(out: Path) -> None:
    """Write empty output files, for a project that does not synthesize questions."""
    for name in (QUESTIONS_FILE, REJECTED_FILE):
        with open_atomic(out / name):
            pass


async def synthesize(
    judge: Judge, scorer: Scorer, config: SynthesizeConfig, contexts: AsyncIterator[Context | Dropped]
) -> AsyncGenerator[Outcome, None]:
    """Yield the questions of each context with their answers, and everything dropped, in the order of `contexts`.

    `judge` also serves as the writer unless it was opened with another one. The number of contexts in flight is
    `documents_in_flight`, or what a judge with batches prefers.
    """

    async def synthesize_context(context: Context | Dropped) -> list[Outcome]:
        if isinstance(context, Dropped):
            return [context]
        # The answers of a context are checked together, after all of them are written.
        drafts = await write_drafts(judge, context, config)
        return await gather(_check_grounding(judge, scorer, draft, config.min_faithfulness) for draft in drafts)

    async def calls() -> AsyncGenerator[Coroutine[Any, Any, list[Outcome]], None]:
        async for context in contexts:
            yield synthesize_context(context)

    limit = judge.prompts_in_flight or config.documents_in_flight
    async with aclosing(bounded_map(calls(), limit)) as results:
        async for outcomes in results:
            for outcome in outcomes:
                yield outcome


async def _check_grounding(judge: Judge, scorer: Scorer, draft: Outcome, min_faithfulness: float) -> Outcome:
    """Return the draft with its faithfulness, or drop it if that is too low or unknown."""
    if isinstance(draft, Dropped) or min_faithfulness == 0:
        return draft
    context = draft.context

    async def no_extraction() -> Extraction:
        raise AssertionError("faithfulness uses no extraction")

    document = scorer.document(context.text)
    verdict = await judge_faithfulness(
        DimensionInput(judge, scorer.prompts, scorer.config, document, no_extraction, draft.query, draft.answer)
    )
    if verdict.score is None:
        return context.drop("unscored", verdict.reason or "", task=draft.task, query=draft.query, answer=draft.answer)
    if verdict.score < min_faithfulness:
        unsupported = [statement.text for statement in verdict.statements if statement.support != 1.0]
        example = f"; not fully supported: {unsupported[0]}" if unsupported else ""
        reason = f"faithfulness {verdict.score:.1f} of 10{example}"
        return context.drop("ungrounded", reason, task=draft.task, query=draft.query, answer=draft.answer)
    return replace(draft, faithfulness=verdict.score)


async def _read_contexts(
    config: SynthesizeConfig, root: Path, files: list[Path], tokenizer: TextTokenizer
) -> AsyncGenerator[Context | Dropped, None]:
    async for document in read_documents(root, files):
        if isinstance(document, Dropped):
            yield document
            continue
        # Tokenizing a long document takes seconds; a thread keeps the event loop responsive.
        for context in await asyncio.to_thread(split_document, document, config, tokenizer):
            yield context
