"""docs/how-it-works.md follows one record of the built-in corpus through the core; these tests keep it in sync."""

import ast
import asyncio
import math
import re
from functools import cache
from pathlib import Path

import pytest

from longreward.builtin.corpus import read_gold, write_corpus
from longreward.data.formats import read_examples
from longreward.judge import Judge, JudgeConfig, open_judge
from longreward.judge.prompts import load_prompts
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_policy
from longreward.pairs.config import SelectionConfig
from longreward.pairs.selection import pair_by_scores
from longreward.records import Example, PreferencePair, Response
from longreward.retrieval import Bm25Retriever
from longreward.reward import ScoreConfig, ScoredExample, Scorer
from longreward.reward.document import Document
from longreward.reward.parsers import parse_rating, parse_support
from longreward.training.dpo import TrainConfig, loss_arguments
from longreward.utils.token_spans import open_tokenizer

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
CONFIG = ScoreConfig(evidence_chunks=2)
MAX_CORE_LINES = 1500


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Return the first record of the built-in corpus with its gold answer instead of the faulty one."""
    corpus = write_corpus(tmp_path_factory.mktemp("corpus"), documents=1)
    first = next(iter(read_examples(corpus.corpus)))
    gold = read_gold(corpus.gold)[int(first.id)].answer
    return first.model_copy(update={"answer": f"{gold}|{first.answer}"})


@cache
def responses_to(example: Example) -> tuple[Response, ...]:
    gold, own = (example.answer or "").split("|")
    texts = (own, gold, gold.split(". ")[0] + ".")
    return tuple(
        Response(id=f"{example.id}-{n}", example_id=example.id, query=example.query, text=text)
        for n, text in enumerate(texts)
    )


@cache
def scored(example: Example) -> ScoredExample:
    async def score() -> ScoredExample:
        async with open_judge(JudgeConfig(), ledger=None) as judge, Scorer(CONFIG) as scorer:
            return await scorer.score(judge, example, responses_to(example))

    return asyncio.run(score())


def assert_on_page(*values: str) -> None:
    """Compare without regard to line breaks, which the page may place anywhere."""
    page = " ".join(PAGE.split())
    missing = [value for value in values if " ".join(value.split()) not in page]
    assert not missing, f"docs/how-it-works.md lacks {missing}"


def test_record_and_responses(example: Example) -> None:
    assert_on_page(example.context[:100], example.query)
    for response in responses_to(example):
        assert_on_page(f"`{response.id}` | {response.text}")


async def test_chunks_and_evidence(example: Example) -> None:
    tokenizer = open_tokenizer(CONFIG.tokenizer)
    document = Document(example.context, CONFIG, tokenizer, Bm25Retriever())
    extraction_chunks = await document.extraction_chunks()
    tokens = len(tokenizer.spans(example.context))
    statements = ["Judith Moreau was succeeded by Vera Grau."]
    [all_chunks] = await document.evidence(statements, tokens)
    assert "".join(chunk.text for chunk in all_chunks) == example.context
    assert_on_page(
        f"{len(example.context):,} characters and {tokens} tokens",
        f"{len(extraction_chunks)} chunk",
        f"{len(all_chunks)} chunks",
    )
    [evidence] = await document.evidence(statements, CONFIG.evidence_chunks)
    assert_on_page(*(f"`context[{chunk.start}:{chunk.end}]`" for chunk in evidence))


async def test_prompt_reply_and_rating(example: Example) -> None:
    own = responses_to(example)[0]
    template = load_prompts().template("helpfulness", "en")
    request = template.request({"question": example.query, "answer": own.text})
    prompt_end = "\n".join(request.text.splitlines()[-9:])
    assert_on_page(prompt_end)
    async with open_judge(JudgeConfig(), ledger=None) as judge:
        reply = await judge.query(request, parse_rating)
    assert_on_page(reply.text, f"parse_rating(reply) == {parse_rating(reply.text)}")
    assert isinstance(judge, Judge)


def test_statements_extract_and_verdicts(example: Example) -> None:
    result = scored(example)
    verdicts = result.responses[0].verdicts
    for statement in verdicts["faithfulness"].statements:
        assert statement.analysis is not None
        assert parse_support(statement.analysis) == statement.support
        assert_on_page(f"| {statement.text} | {statement.support} |")
    assert_on_page(verdicts["faithfulness"].statements[1].analysis or "")
    [extract] = result.extraction.extracts
    assert_on_page(f"{extract.first_percent}% - {extract.last_percent}%", extract.text or "")
    assert_on_page(verdicts["completeness"].analysis or "")
    for response in result.responses:
        scores = [verdict.score for verdict in response.verdicts.values()]
        row = " | ".join(f"{value:.2f}" for value in [*scores, response.reward] if value is not None)
        assert_on_page(f"`{response.response.id}` | {row}")


def test_pair_and_loss(example: Example) -> None:
    pair = pair_by_scores(SelectionConfig(min_scored=3), example, scored(example).responses)
    assert isinstance(pair, PreferencePair)
    assert_on_page(
        f"chosen `{pair.chosen.id}` ({pair.chosen_reward:.2f})",
        f"rejected `{pair.rejected.id}` ({pair.rejected_reward:.2f})",
        f"margin {pair.margin:.2f}",
    )
    config = TrainConfig()
    arguments = loss_arguments(config)
    assert arguments["loss_type"] == ["sigmoid"]
    chosen, chosen_tokens = log_probability(pair, pair.chosen)
    rejected, rejected_tokens = log_probability(pair, pair.rejected)
    dpo = dpo_loss(arguments["beta"] * ((chosen - chosen) - (rejected - rejected)))
    ce = -chosen / chosen_tokens
    loss = dpo + config.ce_weight * ce
    assert_on_page(
        f"log p(chosen) = {chosen:.1f} ({chosen_tokens} tokens)",
        f"log p(rejected) = {rejected:.1f} ({rejected_tokens} tokens)",
        f"L_DPO = {dpo:.3f}",
        f"L_CE = {ce:.2f}",
        f"= {dpo_loss(arguments['beta'] * 2):.3f}",
        f"L = {dpo:.3f} + {config.ce_weight} * {ce:.2f} = {loss:.2f}",
    )


def dpo_loss(margin: float) -> float:
    return -math.log(1 / (1 + math.exp(-margin)))


def log_probability(pair: PreferencePair, response: Response) -> tuple[float, int]:
    """The log-probability of a response under the tiny base model, and its number of tokens."""
    import torch

    base = ROOT / "models" / "tiny-base"
    policy = load_policy(PolicyConfig(base_model=str(base)), base)
    prompt = policy.encoder.prompt_ids(pair.context, pair.query)
    completion = policy.encoder.completion_ids(response.text)
    with torch.inference_mode():
        logits = policy.model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    values = logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])
    return float(values.sum()), len(completion)


def core_files() -> list[str]:
    """The files in the table of the core."""
    table = PAGE.partition("## The files of the core")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([\w/]+\.py)`", table, flags=re.MULTILINE)


def test_core_size_limited() -> None:
    files = core_files()
    assert len(files) == len(set(files)) >= 12
    lines = {file: len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in files}
    assert sum(lines.values()) <= MAX_CORE_LINES, lines


def test_core_does_not_import_wrappers() -> None:
    wrappers = ("adaptive", "concurrent_scoring", "score_files", "budget", "ledger", "batch", "planning", "usage")
    for file in core_files():
        if file.startswith("longreward/training/"):
            continue
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not [module for module in modules if module.split(".")[-1] in wrappers], file


def test_files_and_functions_of_page_exist() -> None:
    references = re.findall(r"`((?:longreward|docs|tests)/[\w/.-]+)`(?:[ ,]+`([A-Za-z_][\w.]*)\(?\)?`)?", PAGE)
    assert len(references) > 20
    for file, name in references:
        path = ROOT / file
        assert path.exists(), f"{file} does not exist"
        if not name or path.suffix != ".py":
            continue
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
        missing = [part for part in name.split(".") if part not in names]
        assert not missing, f"{file} has no {name}"
