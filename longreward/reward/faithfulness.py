"""Faithfulness: the share of a response's factual statements that the document supports, times 10 (paper, section 3.1).

The judge names the statements; each is looked up in the document's chunks; the judge marks its support from them.
"""

from collections.abc import Collection, Iterable
from typing import Any

from longreward.errors import RequestRefused
from longreward.judge import Judge, ParsedReply
from longreward.judge.prompts import PromptSet
from longreward.judge.truncation import truncated_list, truncated_verdict
from longreward.records import Bounds, Evidence, Statement, Verdict
from longreward.reward.config import ScoreConfig
from longreward.reward.document import Document
from longreward.reward.parsers import PARSERS
from longreward.reward.ratings import verdict
from longreward.utils.concurrency import gather
from longreward.utils.language import detect_language


async def judge_faithfulness(
    judge: Judge, prompts: PromptSet, config: ScoreConfig, document: Document, *, query: str, response: str
) -> Verdict:
    """Two calls deep: the statements, then all of their supports at once."""
    faithfulness = Faithfulness(judge, prompts, config, document, query=query, response=response)
    await faithfulness.list_statements()
    await faithfulness.verify(range(len(faithfulness.texts)))
    return faithfulness.verdict("")


class Faithfulness:
    """One response's faithfulness in the making: its statements are listed once, then verified in any order."""

    def __init__(
        self, judge: Judge, prompts: PromptSet, config: ScoreConfig, document: Document, *, query: str, response: str
    ) -> None:
        self._judge, self._prompts, self._config, self._document = judge, prompts, config, document
        self.language = detect_language(query, response)
        self._template = prompts.template("statements", self.language)
        self._question = self._template.ask({"question": query, "answer": response})
        self._readings: list[ParsedReply[Any]] = []
        self._analysis: str | None = None
        self._ended: tuple[float | None, str | None] | None = None  # score and reason, where no statement decides
        self._statements: dict[int, Statement] = {}
        self.texts: tuple[str, ...] = ()
        self._truncated = False

    async def list_statements(self) -> None:
        """One call. Without a statement to verify the verdict is there at once."""

        def parse(reply: str) -> tuple[str, ...] | None:
            return PARSERS[self._prompts.parsing].statements(reply, self._prompts.manifest.no_statement)

        found = await self._judge.query(
            self._question, parse, parse_truncated=truncated_list(parse, end_tag="statement")
        )
        self._readings.append(found)
        self._truncated = found.truncated
        self._analysis = found.text
        if found.value is None:
            self._ended = None, found.reason
        elif not found.value:
            self._ended = (0.0 if self._config.no_statements == "zero" else None), NO_STATEMENT
        else:
            self.texts = found.value

    async def verify(self, places: Iterable[int]) -> None:
        """One call for the support of each statement at these places, all at once; none twice."""
        todo = [place for place in places if place not in self._statements]
        if not todo:
            return
        try:
            evidence = await self._document.evidence([self.texts[n] for n in todo], self._config.evidence_chunks)
        except RequestRefused as refusal:  # by an embedding model, of one text
            self._ended = None, str(refusal)
            return
        checked = await gather(self._check(self.texts[n], shown) for n, shown in zip(todo, evidence, strict=True))
        for place, (statement, readings) in zip(todo, checked, strict=True):
            self._statements[place] = statement
            self._readings += readings

    @property
    def listed(self) -> bool:
        """Whether the judge was asked for the statements."""
        return bool(self._readings)

    @property
    def open(self) -> tuple[int, ...]:
        """The places of the statements that wait to be verified."""
        return tuple(n for n in range(len(self.texts)) if n not in self._statements)

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to learn: a score, or the certainty that there is none."""
        if self._ended is not None or not self.listed:
            return self._ended is not None
        return len(self._statements) == len(self.texts) or any(s.support is None for s in self._statements.values())

    @property
    def supports(self) -> Collection[float]:
        """The supports known so far."""
        return [found.support for found in self._statements.values() if found.support is not None]

    @property
    def verified(self) -> set[str]:
        """The statements whose support the judge was asked for."""
        return {found.text for found in self._statements.values()}

    @property
    def bounds(self) -> Bounds:
        """Each of k statements is 1/k of the score: those verified count as they are, the others as none or as full."""
        if not self.texts:
            return 0.0, 10.0
        known, waiting, k = sum(self.supports), len(self.texts) - len(self._statements), len(self.texts)
        return 10 * known / k, 10 * (known + waiting) / k

    def verdict(self, unasked: str) -> Verdict:
        """The score, or the reason why there is none; while that is open, bounds, with `unasked` as the reason."""
        support = self._prompts.template("support", self.language).hash
        if self._ended is not None:
            score, reason = self._ended
            return self._verdict(score, reason, analysis=self._analysis)
        if not self.settled:
            statements = [self._statements.get(n) or _unasked(text, unasked) for n, text in enumerate(self.texts)]
            done = self._verdict(None, unasked, *([support] if self._statements else []), statements=statements)
            return done.model_copy(update={"bounds": self.bounds})
        statements = [self._statements.get(n) or _unasked(text, NOT_NEEDED) for n, text in enumerate(self.texts)]
        return self._verdict(_score(statements), _why_unscored(statements), support, statements=statements)

    def _verdict(
        self,
        score: float | None,
        reason: str | None,
        *hashes: str,
        analysis: str | None = None,
        statements: Iterable[Statement] = (),
    ) -> Verdict:
        return verdict(
            self._judge,
            self._readings,
            score=score,
            reason=reason,
            analysis=analysis,
            statements=tuple(statements),
            truncated=self._truncated,
            prompt_hashes=(*([self._template.hash] if self.listed else []), *hashes),
        )

    async def _check(self, text: str, evidence: tuple[Evidence, ...]) -> tuple[Statement, list[ParsedReply[float]]]:
        if not evidence:
            return Statement(text=text, support=0.0, reason="the document is empty"), []
        passages = self._prompts.evidence([shown.text for shown in evidence], self.language)
        question = self._prompts.template("support", self.language).ask({"statement": text, "context": passages})
        parse = PARSERS[self._prompts.parsing].support
        reading = await self._judge.query(question, parse, parse_truncated=truncated_verdict(parse))
        statement = Statement(
            text=text, support=reading.value, analysis=reading.text or None, evidence=evidence, reason=reading.reason
        )
        return statement, [reading]


def _unasked(text: str, reason: str) -> Statement:
    return Statement(text=text, support=None, reason=reason)


def _score(statements: list[Statement]) -> float | None:
    known = [statement.support for statement in statements if statement.support is not None]
    return 10 * sum(known) / len(known) if len(known) == len(statements) else None


def _why_unscored(statements: list[Statement]) -> str | None:
    unreadable = [statement for statement in statements if statement.support is None and statement.reason != NOT_NEEDED]
    if not unreadable:
        return None
    return (
        f"{len(unreadable)} of {len(statements)} statements have no readable support; the first: {unreadable[0].reason}"
    )


NO_STATEMENT = "the response holds no factual statement"
NOT_NEEDED = "not needed"
