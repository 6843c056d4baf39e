"""From files to questions with grounded answers: contexts overlap, and outcomes come in the order of the documents."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from longreward.judge import Judge
from longreward.reward import Scorer
from longreward.synthesis.config import SynthesizeConfig
from longreward.synthesis.documents import Document, find_documents, read_documents, split_document
from longreward.synthesis.records import Context, Draft, Dropped, Outcome, SynthesisReport
from longreward.synthesis.writer import write_drafts
from longreward.utils.concurrency import bounded_map, gather
from longreward.utils.jsonl import open_atomic, to_line
from longreward.utils.token_spans import TextTokenizer

QUESTIONS, REJECTED = "questions.jsonl", "rejected.jsonl"


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
    """Reads `config.documents` below `root`; writes questions.jsonl and rejected.jsonl into `out`, whole.

    `tokenizer` counts the lengths of documents; `progress` gets the questions kept so far. Raises ConfigError where no
    document can be found or read at all, DataError where nothing came of them, and what the judge raises: what was
    answered is in its ledger then.
    """
    report = SynthesisReport()
    source = config.documents or ""
    files = find_documents(root, source)
    with open_atomic(out / QUESTIONS) as questions, open_atomic(out / REJECTED) as rejected:
        contexts = _contexts(config, root, files, tokenizer)
        async with aclosing(synthesize(judge, scorer, config, contexts)) as outcomes:
            async for outcome in outcomes:
                (questions if isinstance(outcome, Draft) else rejected).write(to_line(outcome.row()))
                report.count(outcome)
                progress(report.kept.total())
        report.refuse_nothing(source=source)
    return report


def write_nothing(out: Path) -> None:
    """Empty files, for a project whose questions come from elsewhere."""
    for name in (QUESTIONS, REJECTED):
        with open_atomic(out / name):
            pass


async def synthesize(
    judge: Judge,
    scorer: Scorer,
    config: SynthesizeConfig,
    contexts: AsyncIterator[Context | Dropped],
) -> AsyncGenerator[Outcome, None]:
    """Each context's questions with their answers, and all that is dropped, in the order of `contexts`.

    `judge` is opened with a writer of its own, or writes too. As many contexts are under way as `documents_in_flight`
    says, or as a judge that is asked in batches wants.
    """
    at_once = judge.prompts_in_flight or config.documents_in_flight
    async with aclosing(bounded_map(_work(judge, scorer, config, contexts), at_once)) as done:
        async for outcomes in done:
            for outcome in outcomes:
                yield outcome


async def _work(
    judge: Judge,
    scorer: Scorer,
    config: SynthesizeConfig,
    contexts: AsyncIterator[Context | Dropped],
) -> AsyncGenerator[Coroutine[Any, Any, list[Outcome]], None]:
    async for context in contexts:
        yield _outcomes(judge, scorer, config, context)


async def _outcomes(
    judge: Judge, scorer: Scorer, config: SynthesizeConfig, context: Context | Dropped
) -> list[Outcome]:
    if isinstance(context, Dropped):
        return [context]
    drafts = await write_drafts(judge, context, config)
    return await gather(_grounded(judge, scorer, draft, config.min_faithfulness) for draft in drafts)


async def _grounded(judge: Judge, scorer: Scorer, draft: Outcome, least: float) -> Outcome:
    """The draft with its faithfulness, or why it is dropped."""
    if isinstance(draft, Dropped) or least == 0:
        return draft
    context = draft.context
    verdict = await scorer.faithfulness(judge, context=context.text, query=draft.query, response=draft.answer)
    dropped = Dropped(
        context.document,
        "unscored",
        verdict.reason or "",
        part=context.part,
        task=draft.task,
        query=draft.query,
        answer=draft.answer,
    )
    if verdict.score is None:
        return dropped
    if verdict.score < least:
        stray = [statement.text for statement in verdict.statements if statement.support != 1.0]
        listed = f"; not fully borne out: {stray[0]}" if stray else ""
        return dropped.because("ungrounded", f"faithfulness {verdict.score:.1f} of 10{listed}", draft.answer)
    return replace(draft, faithfulness=verdict.score)


async def _contexts(
    config: SynthesizeConfig, root: Path, files: list[Path], tokenizer: TextTokenizer
) -> AsyncGenerator[Context | Dropped, None]:
    async for document in read_documents(root, files):
        if isinstance(document, Dropped):
            yield document
            continue
        for context in await asyncio.to_thread(_contexts_of, document, config, tokenizer):
            yield context


def _contexts_of(document: Document, config: SynthesizeConfig, tokenizer: TextTokenizer) -> list[Context | Dropped]:
    return list(split_document(document, config, tokenizer))
