"""Citation precision and recall: parsing of both formats, the measure, the whole dimension with a real judge object."""

import pytest

from longreward import LongReward
from longreward.chat_model import ChatReply, ChatRequest
from longreward.records import Evidence, Statement, Verdict
from longreward.reward import ScoreConfig
from longreward.reward.citations import (
    CitedStatement,
    Passages,
    find_passages,
    measure_citations,
    parse_citations,
    strip_citations,
)

LONGCITE = "<C0>Keld lies on the Osten. <C1>Ann Lee founded Keld in 1905. <C2>A mill followed. <C3>The bridge is old."
LINES = "[1] Keld lies on the Osten.\n[2] Ann Lee founded Keld in 1905.\n[3] A mill followed.\n"
CONFIG = ScoreConfig(optional_dimensions=("citations",))
QUERY = "Who founded Keld?"


def cited_texts(response: str, document: str) -> list[tuple[str, list[str]]]:
    passages = find_passages(document)
    assert passages is not None
    return [
        (statement.text, [document[start:end] for start, end in statement.citations])
        for statement in parse_citations(response, passages)
    ]


def test_passages_are_numbered_by_markers_or_lines() -> None:
    assert find_passages("<C0>One. <C1>Two.") == Passages(0, ((4, 9), (13, 17)))
    assert find_passages("Head\n[1] One.\n[2] Two.") == Passages(1, ((9, 14), (18, 22)))
    assert find_passages("Keld was founded in 1905 [3].") is None
    # A number out of order is text.
    assert find_passages("<C0>One <C7> two. <C1>Three.") == Passages(0, ((4, 18), (22, 28)))


@pytest.mark.parametrize(
    ("cite", "cited"),
    [
        ("[1-1]", ["Ann Lee founded Keld in 1905. "]),
        ("[1-1][3-3]", ["Ann Lee founded Keld in 1905. ", "The bridge is old."]),
        ("[1-1][2-2]", ["Ann Lee founded Keld in 1905. <C2>A mill followed. "]),  # adjacent: one citation
        ("[2-9]", ["A mill followed. <C3>The bridge is old."]),
        ("[4-4]", []),  # does not exist
        ("[2-1]", []),
        ("[0-0][2-2][0-0][2-2]", ["Keld lies on the Osten. ", "A mill followed. ", "Keld lies on the Osten. "]),
        ("[1]", []),  # no range, as LongCite's code has it
        ("", []),
    ],
)
def test_longcite_ranges(cite: str, cited: list[str]) -> None:
    response = f"<statement>Ann Lee did.<cite>{cite}</cite></statement>"
    assert cited_texts(response, LONGCITE) == [("Ann Lee did.", cited)]


def test_text_outside_of_statements_cites_nothing() -> None:
    response = "Here it is: <statement>Ann Lee.<cite>[1-1]</cite></statement> So. <statement>Never closed"
    assert cited_texts(response, LONGCITE) == [
        ("Here it is:", []),
        ("Ann Lee.", ["Ann Lee founded Keld in 1905. "]),
    ]


def test_numbers_in_brackets_belong_to_their_sentence() -> None:
    response = "Dr. Ann Lee founded it [2]. A mill followed. [1, 3] It lies there [1-2]! So it grew. It rained [7]."
    first, second, third = "Keld lies on the Osten.\n", "Ann Lee founded Keld in 1905.\n", "A mill followed.\n"
    assert cited_texts(response, LINES) == [
        ("Dr. Ann Lee founded it.", [second]),
        ("A mill followed.", [first, third]),
        ("It lies there!", [f"{first}[2] {second}"]),
        ("So it grew.", []),
        ("It rained.", []),
    ]
    assert cited_texts("凯尔德建于1905年[2]。后来有了磨坊。[3]", LINES) == [
        ("凯尔德建于1905年。", [second]),
        ("后来有了磨坊。", [third]),
    ]


def test_other_dimensions_see_the_response_without_citations() -> None:
    tagged = "<statement>Ann Lee.<cite>[1-1]</cite></statement><statement>In 1905.<cite></cite></statement>"
    assert strip_citations(tagged, LONGCITE) == "Ann Lee. In 1905."
    assert strip_citations("Ann Lee [2], in 1905 [2].", LINES) == "Ann Lee, in 1905."
    assert strip_citations("See [2].", "No numbers.") == "See [2]."


def test_measure_is_the_harmonic_mean() -> None:
    def statement(support: float, *relevances: float) -> Statement:
        evidence = tuple(Evidence(start=0, end=1, text="x", relevance=relevance) for relevance in relevances)
        return Statement(text="s", support=support, evidence=evidence)

    measured = measure_citations([statement(1.0, 1.0, 0.0), statement(0.5, 1.0), statement(0.0)])
    assert measured == pytest.approx((0.5, 2 / 3, 4 / 7))
    assert measure_citations([statement(0.0, 0.0)]) == (0.0, 0.0, 0.0)
    assert measure_citations([]) == (0.0, 0.0, 0.0)


class CitationJudge:
    """Replies by template; passages with a name or year of the statement support it."""

    name = "citation-judge"

    def __init__(self, support: str = "Support: [[Fully supported]]") -> None:
        self.support = support
        self.requests: list[ChatRequest] = []

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.requests.append(request)
        context, statement = (request.slots.get(slot, "") for slot in ("context", "statement"))
        replies = {
            "citation_support": self.support,
            "citation_relevance": "Verdict: [[Relevant]]" if "1905" in context else "Verdict: [[Irrelevant]]",
            "citation_need": "Verdict: [[Not needed]]" if "So" in statement else "Verdict: [[Needed]]",
            "statements": "<no_statement/>",
            "extraction": "No relevant information",
        }
        return ChatReply(replies.get(request.template, "Rating: [[8]]"), model=self.name)

    async def close(self) -> None:
        pass


def judge_response(response: str, judge: CitationJudge, *, document: str = LONGCITE) -> Verdict:
    scored = LongReward(judge, config=CONFIG).score(context=document, query=QUERY, response=response)
    return scored.verdicts["citations"]


def test_each_statement_and_citation_is_checked() -> None:
    judge = CitationJudge()
    verdict = judge_response(
        "<statement>Ann Lee founded Keld.<cite>[1-1][3-3]</cite></statement>It has a mill. "
        "<statement>So it grew.<cite></cite></statement>",
        judge,
    )
    assert [(one.support, [chunk.relevance for chunk in one.evidence]) for one in verdict.statements] == [
        (1.0, [1.0, 0.0]),
        (0.0, []),
        (1.0, []),
    ]
    # Recall 2/3, precision 1/2.
    assert verdict.score == pytest.approx(10 * 4 / 7)
    assert verdict.analysis == "Citation recall 0.667, citation precision 0.500."
    assert verdict.calls == 5
    [need] = [one for one in judge.requests if one.template == "citation_need" and "mill" in one.slots["statement"]]
    assert need.slots["answer"] == "Ann Lee founded Keld.It has a mill. So it grew."
    [support] = [one for one in judge.requests if one.template == "citation_support"]
    assert support.slots["context"] == "[Passage 1]\nAnn Lee founded Keld in 1905.\n\n[Passage 2]\nThe bridge is old."
    [helpfulness] = [one for one in judge.requests if one.template == "helpfulness"]
    assert helpfulness.slots["answer"] == need.slots["answer"]


def test_response_without_citations_scores_0_without_a_call() -> None:
    judge = CitationJudge()
    verdict = judge_response("Ann Lee founded Keld.", judge)
    assert (verdict.score, verdict.calls) == (0.0, 0)
    assert not any(request.template.startswith("citation") for request in judge.requests)


def test_document_without_numbers_leaves_citations_unscored() -> None:
    verdict = judge_response("Ann Lee founded Keld [1].", CitationJudge(), document="Ann Lee founded Keld.")
    assert verdict.score is None
    assert verdict.reason == "the document has no numbered passages, which citations refer to"


def test_unreadable_check_leaves_citations_unscored() -> None:
    judge = CitationJudge(support="Perhaps.")
    verdict = judge_response("<statement>Ann Lee founded Keld.<cite>[1-1]</cite></statement>", judge)
    assert verdict.score is None
    assert str(verdict.reason).startswith("1 of 2 checks of citations are unreadable")


def test_short_text_is_no_statement() -> None:
    assert parse_citations("Short", Passages(0, ())) == []
    assert parse_citations("A sentence.", Passages(0, ())) == [CitedStatement("A sentence.", ())]
