"""Plans before the first call, compared with the calls that scoring makes."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from longreward.judge import JudgeConfig, open_judge
from longreward.judge.prompts import load_prompts
from longreward.judge.usage import Price, PricesConfig
from longreward.planning.estimate import StagePlan, plan_scoring
from longreward.planning.render import format_count, format_money, format_seconds
from longreward.planning.reply_stats import Range, count_sentences
from longreward.planning.workload import placeholder_text
from longreward.records import Example, Response, RubricItem
from longreward.reward import ScoreConfig, open_scorer, score_examples
from longreward.utils.token_spans import SimpleTokenizer

TOKENS = SimpleTokenizer()
CONFIG = ScoreConfig(extraction_chunk_tokens=8, evidence_chunk_tokens=4, evidence_chunks=2)
PRICES = PricesConfig(models={"m": Price(prompt=2.0, completion=10.0)})
PRICED = JudgeConfig(kind="http", base_url="http://127.0.0.1:9/v1", model="m")


def example(name: str, context: str, query: str, *answers: str) -> tuple[Example, list[Response]]:
    responses = [Response(id=f"{name}-{n}", example_id=name, query=query, text=text) for n, text in enumerate(answers)]
    return Example(id=name, document_id=name, context=context, query=query), responses


ONE = Range(1, 1, 1)
# 11 and 6 tokens: two parts of 8 and one. Three and two responses, of which two are equal.
KELD = example(
    "keld",
    "Keld was founded in 1905 by Ann Lee. It lies there.",
    "Who founded Keld?",
    "Ann Lee did. It was in 1905.",
    "Ann Lee did. It was in 1905.",
    "Nobody knows.",
)
MILL = example("mill", "The mill burnt in 1931.", "When did it burn?", "In 1931.", "In 1932. It was dry. So it was.")


def plan(
    items: Sequence[tuple[Example, Sequence[Response]]], judge: JudgeConfig, ledger: Path | None = None, **options: Any
) -> StagePlan:
    return asyncio.run(plan_scoring("score", judge, CONFIG, PRICES, items, ledger=ledger, **options))


def calls(planned: StagePlan) -> dict[str, Range]:
    return {template: requests.calls for template, requests in planned.templates.items()}


def count(text: str) -> int:
    return len(TOKENS.spans(text))


def test_plan_of_two_tiny_documents() -> None:
    planned = plan([KELD, MILL], PRICED)
    four = Range(4, 4, 4)  # distinct responses: two and two
    assert calls(planned) == {
        "helpfulness": four,
        "logicality": four,
        "statements": four,
        "support": Range(3.5, 7, 14),  # sentences: 2 + 1 + 1 + 3; half to two statements in each
        "extraction": Range(3, 3, 3),  # parts: two and one
        "completeness": four,
    }
    assert (planned.prompts, planned.responses, planned.complete_prompts) == (2, 5, 0)


def test_plan_of_optional_dimensions() -> None:
    config = CONFIG.model_copy(update={"optional_dimensions": ("rubric", "citations")})
    keld, responses = example(
        "keld", "[1] Keld was founded in 1905.\n[2] Ann Lee did it.\n", "When?", "In 1905 [1] [2]. It was so.", "Never."
    )
    given = keld.model_copy(update={"rubric": (RubricItem(text="In 1905."),)})

    def optional_calls(one: Example) -> dict[str, Range]:
        planned = asyncio.run(plan_scoring("score", PRICED, config, PRICES, [(one, responses)], ledger=None))
        return {name: value for name, value in calls(planned).items() if name.startswith(("rubric", "citation"))}

    # Only the first response cites: a statement with two citations, and one without.
    citations = {"citation_support": ONE, "citation_relevance": Range(2, 2, 2), "citation_need": ONE}
    assert optional_calls(given) == {"rubric_check": Range(2, 2, 2), **citations}
    assert optional_calls(keld) == {"rubric": ONE, "rubric_check": Range(2, 2, 2), **citations}


def test_prompt_tokens_equal_filled_prompts() -> None:
    planned = plan([MILL], PRICED)
    example_, responses = MILL
    template = load_prompts().template("helpfulness", "en")
    prompts = [template.request({"question": example_.query, "answer": response.text}).text for response in responses]
    assert planned.templates["helpfulness"].prompt_tokens == Range.exactly(sum(count(text) for text in prompts))


def test_money_is_tokens_times_price() -> None:
    line = plan([MILL], PRICED).templates["helpfulness"]
    # Two calls with answers of 60, 150 or 400 tokens; 2 and 10 a million.
    prompt = line.prompt_tokens.expected * 2 / 1e6
    assert line.money is not None
    assert [line.money.low, line.money.expected, line.money.high] == pytest.approx(
        [prompt + 0.0012, prompt + 0.003, prompt + 0.008]
    )
    unpriced = plan([MILL], JudgeConfig(kind="http", base_url="http://127.0.0.1:9/v1", model="other"))
    assert unpriced.total.money is None
    assert "forecast/money" not in unpriced.metrics()
    assert format_money(unpriced.total.money) == "?"


def test_plan_equals_calls_of_scoring_if_statements_cached(tmp_path: Path) -> None:
    ledger, copy = tmp_path / "ledger.sqlite", tmp_path / "statements.sqlite"
    items = _corpus()
    calls_made = asyncio.run(_score(items, ledger))
    _copy_with_statements_and_extracts(ledger, copy)
    planned = plan(items, JudgeConfig(), copy)
    assert planned.total.calls.is_exact
    remaining = calls_made - planned.total.cached
    assert planned.total.calls.expected == remaining
    assert asyncio.run(_score(items, copy)) == remaining

    done = plan(items, JudgeConfig(), copy)
    assert done.total.calls == Range.exactly(0)
    assert done.complete_prompts == len(items)
    assert done.total.cached == calls_made


def test_adaptive_scoring_has_range_and_complete_prompts_need_no_calls(tmp_path: Path) -> None:
    ledger, pruned = tmp_path / "ledger.sqlite", CONFIG.model_copy(update={"strategy": "adaptive"})
    items = _corpus()

    def planned() -> StagePlan:
        return asyncio.run(plan_scoring("score", JudgeConfig(), pruned, PRICES, items, ledger=ledger))

    before = calls(planned())["statements"]
    assert before == Range(24 * 2 / 4, 24, 24)  # three distinct responses of four, and at the least two of four
    calls_made = asyncio.run(_score(items, ledger, pruned))
    after = planned()
    assert (after.complete_prompts, after.total.calls) == (8, Range.exactly(0))
    assert after.total.cached == calls_made


def test_plan_writes_nothing_and_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZHIPUAI_API_KEY", raising=False)
    planned = plan([MILL], JudgeConfig(kind="zhipu", model="glm-4-0520"), tmp_path / "ledger.sqlite")
    assert planned.total.calls.expected > 0
    assert list(tmp_path.iterdir()) == []


def test_sample_of_prompts_scaled_up() -> None:
    planned = plan([MILL], PRICED, total_prompts=50)
    assert (planned.prompts, planned.responses, planned.counted_prompts) == (50, 100, 1)
    assert calls(planned)["statements"] == Range.exactly(100)


def test_duration_is_longest_of_concurrency_and_rate_limits() -> None:
    items = [MILL]
    n = plan(items, PRICED).total.calls.expected
    limited = PRICED.model_copy(update={"requests_per_minute": 1})
    assert plan(items, limited).seconds.expected == pytest.approx(60 * n)
    alone, both = (plan(items, PRICED.model_copy(update={"max_concurrency": c})).seconds.expected for c in (1, 2))
    assert alone == pytest.approx(2 * both)


def test_estimates_use_earlier_replies_of_judge(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    asyncio.run(_score(_corpus(), ledger))  # the offline judge lists at least twenty responses' statements
    planned = plan([KELD], JudgeConfig(), ledger)
    assert planned.observed_replies["statements"] >= 20
    support = calls(planned)["support"]
    assert support != Range(1.5, 3, 6)  # a statement a sentence, half to two
    assert support.low <= support.expected <= support.high


def test_plan_makes_no_embedding_calls(tmp_path: Path) -> None:
    config = CONFIG.model_validate(
        CONFIG.model_dump()
        | {"retriever": {"kind": "http", "model": "e", "base_url": "http://127.0.0.1:9/v1", "max_retries": 0}}
    )
    ledger = tmp_path / "ledger.sqlite"
    asyncio.run(_score([KELD], ledger))
    planned = asyncio.run(plan_scoring("score", JudgeConfig(), config, PRICES, [KELD], ledger=ledger))
    assert planned.templates


@pytest.mark.parametrize(
    ("text", "expected"), [("One. Two! Three?", 3), ("桥建于1912年。它很长。", 2), ("- a\n- b", 2), ("", 0)]
)
def test_count_sentences(text: str, expected: int) -> None:
    assert count_sentences(text) == expected


def test_placeholders_have_requested_length_and_differ() -> None:
    assert 190 < count(placeholder_text(3, 200, "Who?")) < 210
    assert 190 < count(placeholder_text(3, 200, "这座桥是什么时候建的？")) < 210
    assert placeholder_text(1, 200, "Who?") != placeholder_text(2, 200, "Who?")


def test_numbers_formatted_with_range() -> None:
    assert format_count(Range.exactly(1200)) == "1,200"
    assert format_count(Range(600, 1200, 2_400_000)) == "1,200\n600–2.4M"
    assert format_money(Range(0.5, 1, 2)) == "1.00\n0.50–2.00"
    assert format_seconds(Range(1800, 3600, 7200)) == "1.0 hours (0.5 to 2.0)"


def _corpus() -> list[tuple[Example, list[Response]]]:
    items = []
    for n in range(8):
        context = f"Town {n} was founded in 19{n:02}. Its mayor was Ben Hale. The bridge of town {n} opened in 1950."
        answers = (
            f"Town {n} was founded in 19{n:02}.",
            f"Ben Hale. He led town {n}.",
            "It opened in 1951. Not before.",
        )
        items.append(example(f"t{n}", context, f"What is known of town {n}?", *answers, answers[0]))
    return items


async def _score(
    items: Sequence[tuple[Example, Sequence[Response]]], ledger: Path, config: ScoreConfig = CONFIG
) -> float:
    """Score the items; return the number of calls."""
    async with open_judge(JudgeConfig(), ledger=ledger) as judge:
        async for _ in score_examples(judge, open_scorer(config), items):
            pass
        return judge.metrics()["calls"]


def _copy_with_statements_and_extracts(ledger: Path, copy: Path) -> None:
    """Copy the ledger of a run that was stopped before the second step."""
    import shutil
    import sqlite3

    with sqlite3.connect(ledger) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    shutil.copy(ledger, copy)
    with sqlite3.connect(copy) as connection:
        connection.execute("DELETE FROM exchanges WHERE template NOT IN ('statements', 'extraction')")
    connection.close()


def test_command_plans_project_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from longreward.flows.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LONGREWARD_STATE", raising=False)
    raw = Path("data/raw")
    raw.mkdir(parents=True)
    rows = [
        {"idx": f"{n}", "query": f"When was town {n} founded?", "context": f"Town {n} was founded in 19{n:02}."}
        for n in range(20)
    ]
    (raw / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("params.yaml").write_text(
        "prepare: {source: data/raw/questions.jsonl, preference_share: 0.5, heldout_share: 0.3}\n"
        "sample: {n: 5, max_new_tokens: 88}\n"
        "evaluate: {temperatures: [1.0, 0.0], samples: 2}\n"
    )
    assert main(["plan", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["stages"]
    score, evaluate = planned["score"], planned["evaluate"]
    assert score["responses"] == 5 * score["prompts"] > 0
    assert evaluate["responses"] == 6 * evaluate["prompts"] > 0  # two models, 2 + 1 answers each
    assert score["templates"]["statements"]["calls"]["expected"] == score["responses"]
    # Half of 88 tokens are two sentences, each with half to two statements.
    assert score["templates"]["support"]["calls"] == {
        "low": 1.0 * score["responses"],
        "expected": 2.0 * score["responses"],
        "high": 4.0 * score["responses"],
    }
    assert main(["plan", "--response-tokens", "88"]) == 0
    assert "5 responses each, assumed to have 88 tokens" in " ".join(capsys.readouterr().out.split())

    monkeypatch.setenv("COLUMNS", "100")
    assert main(["plan", "--sample", "2"]) == 0
    title = capsys.readouterr().out.splitlines()[0]
    assert title.startswith("score: 9 prompts, counted on 2 of them, 45 responses, about ")
    assert title.endswith(")")  # in one line, although the table is narrower

    (tmp_path / "sampled.jsonl").write_text(
        json.dumps({"idx": "3-0", "query": rows[3]["query"], "answer": "1903."}) + "\n"
    )
    assert main(["plan", "--data", "data/raw/questions.jsonl", "--responses", "sampled.jsonl"]) == 0
    output = capsys.readouterr().out
    assert "score: 1 prompt, 1 response," in output
    assert "faithfulness: statements" in output
