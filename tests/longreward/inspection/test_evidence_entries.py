"""What the evidence page holds, without a browser."""

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from inspected_records import CONTEXT, birthplace_records, evidence_page, plain_records, scored_response

from longreward.benchmarks.longbench_chat import LongBenchChat
from longreward.benchmarks.types import Answer, Verdict
from longreward.inspection.comparison_entries import (
    benchmark_entries,
    evaluation_entries,
    rank_by_reward_difference,
    sorted_by_difference,
)
from longreward.inspection.entries import DocumentSpans, judge_costs
from longreward.inspection.reward_entries import PromptRecords, reward_entry
from longreward.judge.usage import PricesConfig
from longreward.records import Evidence, Example, PreferencePair, Response, Statement

FREE = judge_costs(PricesConfig())


def blocks(html: str) -> dict[str, Any]:
    found = re.findall(r'<script id="(\w+)" type="application/octet-stream">([A-Za-z0-9+/=]*)</script>', html)
    return {name: json.loads(gzip.decompress(base64.b64decode(text))) for name, text in found}


def test_responses_are_ranked_and_the_pair_is_side_by_side() -> None:
    entry = reward_entry(birthplace_records(), FREE)
    assert [response.id for response in entry.responses] == ["11-0", "11-2", "11-1"]  # 9.75, 6.5, 3.75
    assert (entry.left, entry.right, entry.margin, entry.is_pair) == ("11-0", "11-1", 6.0, True)
    statement = entry.responses[0].dimensions[2].statements[1]
    assert [CONTEXT[start:end] for start, end in statement.evidence] == ["She studied botany in Tarn."]


def test_ranking_uses_the_weights_of_the_pairs() -> None:
    weights = {"helpfulness": 0.0, "logicality": 1.0, "faithfulness": 1.0, "completeness": 0.0}
    entry = reward_entry(birthplace_records(), FREE, weights=weights)  # type: ignore[arg-type]
    assert [(response.id, response.value) for response in entry.responses] == [
        ("11-0", 10.0),
        ("11-2", 10.0),
        ("11-1", 4.0),
    ]


def test_cost_is_tokens_times_price_and_unknown_without_a_price() -> None:
    prices = PricesConfig.model_validate({"models": {"judge-1": {"prompt": 1000.0, "completion": 2000.0}}})
    priced = reward_entry(birthplace_records(), judge_costs(prices)).responses[0].dimensions[0]
    assert priced.cost == pytest.approx((500 * 1000 + 50 * 2000) / 1e6)
    assert reward_entry(birthplace_records(), FREE).responses[0].dimensions[0].cost is None


def test_unscored_responses_come_last_with_their_reason() -> None:
    entry = reward_entry(plain_records("3", "Who was Bo?", margin=None, unscored=True), FREE)
    assert [response.value for response in entry.responses] == [2.0, None]
    assert entry.index_row()["unscored"] == ["completeness: no rating in 5 replies"]
    assert entry.no_pair == "best and worst tie"
    assert not entry.is_pair


def test_sampled_responses_and_a_reference_answer_are_shown_without_scores() -> None:
    example = Example(id="4", document_id="4", context="Rain fell.", query="What fell?", answer="Rain.")
    sampled = [Response(id=f"4-{n}", example_id="4", query="What fell?", text=text) for n, text in enumerate("ab")]
    answer = Response(id="4-answer", example_id="4", query="What fell?", text="Rain.")
    pair = PreferencePair(
        id="4",
        context="Rain fell.",
        query="What fell?",
        chosen=answer,
        rejected=sampled[1],
        chosen_reward=None,
        rejected_reward=-1.5,
        method="srm",
    )
    entry = reward_entry(PromptRecords(example, responses=sampled, pair=pair), FREE)
    assert {response.id: response.measures for response in entry.responses} == {
        "4-0": {},
        "4-1": {"reward of srm": -1.5},
        "4-answer": {},
    }
    assert {response.id: response.label for response in entry.responses} == {
        "4-0": "#0",
        "4-1": "#1",
        "4-answer": "answer",
    }
    assert (entry.left, entry.right, entry.margin) == ("4-answer", "4-1", None)


def test_spans_count_utf16_code_units() -> None:
    spans = DocumentSpans("a😀b😀c")
    assert spans.span(0, 1) == (0, 1)
    assert spans.span(2, 3) == (3, 4)  # b, after one character of two code units
    assert spans.evidence(Evidence(start=4, end=5, text="c")) == (6, 7)


def test_evidence_without_offsets_is_searched_and_otherwise_quoted() -> None:
    spans = DocumentSpans("Rain fell. Snow fell.")
    assert spans.evidence(Evidence(start=0, end=0, text="Snow fell.")) == (11, 21)
    assert spans.evidence(Evidence(start=0, end=0, text="Hail fell.")) is None
    example = Example(id="5", document_id="5", context="Rain fell.", query="What fell?")
    statement = Statement(text="Hail.", support=0.0, evidence=(Evidence(start=0, end=0, text="Hail fell."),))
    scored = scored_response(example, 0, "Hail.", (1, 1, 1, 1), [statement])
    entry = reward_entry(PromptRecords(example, [scored]), FREE).responses[0].dimensions[2].statements[0]
    assert (entry.evidence, entry.quotes) == ((), ("Hail fell.",))


def test_equal_documents_are_stored_once() -> None:
    html = evidence_page([birthplace_records("1"), birthplace_records("2"), birthplace_records("3")]).render()
    assert [value for name, value in blocks(html).items() if name.startswith("d")] == [CONTEXT]


def test_texts_are_only_in_compressed_blocks() -> None:
    hostile = "</script><script>alert(1)</script>"
    html = evidence_page([plain_records(hostile, hostile, margin=1.0)], title=hostile).render()
    assert "alert(1)" not in html.replace("&lt;script&gt;alert(1)", "")  # the title, escaped by the template
    assert blocks(html)["index"]["collections"][0]["rows"][0]["id"] == hostile


def test_policy_allows_the_page_s_own_script_and_style_by_hash() -> None:
    html = evidence_page([birthplace_records()]).render()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; ")
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy[1]


def test_lone_surrogates_survive() -> None:
    html = evidence_page([plain_records("6", "Half of a pair: \ud83d.", margin=1.0)]).render()
    assert blocks(html)["index"]["collections"][0]["rows"][0]["query"] == "Half of a pair: \ud83d."


def test_repeated_keys_are_an_error() -> None:
    with pytest.raises(ValueError, match="two entries have the key '1'"):
        evidence_page([birthplace_records("1"), birthplace_records("1")])


def test_evaluation_has_sft_next_to_dpo_and_largest_differences_first() -> None:
    examples = {
        name: Example(id=name, document_id=name, context="Rain fell.", query="What fell?") for name in ("1", "2")
    }
    scores = {("1", "sft"): 8.0, ("1", "dpo"): 7.0, ("2", "sft"): 2.0, ("2", "dpo"): 9.0}
    answers = [
        (role, "greedy", scored_response(examples[name], 0, f"{role} {name}", (score,) * 4))
        for (name, role), score in scores.items()
    ]
    measures = {("dpo", "greedy", "2-0"): {"recall": 0.5, "reward": 9.0}}
    entries = list(evaluation_entries(examples, answers, {}, measures, FREE))  # type: ignore[arg-type]
    assert [(entry.key, entry.margin) for entry in entries] == [
        ("evaluation/2@greedy", 7.0),
        ("evaluation/1@greedy", -1.0),
    ]
    assert [(response.label, response.text) for response in entries[0].responses] == [
        ("SFT", "sft 2"),
        ("DPO", "dpo 2"),
    ]
    assert entries[0].responses[1].measures == {"recall": 0.5}  # the reward is shown as such
    rewards = [(role, decoding, answer.response.example_id, answer.reward) for role, decoding, answer in answers]
    unscored = [("sft", "greedy", "3", None), ("dpo", "greedy", "3", 9.0)]
    assert rank_by_reward_difference([*unscored, *rewards]) == [("greedy", "2"), ("greedy", "1"), ("greedy", "3")]  # type: ignore[list-item]
    assert sorted_by_difference(reversed(entries), limit=1) == entries[:1]


def test_benchmark_answers_have_their_verdicts_and_scores() -> None:
    benchmark = LongBenchChat()
    case = benchmark.cases[0]

    def answer(text: str) -> Answer:
        return Answer(case.id, (text,), (3,), ("stop",), (100,), prompt_truncated=False, created=0.0)

    def verdict(value: float | None) -> Verdict:
        reason = None if value is not None else "no rating"
        return Verdict(case.id, "rating", "longbench_chat", "", "prompt", f"[[{value}]]", value, reason, judge="j")

    (entry,) = benchmark_entries(
        benchmark,  # type: ignore[arg-type]
        {"sft": [answer("one")], "dpo": [answer("two")]},
        {"sft": [verdict(4.0)], "dpo": [verdict(9.0)]},
    )
    assert (entry.query, entry.key) == (case.query, f"longbench_chat/{case.id}")
    assert entry.document is not None
    assert case.prompt.startswith(entry.document)
    assert entry.margin is not None
    assert entry.margin > 0
    assert [response.dimensions[0].reply for response in entry.responses] == ["[[4.0]]", "[[9.0]]"]


def test_page_is_written_as_one_file(tmp_path: Path) -> None:
    page = evidence_page([birthplace_records()])
    page.write(tmp_path / "folder" / "evidence.html")
    assert (tmp_path / "folder" / "evidence.html").read_text(encoding="utf-8") == page.render()
