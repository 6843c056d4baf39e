"""Rubric: the weighted share of a rubric's items that a response meets (optional dimension).

The rubric comes with the prompt, or the judge writes it once per prompt, from the query and the extracts of
completeness. The judge then checks all items of one response with one call.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from longreward.judge import Judge
from longreward.judge.continuation import end_list
from longreward.judge.prompts import PromptSet
from longreward.judge.truncation import truncated_list, truncated_tags
from longreward.records import Example, Extraction, Rubric, RubricItem, Statement, Verdict
from longreward.reward.completeness import labelled_extracts, unreadable_extracts
from longreward.reward.config import ScoreConfig
from longreward.reward.optional_parsers import parse_checks, parse_rubric
from longreward.reward.panel import sum_usage
from longreward.reward.ratings import DimensionInput, make_verdict
from longreward.utils.concurrency import shared_call
from longreward.utils.language import detect_language

CHECK_TOKENS = 80
"""Tokens of the reply for each item: a reason and a verdict."""


@asynccontextmanager
async def shared_rubric(
    judge: Judge,
    prompts: PromptSet,
    config: ScoreConfig,
    example: Example,
    extraction: Callable[[], Awaitable[Extraction]],
) -> AsyncGenerator[Callable[[], Awaitable[Rubric]] | None, None]:
    """Start to get the rubric that all responses share; None if the dimension is not in use."""
    if "rubric" not in config.dimensions:
        yield None
        return
    async with shared_call(get_rubric(judge, prompts, example, extraction())) as rubric:
        yield rubric


async def get_rubric(judge: Judge, prompts: PromptSet, example: Example, extraction: Awaitable[Extraction]) -> Rubric:
    """Return the example's own rubric, else one that the judge writes, with one call, from the extracts."""
    if example.rubric:
        return Rubric(items=example.rubric)
    extracted = await extraction
    language = detect_language(example.query)
    template = prompts.template("rubric", language)
    hashes = (*extracted.prompt_hashes, template.hash)
    if reason := unreadable_extracts(extracted):
        return Rubric(reason=reason, prompt_hashes=hashes)
    request = template.request({"question": example.query, "context": labelled_extracts(prompts, extracted, language)})
    reply = await judge.query(request, parse_rubric, parse_truncated=truncated_list(parse_rubric))
    return Rubric(
        items=tuple(RubricItem(text=text) for text in reply.value or ()),
        reason=reply.reason and f"the rubric of the prompt is unreadable: {reply.reason}",
        prompt_hashes=hashes,
        judge=reply.judge,
        **sum_usage([reply]),
    )


async def judge_rubric(item: DimensionInput) -> Verdict:
    """Check the response against all items with one call; its score is 10 times the weighted share of those met."""
    assert item.rubric is not None, "the scorer sets it where rubric is one of the dimensions"
    rubric = await item.rubric()
    template = item.prompts.template("rubric_check", item.language)
    hashes = (*rubric.prompt_hashes, template.hash)
    if not rubric.items:
        return make_verdict(item, [], score=None, reason=rubric.reason, prompt_hashes=hashes)
    count = len(rubric.items)
    texts = (" ".join(requirement.text.split()) for requirement in rubric.items)
    numbered = "\n".join(f"{number}. {text}" for number, text in enumerate(texts, 1))
    request = template.request(
        {"question": item.query, "rubric": numbered, "answer": item.response},
        max_tokens=max(template.max_tokens, CHECK_TOKENS * count),
    )
    parse = partial(parse_checks, count=count)
    # Of a truncated reply only one with all verdicts is readable.
    reply = await item.judge.query(end_list(request, count), parse, parse_truncated=truncated_tags(parse))
    if reply.value is None:
        return make_verdict(item, [reply], score=None, reason=reply.reason, analysis=reply.text, prompt_hashes=hashes)
    statements = [
        Statement(text=requirement.text, support=check.met, analysis=check.analysis or None, weight=requirement.weight)
        for requirement, check in zip(rubric.items, reply.value, strict=True)
    ]
    met = sum(statement.weight for statement in statements if statement.support)
    score = 10 * met / sum(statement.weight for statement in statements)
    return make_verdict(item, [reply], score=score, reason=None, statements=statements, prompt_hashes=hashes)
