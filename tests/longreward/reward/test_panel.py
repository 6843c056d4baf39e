"""Panels of judges over HTTP: three servers that differ, a judge that is down, resumption, plans, adaptive scoring."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, completion_body

from longreward.data.formats import pair_from_row, pair_to_row, scored_from_row, scored_to_row
from longreward.errors import JudgeUnavailable
from longreward.judge import JudgeConfig, open_judge
from longreward.judge.prompts import load_prompts
from longreward.judge.usage import Price, PricesConfig
from longreward.offline_judge_server import recover_slots
from longreward.pairs.member_margins import disagreement
from longreward.pairs.methods import PairConfig, pair_metrics
from longreward.pairs.outcomes import NoPair
from longreward.pairs.selection import pair_by_scores
from longreward.planning.estimate import plan_scoring
from longreward.planning.reply_stats import Range
from longreward.records import Example, PreferencePair, Response
from longreward.reward import ScoreConfig, ScoredExample, open_scorer, score_examples
from longreward.reward.panel import member_rewards
from longreward.reward.panel_agreement import PanelAgreement

pytestmark = pytest.mark.usefixtures("no_keys")

Reply = Callable[[str, Mapping[str, str]], str]
"""Returns the reply to a request, given its template and slots."""
CONFIG = ScoreConfig(evidence_chunk_tokens=12, evidence_chunks=2)
EXAMPLE = Example(
    id="1",
    document_id="d",
    context="Keld was founded by Ann Lee in 1905. The mill burned down in 1931.",
    query="Who founded Keld, and when did the mill burn down?",
)
TEXTS = (
    "Ann Lee founded Keld.",
    "Tom Ray founded Keld. The mill burned down in 1931.",
    "The mill burned down in 1866.",
)
RESPONSES = [Response(id=f"1-{n}", example_id="1", query=EXAMPLE.query, text=text) for n, text in enumerate(TEXTS)]
PROMPTS = load_prompts(statements_per_call=2)
ENGLISH = [template for (_, language), template in PROMPTS.templates.items() if language == "en"]


def scripted(ratings: Mapping[str, float], supports: Mapping[str, str]) -> Reply:
    """Reply with a rating by response, a level of support by statement, and one statement for each sentence."""

    def reply(template: str, slots: Mapping[str, str]) -> str:
        if template == "statements":
            return "".join(f"<statement>{text.strip()}.</statement>" for text in slots["answer"].split(".") if text)
        if template == "extraction":
            return "1. Ann Lee founded Keld."
        if template == "support":
            return f"[[{supports.get(slots['statement'], 'Fully supported')}]]"
        return f"[[{ratings[slots['answer']]}]]"

    return reply


FULL, PARTIAL, NONE = "Fully supported", "Partially supported", "No support"
# The third judge alone trusts Tom Ray; the judges differ in how strict they are.
JUDGES = {
    "mild": scripted(dict(zip(TEXTS, (9, 8, 6), strict=True)), {"Tom Ray founded Keld.": PARTIAL}),
    "strict": scripted(dict(zip(TEXTS, (6, 3, 1), strict=True)), {"Tom Ray founded Keld.": NONE}),
    "odd": scripted(
        dict(zip(TEXTS, (3, 10, 5), strict=True)),
        {"The mill burned down in 1931.": PARTIAL, "The mill burned down in 1866.": NONE},
    ),
}


@dataclass
class Server:
    """A served judge, the templates of its requests, and whether it answers."""

    chat: ChatServer
    templates: Counter[str] = field(default_factory=Counter)
    is_down: bool = False


@contextmanager
def served(serve_chat: Any, name: str, judge: Reply) -> Iterator[Server]:
    servers: list[Server] = []

    def handle(body: dict[str, Any]) -> tuple[int, Any]:
        server = servers[0]
        if server.is_down:
            return 503, {"error": {"message": f"{name} is down"}}
        text = body["messages"][-1]["content"]
        for template in sorted(ENGLISH, key=lambda template: -len("".join(template.pieces[::2]))):
            slots = recover_slots(template.pieces, text)
            if slots is not None:
                server.templates[template.name] += 1
                return 200, completion_body(judge(template.name, slots))
        raise AssertionError(text[:200])

    with serve_chat(handle) as chat:
        servers.append(Server(chat))
        yield servers[0]


@pytest.fixture
def servers(serve_chat: Any) -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(served(serve_chat, name, judge)) for name, judge in JUDGES.items()}


def panel(servers: Mapping[str, Server], *names: str, **settings: Any) -> JudgeConfig:
    """Configure the panel of these judges, the first one first."""
    first, *others = [
        {"kind": "http", "model": name, "base_url": servers[name].chat.url, "max_retries": 0, "max_attempts": 1}
        for name in names
    ]
    return JudgeConfig.parse({**first, "panel": others, **settings}, source="params.yaml")


def score(judge: JudgeConfig, config: ScoreConfig = CONFIG, *, ledger: Path | None = None) -> ScoredExample:
    async def scoring() -> ScoredExample:
        async with open_judge(judge, ledger=ledger) as opened, open_scorer(config) as scorer:
            (scored,) = [example async for example in score_examples(opened, scorer, [(EXAMPLE, RESPONSES)])]
            return scored

    return asyncio.run(scoring())


def test_ratings_are_reduced_and_support_is_the_majority(servers: dict[str, Server]) -> None:
    mean = score(panel(servers, "mild", "strict", "odd"))
    median = score(panel(servers, "mild", "strict", "odd", reducer="median"))

    assert [scored.verdicts["helpfulness"].score for scored in mean.responses] == [6, 7, 4]
    assert [scored.verdicts["completeness"].score for scored in median.responses] == [6, 8, 5]
    verdict = mean.responses[1].verdicts["faithfulness"]
    assert [(statement.text, statement.votes, statement.support) for statement in verdict.statements] == [
        ("Tom Ray founded Keld.", {"mild": 0.5, "strict": 0.0, "odd": 1.0}, 0.5),  # a tie of all: the middle level
        ("The mill burned down in 1931.", {"mild": 1.0, "strict": 1.0, "odd": 0.5}, 1.0),
    ]
    assert verdict.score == 7.5
    assert [(member.judge, member.score) for member in verdict.members] == [("mild", 7.5), ("strict", 5), ("odd", 7.5)]
    # The first judge lists the statements, one call more than the other two.
    assert [(member.calls, member.prompt_tokens) for member in verdict.members] == [(3, 300), (2, 200), (2, 200)]
    assert (verdict.calls, verdict.judge) == (7, "mild + strict + odd")
    assert mean.responses[0].verdicts["helpfulness"].analysis == "mild:\n[[9]]\n\nstrict:\n[[6]]\n\nodd:\n[[3]]"


def test_of_two_judges_the_lower_level_of_support_counts(servers: dict[str, Server]) -> None:
    scored = score(panel(servers, "strict", "odd"))
    assert scored.responses[1].verdicts["faithfulness"].statements[0].support == 0.0


def test_each_judge_verifies_several_statements_with_one_request(serve_chat: Any) -> None:
    def with_lists(name: str, levels: str) -> Reply:
        return lambda template, slots: levels if template == "support_list" else JUDGES[name](template, slots)

    with (
        served(serve_chat, "mild", with_lists("mild", "1. [[Fully supported]]\n2. [[No support]]")) as mild,
        served(serve_chat, "strict", with_lists("strict", "1. [[No support]]")) as strict,
    ):
        judge = panel({"mild": mild, "strict": strict}, "mild", "strict")
        scored = score(judge, CONFIG.model_copy(update={"statements_per_call": 2}))
    verdict = scored.responses[1].verdicts["faithfulness"]
    # The strict judge skips the second statement, so both rate it alone; the other one has its level in the list.
    assert [(statement.votes, statement.support) for statement in verdict.statements] == [
        ({"mild": 1.0, "strict": 0.0}, 0.0),
        ({"mild": 1.0, "strict": 1.0}, 1.0),
    ]
    assert [(member.score, member.calls) for member in verdict.members] == [(10, 3), (5, 2)]
    assert mild.templates["support_list"] == strict.templates["support_list"] == 1


def test_first_judge_alone_lists_statements_and_extracts(servers: dict[str, Server]) -> None:
    score(panel(servers, "mild", "strict"))
    # Three responses, four statements of which two are equal.
    ratings = {"helpfulness": 3, "logicality": 3, "completeness": 3, "support": 4}
    assert servers["mild"].templates == {**ratings, "statements": 3, "extraction": 1}
    assert servers["strict"].templates == ratings


def test_dimension_has_a_panel_of_its_own(servers: dict[str, Server]) -> None:
    odd = {"kind": "http", "model": "odd", "base_url": servers["odd"].chat.url}
    judge = panel(servers, "mild", "strict", dimensions={"faithfulness": odd, "logicality": {"panel": []}})
    scored = score(judge)

    judges = {name: verdict.judge for name, verdict in scored.responses[0].verdicts.items()}
    assert judges == {
        "helpfulness": "mild + strict",
        "logicality": "mild",
        "faithfulness": "odd + strict",
        "completeness": "mild + strict",
    }
    assert servers["odd"].templates == {"statements": 3, "support": 4}
    assert scored.responses[0].verdicts["logicality"].members == ()
    # In logicality, which one judge rates, its score counts for both; mild does not rate faithfulness.
    first = scored.responses[0]
    assert member_rewards(first) == {"mild": (9 + 9 + 10 + 9) / 4, "strict": (6 + 9 + 10 + 6) / 4, "odd": 8.5}


def test_run_stops_for_a_judge_that_is_down_and_continues_with_its_requests_alone(
    servers: dict[str, Server], tmp_path: Path
) -> None:
    judge, ledger = panel(servers, "mild", "strict"), tmp_path / "ledger.sqlite"
    servers["strict"].is_down = True
    with pytest.raises(JudgeUnavailable, match="strict is down"):
        score(judge, ledger=ledger)
    with closing(sqlite3.connect(ledger)) as database:
        (recorded,) = database.execute("SELECT count(*) FROM exchanges").fetchone()
    for server in servers.values():
        server.templates.clear()
    servers["strict"].is_down = False
    resumed = score(judge, ledger=ledger)
    requests = {name: server.templates.total() for name, server in servers.items()}

    # Replies on the way to the process when the run stopped were not recorded; those of the ledger are not repeated.
    assert requests == {"mild": 17 - recorded, "strict": 13, "odd": 0}
    assert resumed == score(judge)


def test_unreadable_reply_of_one_judge_leaves_the_dimension_unscored_with_its_name(serve_chat: Any) -> None:
    def unreadable(template: str, slots: Mapping[str, str]) -> str:
        reply = JUDGES["strict"](template, slots)
        return "I decline." if template == "logicality" and "Tom Ray" in slots["answer"] else reply

    with (
        served(serve_chat, "mild", JUDGES["mild"]) as mild,
        served(serve_chat, "strict", unreadable) as strict,
    ):
        scored = score(panel({"mild": mild, "strict": strict}, "mild", "strict"))
    first, second, _ = scored.responses
    verdict = second.verdicts["logicality"]
    assert first.complete
    assert (verdict.score, second.reward) == (None, None)
    assert (verdict.reason or "").startswith("strict: no readable answer in 1 attempts")
    assert [member.score for member in verdict.members] == [8, None]
    assert member_rewards(second).keys() == {"mild"}


def test_score_files_keep_members_and_votes(servers: dict[str, Server]) -> None:
    scored = score(panel(servers, "mild", "strict"))
    response = scored.responses[1]
    row = scored_to_row(response, scored.extraction)

    assert scored_from_row(row) == response
    assert row["details"]["helpfulness"]["members"][1] == {
        "judge": "strict",
        "calls": 1,
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "score": 3.0,
    }
    assert row["details"]["faithfulness"]["details"][0]["votes"] == {"mild": 0.5, "strict": 0.0}


def test_one_judge_leaves_no_trace_of_panels_in_files(servers: dict[str, Server]) -> None:
    scored = score(panel(servers, "mild"))
    row = scored_to_row(scored.responses[1], scored.extraction)
    assert "members" not in str(row)
    assert "votes" not in str(row)
    assert row["details"]["helpfulness"]["judge"] == "mild"
    assert row["details"]["helpfulness"]["analysis"] == "[[8]]"


def test_adaptive_pair_is_that_of_full_scoring(servers: dict[str, Server]) -> None:
    judge = panel(servers, "mild", "strict", "odd")
    config = PairConfig(min_scored=2)
    full = pair_by_scores(config, EXAMPLE, score(judge).responses)
    adaptive_config = CONFIG.model_copy(update={"strategy": "adaptive"})
    adaptive = pair_by_scores(config, EXAMPLE, score(judge, adaptive_config).responses)
    assert adaptive == full


def test_plan_counts_every_judge_at_its_own_price(servers: dict[str, Server], tmp_path: Path) -> None:
    judge, ledger = panel(servers, "mild", "strict"), tmp_path / "ledger.sqlite"
    prices = PricesConfig(models={"mild": Price(prompt=1.0), "strict": Price(prompt=3.0)})

    def plan() -> Any:
        items = [(EXAMPLE, RESPONSES)]
        return asyncio.run(plan_scoring("score", judge, CONFIG, prices, items, ledger=ledger))

    planned = plan()
    calls = {template: requests.calls.expected for template, requests in planned.templates.items()}
    assert calls == {
        "helpfulness": 6,
        "logicality": 6,
        "statements": 3,
        "support": 8,
        "extraction": 1,
        "completeness": 6,
    }
    rating = planned.templates["helpfulness"]
    # Half of the tokens at each price.
    assert rating.money.expected == pytest.approx(rating.prompt_tokens.expected * (1.0 + 3.0) / 2 / 1e6)
    score(judge, ledger=ledger)
    planned = plan()
    assert planned.total.calls == Range()
    assert planned.total.cached == 17 + 13


def test_agreement_over_several_prompts(servers: dict[str, Server]) -> None:
    scored = score(panel(servers, "mild", "strict"))
    agreement = PanelAgreement()
    for prompt in ("1", "2"):
        for response in scored.responses:
            renamed = response.response.model_copy(update={"example_id": prompt})
            agreement.add(response.model_copy(update={"response": renamed}))
    alphas, metrics = agreement.alphas(), agreement.metrics()

    assert list(alphas) == ["helpfulness", "logicality", "faithfulness", "support", "completeness", "reward"]
    # Both prompts have the ratings 9 and 6, 8 and 3, 6 and 1. Observed: the mean of 9, 25 and 25. Expected: twice the
    # variance of the twelve values, whose squared distances from their mean 5.5 add up to 91.
    assert alphas["helpfulness"].value == pytest.approx(1 - (59 / 3) / (2 * 91 / 11))
    # Eight units, of which two (0.5 and 0) differ: 2/8 observed; of 16 values 12 are 1, two 0.5 and two 0.
    assert alphas["support"].value == pytest.approx(1 - (2 / 8) / ((2 * 12 * 4 + 2 * 2 * 2) / (16 * 15)))
    assert metrics["panel/alpha/support/low"] <= metrics["panel/alpha/support"] <= metrics["panel/alpha/support/high"]
    assert (metrics["panel/mean/mild/helpfulness"], metrics["panel/mean/strict/helpfulness"]) == (23 / 3, 10 / 3)


def test_one_judge_has_no_agreement(servers: dict[str, Server]) -> None:
    agreement = PanelAgreement()
    for scored in score(panel(servers, "mild")).responses:
        agreement.add(scored)
    assert agreement.metrics() == {}


def test_pair_has_the_margin_of_each_judge_and_may_be_disputed(servers: dict[str, Server]) -> None:
    responses = score(panel(servers, "mild", "strict", "odd")).responses

    def make_pair(**settings: Any) -> Any:
        return pair_by_scores(PairConfig(min_scored=2, **settings), EXAMPLE, responses)

    pair = make_pair()
    # Three ratings and the faithfulness: 7, 7, 7 and 7.5 against 4, 4, 4 and 10.
    assert (pair.chosen.id, pair.rejected.id, pair.margin) == ("1-1", "1-2", 7.125 - 5.5)
    assert pair.member_margins == {"mild": 7.875 - 7, "strict": 3.5 - 3.25, "odd": 9.375 - 3.75}
    assert (disagreement(pair), pair.disputed) == (5.375, True)
    assert not make_pair(max_disagreement=5.375).disputed
    assert make_pair(disputed="exclude") == NoPair("1", "judges disagree", 3, 3, 1.625)
    assert make_pair(disputed="exclude", max_disagreement=6) == make_pair(max_disagreement=6)
    metrics = pair_metrics([pair, make_pair(disputed="exclude")])
    assert {name: value for name, value in metrics.items() if "panel" in name or "judges" in name} == {
        "panel/disagreement_mean": 5.375,
        "panel/disputed": 1,
        "panel/reversed": 0,
        "without_pair/judges_disagree": 1,
    }
    assert pair_from_row(pair_to_row(pair)) == pair


def test_pair_of_one_judge_has_no_field_of_panels(servers: dict[str, Server]) -> None:
    pair = pair_by_scores(PairConfig(min_scored=2), EXAMPLE, score(panel(servers, "odd")).responses)
    assert isinstance(pair, PreferencePair)
    assert not {"member_margins", "disputed"} & pair_to_row(pair).keys()
