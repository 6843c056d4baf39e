"""What the judge is asked about an answer: each turn alone, and each turn beside a rival's answer in both orders.

Verdicts of single answers hold the rating (1 to 10). Those of a pair hold 1 where the model won the game, 0 where the
rival did, 0.5 for a tie; `more` then names the rival and the game (1: the model is assistant A; 2: the rival is).
"""

import time
from collections.abc import Mapping
from dataclasses import replace

from longreward.benchmarks.mt_bench.cases import MtCase
from longreward.benchmarks.mt_bench.parsers import Winner, exact_rating, exact_winner, strict_rating, strict_winner
from longreward.benchmarks.mt_bench.prompts import Template, template_name
from longreward.benchmarks.types import Answer, Verdict
from longreward.chat_model import ChatRequest
from longreward.judge import Judge
from longreward.utils.concurrency import gather

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
