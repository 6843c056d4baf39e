"""The judge's prompts: FastChat's `judge_prompts.jsonl` where it is given, else our own texts for the same eight uses.

{"name": "single-v1", "type": "single", "system_prompt": "You are …", "prompt_template": "… {question} …",
 "output_format": "[[rating]]"}
"""

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter
from typing import Literal

from longreward.benchmarks.judge_prompts import load_builtin_prompt
from longreward.benchmarks.mt_bench.data import MtCase
from longreward.benchmarks.types import Answer, Verdict
from longreward.chat_model import ChatRequest
from longreward.errors import DataError
from longreward.judge import Judge
from longreward.judge.prompt_template import PromptTemplate
from longreward.utils.concurrency import gather
from longreward.utils.jsonl import Row, RowError, read_records

Kind = Literal["single", "pair"]
MAX_TOKENS = 2048


@dataclass(frozen=True)
class Template:
    """A prompt, its system prompt, and its name in rows: `single-v1`, ours `longreward-single-v1`."""

    name: str
    system: str
    prompt: PromptTemplate

    def ask(self, slots: Mapping[str, str]) -> ChatRequest:
        """The question; of `slots` it holds those that the prompt shows."""
        shown = {name: slots[name] for name in self.prompt.slots}
        return self.prompt.request(shown, system=self.system, max_tokens=MAX_TOKENS)


def load_templates(path: Path | None = None) -> dict[str, Template]:
    """All eight by FastChat's names. Raises DataError where the file lacks one or a row has not the slots it should."""
    if path is None:
        made = {name: load_builtin_prompt(file, template=f"{PREFIX}{name}") for name, file in FILES.items()}
        return {name: Template(f"{OURS}{name}", "", prompt) for name, prompt in made.items()}
    found = {template.name: template for template in read_records(path, _official)}
    lacking = [name for name in SLOTS if name not in found]
    if lacking:
        raise DataError(f"{path} lacks the prompts {', '.join(lacking)}; take the judge_prompts.jsonl of llm_judge")
    return {name: found[name] for name in SLOTS}


def template_name(kind: Kind, *, with_reference: bool, turn: int) -> str:
    """FastChat's name of the prompt.

    >>> template_name("single", with_reference=True, turn=2)
    'single-math-v1-multi-turn'
    """
    version = "math-v1" if with_reference else {"single": "v1", "pair": "v2"}[kind]
    return f"{kind}-{version}" + ("-multi-turn" if turn == 2 else "")


def _official(row: Row) -> Template:
    name, system, text, form = (_text(row, k) for k in ("name", "system_prompt", "prompt_template", "output_format"))
    try:
        pieces = _pieces_of(text)
    except ValueError as error:
        raise RowError(f"prompt_template of {name}: {error}; braces of its own are written {{{{ and }}}}") from None
    if name in SLOTS:
        _check(name, pieces, form)
    digest = hashlib.sha256(f"{system}\n{text}".encode()).hexdigest()
    return Template(name, system, PromptTemplate(f"{PREFIX}{name}", pieces, digest, official=True))


def _text(row: Row, field: str) -> str:
    text = row.get(field)
    if not isinstance(text, str):
        raise RowError(f"{field} is {text!r}, expected a text")
    return text


def _pieces_of(template: str) -> tuple[str, ...]:
    pieces = [""]
    for literal, slot, spec, conversion in Formatter().parse(template):
        pieces[-1] += literal  # a doubled brace ends a part that has no slot
        if slot is not None:
            if spec or conversion or not slot.isidentifier():
                raise ValueError(f"{{{slot}}} is not the name of a slot")
            pieces += [slot, ""]
    return tuple(pieces)


def _check(name: str, pieces: tuple[str, ...], form: str) -> None:
    wanted = "[[rating]]" if name.startswith("single") else "[[A]]"
    if form != wanted:
        raise RowError(f"output_format of {name} is {form!r}, expected {wanted!r}")
    if set(pieces[1::2]) != set(SLOTS[name]):
        raise RowError(
            f"prompt_template of {name} has the slots {sorted(set(pieces[1::2]))}, not {sorted(SLOTS[name])}"
        )


PREFIX = "mt_bench/"  # of the templates' names, whoever wrote them: the offline judge has a rule for each
OURS = "longreward-"
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
FILES: Mapping[str, str] = {
    "single-v1": "mt_bench_single",
    "single-math-v1": "mt_bench_single_reference",
    "single-v1-multi-turn": "mt_bench_single_second",
    "single-math-v1-multi-turn": "mt_bench_single_reference_second",
    "pair-v2": "mt_bench_pair",
    "pair-math-v1": "mt_bench_pair_reference",
    "pair-v2-multi-turn": "mt_bench_pair_second",
    "pair-math-v1-multi-turn": "mt_bench_pair_reference_second",
}


# What a judgment says, read in two ways.
#
#     exact_rating("Well done. Rating: [[7]]")           7.0
#     exact_rating("[[3]] was my first thought, [[8]]")  3.0     the first one, as the published code has it
#     strict_rating("[[3]] was my first thought, [[8]]") (None, "several ratings: [[3]], [[8]]")
#
# `exact` is the published code: the first `[[number]]`, else the first `[number]`; a pair's `[[A]]` before
# `[[B]]` before
# `[[C]]`, wherever they stand. `strict` takes the asked form alone, one verdict, on the scale; else it gives
# the reason.


Winner = Literal["A", "B", "tie", "error"]


def exact_rating(judgment: str) -> float | None:
    """The rating as the published code reads it, whatever its size; None where it says −1."""
    found = _RATING.search(judgment) or _BACKUP.search(judgment)
    return float(found.group(1)) if found else None


def strict_rating(judgment: str) -> tuple[float | None, str | None]:
    """The one rating in double brackets, from 1 to 10; or why there is none."""
    if not judgment:
        return None, "the judge said nothing"
    found = {float(number): f"[[{number}]]" for number in _RATING.findall(judgment)}
    if not found:
        return None, f"no [[rating]] in the judgment: …{_end(judgment)}"
    if len(found) > 1:
        return None, f"several ratings: {', '.join(found.values())}"
    (rating,) = found
    return (rating, None) if LOWEST <= rating <= HIGHEST else (None, f"{found[rating]} is not on the scale of 1 to 10")


def exact_winner(judgment: str) -> Winner:
    """Who wins as the published code reads it."""
    return next((winner for mark, winner in _WINNERS if mark in judgment), "error")


def strict_winner(judgment: str) -> tuple[Winner, str | None]:
    """Who wins where the judgment holds one verdict alone; else ("error", why)."""
    if not judgment:
        return "error", "the judge said nothing"
    found = [(mark, winner) for mark, winner in _WINNERS if mark in judgment]
    if not found:
        return "error", f"no [[A]], [[B]] or [[C]] in the judgment: …{_end(judgment)}"
    if len(found) > 1:
        return "error", f"several verdicts: {', '.join(mark for mark, _ in found)}"
    return found[0][1], None


def _end(text: str) -> str:
    return text[-80:].replace("\n", " ")


LOWEST, HIGHEST = 1, 10
# The published patterns take digits of any script and any number of them, at which its next steps fail.
_NUMBER = r"[0-9]{1,15}\.?[0-9]{0,15}"
_RATING = re.compile(rf"\[\[({_NUMBER})\]\]")
_BACKUP = re.compile(rf"\[({_NUMBER})\]")
_WINNERS: tuple[tuple[str, Winner], ...] = (("[[A]]", "A"), ("[[B]]", "B"), ("[[C]]", "tie"))


# What the judge is asked about an answer: each turn alone, and each turn beside a rival's answer in both orders.
#
# Verdicts of single answers hold the rating (1 to 10). Those of a pair hold 1 where the model won the game, 0 where the
# rival did, 0.5 for a tie; `more` then names the rival and the game (1: the model is assistant A; 2: the rival is).


Templates = Mapping[str, Template]


async def grade(judge: Judge, templates: Templates, case: MtCase, answer: Answer) -> list[Verdict]:
    """A verdict on each turn, the second one read in the light of the first."""
    return await gather(_grade(judge, templates, case, answer, turn) for turn in range(1, len(case.turns) + 1))


async def compare(
    judge: Judge, templates: Templates, case: MtCase, answer: Answer, rival: str, against: tuple[str, ...]
) -> list[Verdict]:
    """Two verdicts on each turn, `against` being the rival's turns: the model first, then the rival first."""
    games = [(turn, game) for turn in range(1, len(case.turns) + 1) for game in (1, 2)]
    return await gather(
        _compare(judge, templates, case, answer, rival, against, turn=turn, game=game) for turn, game in games
    )


def single_verdict(case_id: str, turn: int, judgment: str, exact: float | None) -> Verdict:
    """The verdict that a judgment comes to, with nothing known of how it was asked."""
    strict, reason = strict_rating(judgment)
    return Verdict(case_id, f"turn {turn}", "", "", "", judgment, exact, strict, reason, more={"turn": turn})


def pair_verdict(case_id: str, turn: int, judgment: str, winner: Winner, *, rival: str, game: int) -> Verdict:
    """The same for one game of a pair; `winner` is the exact reading, by the letters of this game."""
    strict, reason = strict_winner(judgment)
    part = f"turn {turn} against {rival}" + (", swapped" if game == 2 else "")
    values = [_points(each, game) for each in (winner, strict)]
    more = {"turn": turn, "against": rival, "game": game}
    return Verdict(case_id, part, "", "", "", judgment, values[0], values[1], reason, more=more)


async def _grade(judge: Judge, templates: Templates, case: MtCase, answer: Answer, turn: int) -> Verdict:
    template = templates[template_name("single", with_reference=bool(case.references), turn=turn)]
    said = {"answer": answer.turns[0]} | {f"answer_{n}": text for n, text in enumerate(answer.turns, 1)}
    question = template.ask(_asked(case) | said)
    reading = await judge.query(question, exact_rating)
    verdict = single_verdict(case.id, turn, reading.text, exact_rating(reading.text))
    return _asked_by(verdict, question, template, reading.judge, reading.reason)


async def _compare(
    judge: Judge,
    templates: Templates,
    case: MtCase,
    answer: Answer,
    rival: str,
    against: tuple[str, ...],
    *,
    turn: int,
    game: int,
) -> Verdict:
    template = templates[template_name("pair", with_reference=bool(case.references), turn=turn)]
    first, second = (answer.turns, against) if game == 1 else (against, answer.turns)
    said = {"answer_a": first[0], "answer_b": second[0]}
    for n in range(1, len(case.turns) + 1):
        said |= {f"answer_a_{n}": first[n - 1], f"answer_b_{n}": second[n - 1]}
    question = template.ask(_asked(case) | said)
    reading = await judge.query(question, _read_winner)
    verdict = pair_verdict(case.id, turn, reading.text, exact_winner(reading.text), rival=rival, game=game)
    return _asked_by(verdict, question, template, reading.judge, reading.reason)


def _asked(case: MtCase) -> dict[str, str]:
    slots = {"question": case.turns[0]} | {f"question_{n}": text for n, text in enumerate(case.turns, 1)}
    return slots | {f"ref_answer_{n}": text for n, text in enumerate(case.references, 1)}


def _asked_by(verdict: Verdict, question: ChatRequest, template: Template, judge: str, failure: str | None) -> Verdict:
    """The verdict with what was asked of whom; where nothing was said, why that is so."""
    prompt = template.prompt
    return replace(
        verdict,
        template=question.template,
        system=question.system,
        prompt=question.text,
        reason=failure if failure is not None and not verdict.judgment else verdict.reason,
        judge=judge,
        created=time.time(),
        more={**verdict.more, "prompt": template.name, "prompt_hash": prompt.hash, "official": prompt.official},
    )


def _read_winner(judgment: str) -> Winner | None:
    winner = exact_winner(judgment)
    return None if winner == "error" else winner


def _points(winner: Winner, game: int) -> float | None:
    """What the game is worth to the model, which is A in game 1 and B in game 2."""
    points = {"A": 1.0, "B": 0.0, "tie": 0.5, "error": None}[winner]
    return points if points is None or game == 1 else 1 - points
