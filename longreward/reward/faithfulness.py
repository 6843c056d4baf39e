"""Faithfulness: the share of a response's factual statements that the document supports, times 10 (paper, section 3.1).

The judge names the statements; each is looked up in the document's chunks; the judge marks its support from them.
"""

from functools import partial

from longreward.errors import AnswerRefused
from longreward.judging import Judge, Reading
from longreward.judging.prompting import PromptSet
from longreward.records import Evidence, Statement, Verdict
from longreward.reward.config import ScoreConfig
from longreward.reward.document import Document
from longreward.reward.reading import read_statements, read_support
from longreward.reward.together import together
from longreward.reward.verdicts import verdict
from longreward.script import Language, language_of


async def judge_faithfulness(
    judge: Judge, prompts: PromptSet, config: ScoreConfig, document: Document, *, query: str, response: str
) -> Verdict:
    """Two calls deep: the statements, then all of their supports at once."""
    language = language_of(query, response)
    template = prompts.template("statements", language)
    question = template.ask({"question": query, "answer": response})
    found = await judge.ask(question, partial(read_statements, no_statement=prompts.manifest.no_statement))
    if found.value is None:
        return verdict(
            judge, [found], score=None, reason=found.reason, analysis=found.text, prompt_hashes=(template.hash,)
        )
    if not found.value:
        score = 0.0 if config.no_statements == "zero" else None
        return verdict(
            judge, [found], score=score, reason=NO_STATEMENT, analysis=found.text, prompt_hashes=(template.hash,)
        )
    try:
        evidence = await document.evidence(found.value, config.evidence_chunks)
    except AnswerRefused as refusal:  # by an embedding model, of one text
        return verdict(
            judge, [found], score=None, reason=str(refusal), analysis=found.text, prompt_hashes=(template.hash,)
        )
    checked = await together(
        _check(judge, prompts, language, text, shown) for text, shown in zip(found.value, evidence, strict=True)
    )
    statements = tuple(statement for statement, _ in checked)
    return verdict(
        judge,
        [found, *(reading for _, readings in checked for reading in readings)],
        score=_score(statements),
        reason=_why_unscored(statements),
        statements=statements,
        prompt_hashes=(template.hash, prompts.template("support", language).hash),
    )


async def _check(
    judge: Judge, prompts: PromptSet, language: Language, text: str, evidence: tuple[Evidence, ...]
) -> tuple[Statement, list[Reading[float]]]:
    if not evidence:
        return Statement(text=text, support=0.0, reason="the document is empty"), []
    passages = prompts.evidence([shown.text for shown in evidence], language)
    question = prompts.template("support", language).ask({"statement": text, "context": passages})
    reading = await judge.ask(question, read_support)
    statement = Statement(
        text=text, support=reading.value, analysis=reading.text or None, evidence=evidence, reason=reading.reason
    )
    return statement, [reading]


def _score(statements: tuple[Statement, ...]) -> float | None:
    known = [statement.support for statement in statements if statement.support is not None]
    return 10 * sum(known) / len(known) if len(known) == len(statements) else None


def _why_unscored(statements: tuple[Statement, ...]) -> str | None:
    unreadable = [statement for statement in statements if statement.support is None]
    if not unreadable:
        return None
    return (
        f"{len(unreadable)} of {len(statements)} statements have no readable support; the first: {unreadable[0].reason}"
    )


NO_STATEMENT = "the response holds no factual statement"
