"""Compare the context windows of the judges' servers with the longest prompts that the settings allow.

    await check_windows(params.judge, longest_prompts(load_prompts(), params.score, response_tokens=1024))
    # ["judge 'm' at http://localhost:8080/v1/ has a context window of 4,096 tokens: extraction may need about 5,600 …"]

Counts are estimates: chunks are measured in tokens of `score.tokenizer`, and judges have tokenizers of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from longreward.chat_model import estimate_tokens
from longreward.judge.config import JudgeConfig
from longreward.judge.context_window import LENGTH_SETTINGS
from longreward.judge.http_client import HttpJudge
from longreward.judge.judge import open_model
from longreward.judge.prompt_manifest import TEMPLATES
from longreward.judge.prompts import PromptSet
from longreward.reward.config import ScoreConfig

QUERY_TOKENS = 100  # of a question or a statement
PASSAGES_TOKENS = 500  # cited for one statement


@dataclass(frozen=True)
class PromptLength:
    """The tokens of a template's longest prompt together with its reply."""

    template: str
    tokens: int


def longest_prompts(prompts: PromptSet, config: ScoreConfig, *, response_tokens: int) -> list[PromptLength]:
    """Estimate the longest prompts of the reward, in the longer one of the two languages.

    The extracts in the completeness prompt count as one of the size of a reply.
    """
    extract_tokens = prompts.template("extraction", "en").max_tokens
    material = {
        "helpfulness": response_tokens,
        "logicality": response_tokens,
        "statements": response_tokens,
        "support": config.evidence_chunks * config.evidence_chunk_tokens,
        "support_list": config.statements_per_call * config.evidence_chunks * config.evidence_chunk_tokens,
        "extraction": config.extraction_chunk_tokens,
        "completeness": response_tokens + extract_tokens,
        "rubric": extract_tokens,
        "rubric_check": response_tokens + extract_tokens,
        "citation_support": PASSAGES_TOKENS,
        "citation_relevance": PASSAGES_TOKENS,
        "citation_need": response_tokens,
    }
    lengths: dict[str, int] = {}
    for (name, _), template in prompts.templates.items():
        literal = estimate_tokens("".join(template.pieces[::2]))
        tokens = literal + QUERY_TOKENS + material[name] + template.max_tokens
        lengths[name] = max(tokens, lengths.get(name, 0))
    return [PromptLength(name, tokens) for name, tokens in lengths.items()]


async def check_windows(config: JudgeConfig, prompts: Sequence[PromptLength]) -> list[str]:
    """Return a sentence for each judge whose server has too small a context window for some prompts.

    Only servers that report their window are compared. Call it after a reply: Ollama loads the model with the first.
    """
    sentences = []
    by_template = config.judges_by_template()
    for index, (judge_config, _) in enumerate(config.judges()):
        templates = {template for template, judges in by_template.items() if index in judges}
        if index == 0:  # the first judge also gets the prompts that belong to no dimension
            templates |= {prompt.template for prompt in prompts} - set(TEMPLATES)
        judge = open_model(judge_config)
        try:
            window = await judge.fetch_window() if isinstance(judge, HttpJudge) else None
            if window is None or not isinstance(judge, HttpJudge):
                continue
            lengths = {
                prompt.template: prompt.tokens + judge_config.thinking_tokens
                for prompt in prompts
                if prompt.template in templates
            }
            too_long = {name: tokens for name, tokens in lengths.items() if tokens > window}
            if too_long:
                listed = "; ".join(_describe(name, tokens) for name, tokens in too_long.items())
                advice = judge.larger_window_advice(max(too_long.values()))
                sentences.append(f"the {judge.server} has a context window of {window:,} tokens. {listed}. {advice}")
        finally:
            await judge.close()
    return sentences


def _describe(template: str, tokens: int) -> str:
    setting = LENGTH_SETTINGS.get(template)
    return f"prompt {template} with its reply may need about {tokens:,}{f' (lower {setting})' if setting else ''}"
