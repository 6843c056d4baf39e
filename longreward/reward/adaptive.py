"""Scores a prompt's responses as far as its pair needs it: the best and the worst in full, of the others bounds.

With readable verdicts the pair is that of the full strategy, ties included, for any margin, whether truncated responses
may be chosen or not: the best of those that were not truncated is scored in full as well. A response that turns out
to be unscored takes no part from then on, so that those it had beaten are asked on.
"""

from collections.abc import Iterable, Sequence

from longreward.records import DIMENSIONS, Response, ScoredResponse
from longreward.reward.adaptive_schedule import next_requests
from longreward.reward.candidates import contenders, only
from longreward.reward.response_scorer import IncrementalScorer
from longreward.utils.concurrency import gather


async def score_extremes(courses: Sequence[IncrementalScorer], responses: Sequence[Response]) -> list[ScoredResponse]:
    """The course of each response's text, taken until best and worst are certain; equal texts share theirs.

    `responses` in the order in which ties are decided. A round's questions run at once; which ones are asked depends
    on the verdicts alone and not on the time that they take.
    """
    await gather(course.rate() for course in dict.fromkeys(courses))
    complete = [not response.truncated for response in responses]
    while True:
        await _share(courses, complete)
        questions = next_requests([course.standing(**_expectations(courses)) for course in courses], complete)
        if not questions:
            return _scored(courses, responses)
        asked: dict[IncrementalScorer, int] = {}
        for place, count in questions.items():
            asked[courses[place]] = max(asked.get(courses[place], 0), count)
        await gather(course.go_on(count) for course, count in asked.items())


async def _share(courses: Sequence[IncrementalScorer], complete: Sequence[bool]) -> None:
    """A statement that one response made and another makes too is marked already: taking it in costs no call."""
    known: dict[str, set[str]] = {}
    for course in courses:
        known.setdefault(course.faithfulness.language, set()).update(course.faithfulness.verified)
    bounds = [course.bounds() for course in courses]
    contest, untruncated = contenders(bounds), contenders(only(bounds, complete))
    still_open = [course for n, course in enumerate(courses) if n in contest or n in untruncated.best]
    await gather(course.verify(known[course.faithfulness.language]) for course in dict.fromkeys(still_open))


def _expectations(courses: Iterable[IncrementalScorer]) -> dict[str, float]:
    """What to expect of scores and supports not known yet: what the prompt's others have come to."""
    distinct = list(dict.fromkeys(courses))
    rated = [score for c in distinct for d in ("helpfulness", "logicality") if (score := c.score(d)) is not None]
    covered = [score for c in distinct if (score := c.score("completeness")) is not None]
    marked = [support for c in distinct for support in c.faithfulness.supports]
    return {
        "completeness": _mean(covered or rated or [USUAL_SCORE]),
        "support": _mean([*marked, *[USUAL_SUPPORT] * 4]),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _scored(courses: Sequence[IncrementalScorer], responses: Sequence[Response]) -> list[ScoredResponse]:
    rewards = [known for course in courses if (known := course.bounds()) is not None]
    worst, best = min((low for low, _ in rewards), default=0.0), max((high for _, high in rewards), default=10.0)
    return [
        ScoredResponse(response=response, verdicts=course.verdicts(_why_not_needed(course, worst, best)))
        for response, course in zip(responses, courses, strict=True)
    ]


def _why_not_needed(course: IncrementalScorer, worst: float, best: float) -> str:
    known = course.bounds()
    if known is None:
        unscored = next(dimension for dimension in DIMENSIONS if course.known(dimension) is None)
        return f"not needed: {unscored} is unscored"
    return (
        f"not needed: the reward lies within {known[0]:.2f} to {known[1]:.2f}, "
        f"between the worst, {worst:.2f}, and the best, {best:.2f}"
    )


USUAL_SCORE, USUAL_SUPPORT = 7.5, 0.8
