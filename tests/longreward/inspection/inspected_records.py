"""Prompts with scores, statements and extracts for tests of the evidence page."""

from collections.abc import Sequence

from longreward.inspection.entries import judge_costs
from longreward.inspection.html_page import Collection, EvidencePage
from longreward.inspection.reward_entries import PromptRecords, reward_entry
from longreward.judge.usage import PricesConfig
from longreward.records import (
    DIMENSIONS,
    Evidence,
    Example,
    Extract,
    Extraction,
    PreferencePair,
    Response,
    ScoredResponse,
    Statement,
    Verdict,
)

PRICES = PricesConfig.model_validate({"models": {"judge-1": {"prompt": 1000.0, "completion": 2000.0}}})
CONTEXT = "Mara Voss was born in Kelden. She studied botany in Tarn. The market opened in 1931."


def evidence(text: str, context: str = CONTEXT) -> Evidence:
    start = context.index(text)
    return Evidence(start=start, end=start + len(text), text=text)


def scored_response(
    example: Example, number: int, text: str, scores: Sequence[float | None], statements: Sequence[Statement] = ()
) -> ScoredResponse:
    """Return a response with these scores in the order of DIMENSIONS; None is unscored."""
    response = Response(
        id=f"{example.id}-{number}", example_id=example.id, query=example.query, text=text, tokens=len(text.split())
    )
    verdicts = {
        dimension: Verdict(
            score=score,
            reason=None if score is not None else "no rating in 5 replies",
            analysis=f"The {dimension} of {text}",
            statements=tuple(statements) if dimension == "faithfulness" else (),
            judge="judge-1",
            prompt_hashes=("ab" * 32,),
            calls=1,
            prompt_tokens=500,
            completion_tokens=50,
        )
        for dimension, score in zip(DIMENSIONS, scores, strict=True)
    }
    return ScoredResponse(response=response, verdicts=verdicts)


def birthplace_records(example_id: str = "11") -> PromptRecords:
    """Return a prompt with three responses, a pair, two statements with evidence and two extracts."""
    example = Example(
        id=example_id,
        document_id="history",
        context=CONTEXT,
        query="Where was Mara Voss born, and what did she study?",
        answer="In Kelden; botany.",
    )
    good = scored_response(
        example,
        0,
        "Mara Voss was born in Kelden. She studied botany.",
        (9, 10, 10, 10),
        [
            Statement(
                text="Mara Voss was born in Kelden.",
                support=1.0,
                analysis="The first sentence says so.",
                evidence=(evidence("Mara Voss was born in Kelden."),),
            ),
            Statement(text="She studied botany.", support=0.5, evidence=(evidence("She studied botany in Tarn."),)),
        ],
    )
    bad = scored_response(
        example,
        1,
        "She was born in Solby.",
        (5, 8, 0, 2),
        [Statement(text="She was born in Solby.", support=0.0, evidence=(evidence("The market opened in 1931."),))],
    )
    middling = scored_response(example, 2, "Nobody knows.", (3, 10, 10, 3))
    return PromptRecords(
        example,
        [bad, good, middling],
        extraction=Extraction(
            example_id=example.id,
            query=example.query,
            extracts=(
                Extract(
                    start=0,
                    end=57,
                    first_percent=0,
                    last_percent=60,
                    text="Mara Voss was born in Kelden.\nShe read law.",
                ),
                Extract(start=57, end=len(CONTEXT), first_percent=60, last_percent=100, text=None),
            ),
        ),
        pair=PreferencePair(
            id=example.id,
            context=CONTEXT,
            query=example.query,
            chosen=good.response,
            rejected=bad.response,
            chosen_reward=9.75,
            rejected_reward=3.75,
        ),
    )


def plain_records(example_id: str, query: str, *, margin: float | None, unscored: bool = False) -> PromptRecords:
    """Return a prompt of two responses about another document, with a pair of this margin or without one."""
    context = f"{query} Nothing is recorded about it."
    example = Example(id=example_id, document_id=example_id, context=context, query=query)
    high = 2.0 + (margin or 0.0)
    best = scored_response(example, 0, f"Long answer to {example_id}: " + "word " * 40, (high, high, high, high))
    worst = scored_response(example, 1, "Short.", (2, 2, 2, None if unscored else 2))
    pair = PreferencePair(
        id=example_id,
        context=context,
        query=query,
        chosen=best.response,
        rejected=worst.response,
        chosen_reward=high,
        rejected_reward=2.0,
    )
    no_pair = None if margin is not None else "best and worst tie"
    return PromptRecords(example, [best, worst], pair=pair if margin is not None else None, no_pair=no_pair)


def evidence_page(
    records: Sequence[PromptRecords], *, title: str = "project", total: int | None = None
) -> EvidencePage:
    """Return a page of training prompts."""
    page = EvidencePage(title, storage_key="project-1")
    cost_of = judge_costs(PRICES)
    collection = Collection("pairs", "Training prompts", "rewards", total=total)
    page.add(collection, [reward_entry(record, cost_of) for record in records])
    return page
