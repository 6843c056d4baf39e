r"""MT-Bench's judge: eight prompts, the parsers of its replies, and the requests for one answer.

Prompts come from FastChat's `judge_prompts.jsonl`, or are our own texts for the same eight uses:

    {"name": "single-v1", "type": "single", "system_prompt": "You are …", "prompt_template": "… {question} …",
     "output_format": "[[rating]]"}

`published` parsing is that of the published code: the first `[[number]]`, else the first `[number]`; for pairs `[[A]]`
before `[[B]]` before `[[C]]`, wherever they occur. `strict` accepts a single verdict in the requested format:

    parse_published_rating("[[3]] was my first thought, [[8]]")   3.0
    parse_strict_rating("[[3]] was my first thought, [[8]]")      (None, "several ratings: [[3]], [[8]]")

The value of a single verdict is the rating from 1 to 10. The value of a pairwise verdict is 1 if the model wins, 0 if
the opponent wins, 0.5 for a tie; its metadata have the opponent and the order (1: the model is assistant A, 2: B).
"""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter
from typing import Any, Literal

from longreward.benchmarks.judge_prompts import load_builtin_prompt
from longreward.benchmarks.mt_bench.data import MtCase
from longreward.benchmarks.published_formats import parse_text
from longreward.benchmarks.types import Answer, Verdict
from longreward.chat_model import ChatRequest
from longreward.errors import DataError
from longreward.judge import Judge, ParsedReply
from longreward.judge.prompt_template import PromptTemplate
from longreward.judge.prompts import Parsing
from longreward.utils.concurrency import gather
from longreward.utils.jsonl import Row, RowError, read_records

Kind = Literal["single", "pair"]
Winner = Literal["A", "B", "tie", "error"]
MAX_TOKENS = 2048
MIN_RATING, MAX_RATING = 1, 10
NO_VERDICT = "the published parser finds no verdict"
TEMPLATE_PREFIX = "mt_bench/"  # the offline judge has a rule for each template name
BUILTIN_PREFIX = "longreward-"  # of the names of our own prompts in rows
SLOTS: Mapping[str, tuple[str, ...]] = {
    "single-v1": ("question", "answer"),
    "single-math-v1": ("question", "answer", "ref_answer_1"),
    "single-v1-multi-turn": ("question_1", "answer_1", "question_2", "answer_2"),
    "single-math-v1-multi-turn": ("question_1", "answer_1", "question_2", "answer_2", "ref_answer_1", "ref_answer_2"),
    "pair-v2": ("question", "answer_a", "answer_b"),
    "pair-math-v1": ("question", "answer_a", "answer_b", "ref_answer_1"),
    "pair-v2-multi-turn": ("question_1", "question_2", "answer_a_1", "answer_a_2", "answer_b_1", "answer_b_2"),
    "pair-math-v1-multi-turn": (
        *("question_1", "question_2", "answer_a_1", "answer_a_2", "answer_b_1", "answer_b_2"),
        *("ref_answer_1", "ref_answer_2"),
    ),
}
BUILTIN_FILES: Mapping[str, str] = {
    "single-v1": "mt_bench_single",
    "single-math-v1": "mt_bench_single_reference",
    "single-v1-multi-turn": "mt_bench_single_second",
    "single-math-v1-multi-turn": "mt_bench_single_reference_second",
    "pair-v2": "mt_bench_pair",
    "pair-math-v1": "mt_bench_pair_reference",
    "pair-v2-multi-turn": "mt_bench_pair_second",
    "pair-math-v1-multi-turn": "mt_bench_pair_reference_second",
}
# The published patterns accept digits of any script and any number of them, which float() or a mean cannot handle.
_NUMBER = r"[0-9]{1,15}\.?[0-9]{0,15}"
_RATING = re.compile(rf"\[\[({_NUMBER})\]\]")
_FALLBACK_RATING = re.compile(rf"\[({_NUMBER})\]")
_WINNERS: tuple[tuple[str, Winner], ...] = (("[[A]]", "A"), ("[[B]]", "B"), ("[[C]]", "tie"))


@dataclass(frozen=True)
class MtBenchPrompt:
    """A judge prompt with its system prompt and its name in rows: `single-v1`, or ours, `longreward-single-v1`."""

    name: str
    system: str
    prompt: PromptTemplate

    def request(self, slots: Mapping[str, str]) -> ChatRequest:
        """Fill the prompt; slots that it does not show are left out."""
        shown = {name: slots[name] for name in self.prompt.slots}
        return self.prompt.request(shown, system=self.system, max_tokens=MAX_TOKENS)


Templates = Mapping[str, MtBenchPrompt]


def load_templates(path: Path | None = None) -> dict[str, MtBenchPrompt]:
    """Load all eight prompts by FastChat's names. Raises DataError for a missing prompt or unexpected slots."""
    if path is None:
        return {
            name: MtBenchPrompt(
                f"{BUILTIN_PREFIX}{name}", "", load_builtin_prompt(file, template=f"{TEMPLATE_PREFIX}{name}")
            )
            for name, file in BUILTIN_FILES.items()
        }
    templates = {template.name: template for template in read_records(path, _parse_template)}
    missing = [name for name in SLOTS if name not in templates]
    if missing:
        raise DataError(f"{path} lacks the prompts {', '.join(missing)}; use the judge_prompts.jsonl of llm_judge")
    return {name: templates[name] for name in SLOTS}


def template_name(kind: Kind, *, with_reference: bool, turn: int) -> str:
    """Return FastChat's name of a prompt.

    >>> template_name("single", with_reference=True, turn=2)
    'single-math-v1-multi-turn'
    """
    version = "math-v1" if with_reference else {"single": "v1", "pair": "v2"}[kind]
    return f"{kind}-{version}" + ("-multi-turn" if turn == 2 else "")


def _parse_template(row: Row) -> MtBenchPrompt:
    name, system, text, output_format = (
        parse_text(row, key) for key in ("name", "system_prompt", "prompt_template", "output_format")
    )
    try:
        pieces = _split_template(text)
    except ValueError as error:
        raise RowError(f"prompt_template of {name}: {error}; literal braces are written {{{{ and }}}}") from None
    if name in SLOTS:
        expected = "[[rating]]" if name.startswith("single") else "[[A]]"
        if output_format != expected:
            raise RowError(f"output_format of {name} is {output_format!r}, expected {expected!r}")
        slots = set(pieces[1::2])
        if slots != set(SLOTS[name]):
            raise RowError(f"prompt_template of {name} has the slots {sorted(slots)}, expected {sorted(SLOTS[name])}")
    digest = hashlib.sha256(f"{system}\n{text}".encode()).hexdigest()
    return MtBenchPrompt(name, system, PromptTemplate(f"{TEMPLATE_PREFIX}{name}", pieces, digest, official=True))


def _split_template(template: str) -> tuple[str, ...]:
    """Split a format string into text, slot, text, …, text."""
    pieces = [""]
    for literal, slot, spec, conversion in Formatter().parse(template):
        pieces[-1] += literal  # a doubled brace ends a part without a slot
        if slot is not None:
            if spec or conversion or not slot.isidentifier():
                raise ValueError(f"{{{slot}}} is not the name of a slot")
            pieces += [slot, ""]
    return tuple(pieces)


def parse_published_rating(judgment: str) -> float | None:
    """Parse a rating as the published code does; None where it has -1."""
    match = _RATING.search(judgment) or _FALLBACK_RATING.search(judgment)
    return float(match.group(1)) if match else None


def parse_strict_rating(judgment: str) -> tuple[float | None, str | None]:
    """Parse the only rating in double brackets, from 1 to 10; otherwise return None and the reason."""
    if not judgment:
        return None, "empty judgment"
    ratings = {float(number): f"[[{number}]]" for number in _RATING.findall(judgment)}
    if not ratings:
        return None, f"no [[rating]] in the judgment: …{_end(judgment)}"
    if len(ratings) > 1:
        return None, f"several ratings: {', '.join(ratings.values())}"
    [(rating, text)] = ratings.items()
    if not MIN_RATING <= rating <= MAX_RATING:
        return None, f"{text} is not between {MIN_RATING} and {MAX_RATING}"
    return rating, None


def parse_published_winner(judgment: str) -> Winner:
    """Parse the winner as the published code does."""
    return next((winner for mark, winner in _WINNERS if mark in judgment), "error")


def parse_strict_winner(judgment: str) -> tuple[Winner, str | None]:
    """Parse the winner if the judgment contains only one verdict; otherwise return "error" and the reason."""
    if not judgment:
        return "error", "empty judgment"
    winners = {mark: winner for mark, winner in _WINNERS if mark in judgment}
    if not winners:
        return "error", f"no [[A]], [[B]] or [[C]] in the judgment: …{_end(judgment)}"
    if len(winners) > 1:
        return "error", f"several verdicts: {', '.join(winners)}"
    [winner] = winners.values()
    return winner, None


def _end(text: str) -> str:
    return text[-80:].replace("\n", " ")


def single_verdict(case_id: str, turn: int, judgment: str, published: float | None, *, parsing: Parsing) -> Verdict:
    """Return the verdict of a rating, without the fields of its request; `published` is its published value."""
    value, reason = (published, NO_VERDICT) if parsing == "published" else parse_strict_rating(judgment)
    reason = reason if value is None else None
    return Verdict(case_id, f"turn {turn}", "", "", "", judgment, value, reason, metadata={"turn": turn})


def pair_verdict(
    case_id: str, turn: int, judgment: str, published: Winner, *, opponent: str, order: int, parsing: Parsing
) -> Verdict:
    """Return the verdict of one comparison, as `single_verdict` that of a rating."""
    winner, reason = (published, NO_VERDICT) if parsing == "published" else parse_strict_winner(judgment)
    part = f"turn {turn} against {opponent}" + (", swapped" if order == 2 else "")
    value = _points(winner, order)
    metadata = {"turn": turn, "opponent": opponent, "order": order}
    reason = reason if value is None else None
    return Verdict(case_id, part, "", "", "", judgment, value, reason, metadata=metadata)


def _points(winner: Winner, order: int) -> float | None:
    """Return the model's points: it is assistant A in order 1 and B in order 2."""
    points = {"A": 1.0, "B": 0.0, "tie": 0.5, "error": None}[winner]
    return points if points is None or order == 1 else 1 - points


async def rate_answer(
    judge: Judge, templates: Templates, case: MtCase, answer: Answer, *, parsing: Parsing
) -> list[Verdict]:
    """Rate each turn; the prompt of the second turn shows the first one, too."""

    async def rate_turn(turn: int) -> Verdict:
        template = templates[template_name("single", with_reference=bool(case.references), turn=turn)]
        slots = _case_slots(case) | {"answer": answer.turns[0]} | _numbered("answer", answer.turns)
        request = template.request(slots)
        reply = await judge.query(request, parse_published_rating)
        verdict = single_verdict(case.id, turn, reply.text, parse_published_rating(reply.text), parsing=parsing)
        return _with_request(verdict, request, template, reply)

    return await gather(rate_turn(turn) for turn in range(1, len(case.turns) + 1))


async def compare_answers(
    judge: Judge,
    templates: Templates,
    case: MtCase,
    answer: Answer,
    opponent: str,
    opponent_turns: Sequence[str],
    *,
    parsing: Parsing,
) -> list[Verdict]:
    """Compare each turn with the opponent's, in both orders."""
    own, other = answer.turns[: len(case.turns)], opponent_turns[: len(case.turns)]

    async def compare_turn(turn: int, order: int) -> Verdict:
        template = templates[template_name("pair", with_reference=bool(case.references), turn=turn)]
        first, second = (own, other) if order == 1 else (other, own)
        slots = _case_slots(case) | {"answer_a": first[0], "answer_b": second[0]}
        slots |= _numbered("answer_a", first) | _numbered("answer_b", second)
        request = template.request(slots)
        reply = await judge.query(request, _parse_winner)
        winner = parse_published_winner(reply.text)
        verdict = pair_verdict(case.id, turn, reply.text, winner, opponent=opponent, order=order, parsing=parsing)
        return _with_request(verdict, request, template, reply)

    return await gather(compare_turn(turn, order) for turn in range(1, len(case.turns) + 1) for order in (1, 2))


def _parse_winner(judgment: str) -> Winner | None:
    winner = parse_published_winner(judgment)
    return None if winner == "error" else winner


def _case_slots(case: MtCase) -> dict[str, str]:
    return {"question": case.turns[0]} | _numbered("question", case.turns) | _numbered("ref_answer", case.references)


def _numbered(name: str, texts: Sequence[str]) -> dict[str, str]:
    return {f"{name}_{number}": text for number, text in enumerate(texts, start=1)}


def _with_request(verdict: Verdict, request: ChatRequest, template: MtBenchPrompt, reply: ParsedReply[Any]) -> Verdict:
    """Add the request to a verdict, and the reason if there was no reply."""
    prompt = template.prompt
    return replace(
        verdict,
        template=request.template,
        system=request.system,
        prompt=request.text,
        reason=reply.reason if reply.reason is not None and not verdict.judgment else verdict.reason,
        judge=reply.judge,
        created=time.time(),
        metadata={
            **verdict.metadata,
            "prompt": template.name,
            "prompt_hash": prompt.hash,
            "official": prompt.official,
        },
    )
