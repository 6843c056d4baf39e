"""Stops a run whose judge never gives a reply that can be parsed, before every question has cost five calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from longreward.errors import UnreadableReply


@dataclass
class _Template:
    """What is known of one template as long as none of its replies could be parsed."""

    questions: set[str] = field(default_factory=set)
    """Distinct questions with at least one unreadable reply."""
    exhausted: set[str] = field(default_factory=set)
    """Those of them without attempts left."""
    replies: int = 0


class CircuitBreaker:
    """Counts unreadable replies per template until the first readable one, which closes the matter for that template.

    `limit`: questions that may use up all of their attempts; None: never stop. Many questions are in flight at once,
    in batch mode all of them, so it also stops at ten times as many questions that have one unreadable reply.
    """

    def __init__(self, judge: str, limit: int | None) -> None:
        self._judge = judge
        self._limit = limit
        self._unreadable: dict[str, _Template] = {}
        self._readable: set[str] = set()

    def record_readable(self, template: str) -> None:
        """A reply, or one from the ledger, could be parsed."""
        self._readable.add(template)
        self._unreadable.pop(template, None)

    def record_unreadable(self, template: str, question: str, *, reply: str, reason: str, exhausted: bool) -> None:
        """A reply could not be parsed; `exhausted`: it was the last attempt at `question`.

        Raises JudgeUnreadable once that happened to too many questions of a template, and to no other.
        """
        if self._limit is None or template in self._readable:
            return
        seen = self._unreadable.setdefault(template, _Template())
        seen.replies += 1
        seen.questions.add(question)
        if exhausted:
            seen.exhausted.add(question)
        if len(seen.exhausted) >= self._limit or len(seen.questions) >= IN_FLIGHT * self._limit:
            raise UnreadableReply(self._message(template, seen, reply, reason))

    def _message(self, template: str, seen: _Template, reply: str, reason: str) -> str:
        shown = " ".join(reply.split())
        shown = f"{shown[:SHOWN]} […] {shown[-SHOWN:]}" if len(shown) > 2 * SHOWN else shown
        return (
            f"judge {self._judge!r}: none of its {seen.replies} replies to {len(seen.questions)} questions of the "
            f"template {template} could be parsed\n"
            f"  last reply:      {shown or '(empty)'}\n"
            f"  problem:         {reason}\n"
            f"  expected format: {EXPECTED_FORMATS.get(template, 'the one that the prompt asks for')}\n"
            "Check judge.model, judge.extra_body and the server's chat template, or name a model that follows the "
            "prompts; `longreward doctor` tries every prompt once. All replies are kept, and the next run asks these "
            "questions again. judge.stop_after_unreadable sets when to stop; null never stops"
        )


IN_FLIGHT = 10
SHOWN = 150  # characters of a reply at its beginning and at its end
EXPECTED_FORMATS: Mapping[str, str] = {
    "helpfulness": "an analysis, then a line such as Rating: [[7]] (0 to 10)",
    "logicality": "an analysis, then a line such as Rating: [[7]] (0 to 10)",
    "completeness": "an analysis, then a line such as Rating: [[7]] (0 to 10)",
    "statements": "<statement>one fact</statement> for each fact, or <no_statement/>",
    "support": "a line such as Support: [[Fully supported]], [[Partially supported]] or [[No support]]",
    "extraction": "the relevant information as a list, or No relevant information",
}
