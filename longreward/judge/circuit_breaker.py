"""Stop a run whose judge never gives a reply that can be parsed, before every request has cost five calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from longreward.errors import JudgeRefused, UnreadableReply
from longreward.judge.prompt_manifest import SUPPORT_LIST

# Many requests are in flight at once, in batch mode all of them: this many times `limit` requests with one unreadable
# reply stop the run too, before any request has used up its attempts.
IN_FLIGHT_FACTOR = 10
EXCERPT = 150  # characters from the start and from the end of a reply, for messages

_RATING_FORMAT = "an analysis, then a line such as Rating: [[7]] (0 to 10)"
EXPECTED_FORMATS: Mapping[str, str] = {
    "helpfulness": _RATING_FORMAT,
    "logicality": _RATING_FORMAT,
    "completeness": _RATING_FORMAT,
    "statements": "<statement>one fact</statement> for each fact, or <no_statement/>",
    "support": "a line such as Support: [[Fully supported]], [[Partially supported]] or [[No support]]",
    SUPPORT_LIST: "a numbered line for each statement that ends with a level, such as 1. Passage 1. [[No support]]",
    "extraction": "the relevant information as a list, or No relevant information",
    "rubric": "a numbered list of requirements",
    "rubric_check": "a numbered line for each item that ends with [[Met]] or [[Not met]]",
    "citation_support": "a line such as Support: [[Fully supported]], [[Partially supported]] or [[No support]]",
    "citation_relevance": "a line such as Verdict: [[Relevant]] or [[Irrelevant]]",
    "citation_need": "a line such as Verdict: [[Needed]] or [[Not needed]]",
}


@dataclass
class _TemplateState:
    """Counts for a template without any readable reply so far."""

    requests: set[str] = field(default_factory=set)
    exhausted: set[str] = field(default_factory=set)
    """Requests without attempts left."""
    replies: int = 0


class CircuitBreaker:
    """Count unreadable replies per template until its first readable one, after which the template is trusted.

    `limit`: requests of one template that may use up all of their attempts; None: never stop.
    """

    def __init__(self, judge: str, limit: int | None) -> None:
        self._judge = judge
        self._limit = limit
        self._unreadable: dict[str, _TemplateState] = {}
        self._readable: set[str] = set()
        self._too_long: dict[str, set[str]] = {}

    def record_readable(self, template: str) -> None:
        """Record that a reply to this template, new or from the ledger, could be parsed."""
        self._readable.add(template)
        self._unreadable.pop(template, None)

    def record_too_long(self, template: str, request_id: str, message: str) -> None:
        """Record that a prompt did not fit into the context window.

        Raises JudgeRefused once that happened to `limit` requests of a template without a readable reply: the settings
        do not suit the server.
        """
        if self._limit is None or template in self._readable:
            return
        requests = self._too_long.setdefault(template, set())
        requests.add(request_id)
        if len(requests) >= self._limit:
            raise JudgeRefused(f"all {len(requests)} prompts {template} so far are too long; the last: {message}")

    def record_unreadable(
        self,
        template: str,
        request_id: str,
        *,
        reply: str,
        reason: str,
        exhausted: bool,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        """Record that a reply could not be parsed; `exhausted`: it was the last attempt.

        `schema`: that of the request, if the reply should have been JSON.

        Raises UnreadableReply once that happened to too many requests of a template without a readable reply.
        """
        if self._limit is None or template in self._readable:
            return
        state = self._unreadable.setdefault(template, _TemplateState())
        state.replies += 1
        state.requests.add(request_id)
        if exhausted:
            state.exhausted.add(request_id)
        if len(state.exhausted) < self._limit and len(state.requests) < IN_FLIGHT_FACTOR * self._limit:
            return
        excerpt = " ".join(reply.split())
        if len(excerpt) > 2 * EXCERPT:
            excerpt = f"{excerpt[:EXCERPT]} […] {excerpt[-EXCERPT:]}"
        expected = EXPECTED_FORMATS.get(template, "the one that the prompt asks for")
        if schema is not None:
            expected = f"JSON with {', '.join(schema['properties'])}; judge.reply_format: text asks for plain text"
        alternative = ", or set score.statements_per_call to 1" if template == SUPPORT_LIST else ""
        raise UnreadableReply(
            f"judge {self._judge!r}: none of its {state.replies} replies to {len(state.requests)} questions of the "
            f"template {template} could be parsed\n"
            f"  last reply:      {excerpt or '(empty)'}\n"
            f"  problem:         {reason}\n"
            f"  expected format: {expected}\n"
            "Check judge.model, judge.extra_body and the server's chat template, or name a model that follows the "
            f"prompts{alternative}; `longreward doctor` tries every prompt once. All replies are kept, and the next "
            "run asks these questions again. judge.stop_after_unreadable sets when to stop; null never stops"
        )
