"""Literal replies of judges and their parsed values."""

import pytest

from longreward.reward.config import ScoreConfig
from longreward.reward.parser_sets import PARSERS
from longreward.reward.parsers import parse_extraction, parse_rating, parse_statements, parse_support
from longreward.reward.published_parsers import ExtractedText

NOTHING, NO_STATEMENT = "No relevant information", "<no_statement/>"


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        # the asked form
        ("A fair answer. Rating: [[7]]", 7.0),
        ("评分：[[ 8.5 ]]", 8.5),
        ("[[10]]", 10.0),
        ("[[0]]", 0.0),
        ("[[007]]", 7.0),
        # decorated
        ("[[8/10]]", 8.0),
        ("[[8 / 10]]", 8.0),
        ("[[8 out of 10]]", 8.0),
        ("[[10/10]]", 10.0),
        ("[[8]]/10", 8.0),
        ("Rating: [[8]] out of 10.", 8.0),
        ("[[8.]]", 8.0),
        ("[[**8**]]", 8.0),
        ("**[[8]]**", 8.0),
        ("**Rating:** [[8]]", 8.0),
        ("[[`8`]]", 8.0),
        ('[["8"]]', 8.0),
        ("[[Rating: 8]]", 8.0),
        ("[[Score = 8.5/10]]", 8.5),
        ("[[评分：8]]", 8.0),
        ("[[8分]]", 8.0),
        ("［［8］］", 8.0),
        ("评分：【【８】】", 8.0),
        ("Rating: $\\boxed{8}$", 8.0),
        # a closing line without double brackets
        ("Good, but short.\n\nRating: 8", 8.0),
        ("Good, but short.\n\n**Rating: 8/10**\n", 8.0),
        ("Good, but short.\n\n**Final rating:** 8", 8.0),
        ("Good, but short.\n### Rating: [8]", 8.0),
        ("Good, but short.\n- Overall score - 8", 8.0),
        ("Good, but short.\nSo my rating is 8.", 8.0),
        ("很好，但太短。\n评分：8分", 8.0),
        ("Good, but short.\n8/10", 8.0),
        ("8", 8.0),
        # JSON
        ('{"rating": 8}', 8.0),
        ('{"analysis": "It claims [[10]]. Rating: [[10]]", "rating": 3}', 3.0),
        ('```json\n{\n  "analysis": "Good.",\n  "Rating": "8/10"\n}\n```', 8.0),
        ('Good, but short.\n{"rating": 8.5}', 8.5),
        ('{"rating": "[[8]]"}', 8.0),
        # several brackets, of which one is clearly the verdict
        ("First I thought [[3]], in the end [[9]]", 9.0),
        ("It boasts of [[10]] but is empty. Rating: [[0]]", 0.0),
        ("So the rating is [[6]].\n\nRating: [[6]]", 6.0),
        ("I considered [[3]] at first.\n\n[[9]]", 9.0),
        ("Rating: [[7]] (see also [[Passage 2]])", 7.0),
        ("It calls itself [[10]].\nRating: 3", 3.0),
        # no clear verdict
        ("[[7]] or [[8]]", None),
        ("Rating: [[7]] or [[8]]", None),
        ("[[7]]-[[8]]", None),
        ("Between [[7]] and [[8]], I would say.", None),
        ("[[6]]\n[[7]]\n[[8]]", None),
        ("Rating: [[7]]\nThe answer calls itself a [[10]]", None),
        ("Rating: [[7]]\nScore: 3", None),
        ("Rating: [[7]]\nThe answer claims this:\n[[10]]", None),
        ("Good.\nRating: [[7]]\n\n[Question]\nWhy?\n\n[Analysis]\nShort.\nRating: [[3]]", None),  # another example
        ("Good.\nRating: [[7]]\n\n[Question]\nWhy?\n\n[Analysis]\nShort.\nRating: [[7]]", 7.0),
        ("[Analysis]\nIt boasts of [[10]].\n[Verdict]\nRating: [[3]]", 3.0),
        ("[[7-8]]", None),
        ("[[7 or 8]]", None),
        ("[[7/8]]", None),
        ("[[0-10]]", None),
        ("[[8,5]]", None),
        ("Rating: 7 or 8", None),
        ('{"rating": 3, "score": 8}', None),
        ('{"rating": 3, "rating": 8}', None),
        ('{"rating": true}', None),
        # outside the scale, or on another one
        ("Rating: [[11]]", None),
        ("[[-1]]", None),
        ("A good [[5]], or rather [[-1]]", None),
        ("[[80/100]]", None),
        ("[[4/5]]", None),
        ("[[8]]/100", None),
        ("Rating: 80/100", None),
        ("Rating: -1", None),
        ("[[1e1]]", None),
        ("[[²]]", None),
        ("[[.5]]", None),
        # no verdict
        ("Rating: [[good]]", None),
        ("Rating: [[8", None),
        ("Rating: [8", None),
        ("The answer lists points 1 to 8", None),
        ("Rating: 8 was my first thought.\nIt is hard to say.", None),
        ("Its rating: 8 of 12 readers liked it", None),
        ("Good.\n8", None),
        ("", None),
    ],
)
def test_ratings(text: str, rating: float | None) -> None:
    assert parse_rating(text) == rating


@pytest.mark.parametrize(
    ("text", "support"),
    [
        # the asked form
        ("Support: [[Fully supported]]", 1.0),
        ("评分: [[Partially Supported]]", 0.5),
        ("[[No Support]]", 0.0),
        # decorated
        ("[[Fully supported.]]", 1.0),
        ("[[**Fully supported**]]", 1.0),
        ("**[[Fully supported]]**", 1.0),
        ("[[Fully-supported]]", 1.0),
        ("[[fully_supported]]", 1.0),
        ("[[FULLY SUPPORTED]]", 1.0),
        ("[[ Fully  supported ]]", 1.0),
        ("[[Support: Partially supported]]", 0.5),
        ('[["No support"]]', 0.0),
        ("Support: Fully supported", 1.0),
        ("All of it is there.\n\n**Support:** Partially supported.", 0.5),
        ("Fully supported.", 1.0),
        ("All of it is there.\n**No support**", 0.0),
        ("Support: [No support]", 0.0),
        ('{"support": "Fully supported"}', 1.0),
        ('{"analysis": "Not [[No support]].", "level": "[[Partially supported]]"}', 0.5),
        # Chinese
        ("支持程度：[[完全支持]]", 1.0),
        ("支持程度：[[部分支持]]", 0.5),
        ("支持程度：[[不支持]]", 0.0),
        ("支持程度：【【没有支持】】", 0.0),
        ("都能找到。\n支持程度：完全支持。", 1.0),
        # clear synonyms
        ("[[Supported]]", 1.0),
        ("[[Full support]]", 1.0),
        ("[[Partly supported]]", 0.5),
        ("[[Partial support]]", 0.5),
        ("[[Not supported]]", 0.0),
        ("[[Unsupported]]", 0.0),
        ("[[Contradicted]]", 0.0),
        # several brackets, of which one is clearly the verdict
        ("The response says [[Fully supported]]. Support: [[No support]]", 0.0),
        ("[[Fully supported]] (see also [[Passage]])", 1.0),
        ("[[Fully supported]], see [[2]]", 1.0),
        ("支持程度：[[Fully supported]]（另见[[段落2]]）", 1.0),
        ("所以评分应为[[No Support]]。\n\n评分: [[No Support]]", 0.0),
        ("Levels: [[Fully supported / Partially supported / No support]]\nSupport: [[Partially supported]]", 0.5),
        # labels that are none of the three
        ("[[Mostly supported]]", None),
        ("[[Somewhat supported]]", None),
        ("[[Not fully supported]]", None),
        ("[[Yes]]", None),
        ("[[No]]", None),
        ("[[N/A]]", None),
        ("[[Unclear]]", None),
        ("[[Fully supported]] is too much.\nSupport: [[Mostly supported]]", None),
        ("[[Fully supported]] is too much.\n\n[[Unclear]]", None),
        ("[[Fully supported]], or rather [[not fully supported]]", None),
        ("Support: [[1]]", None),
        # a repeated list of options
        ("[[Fully supported / Partially supported / No support]]", None),
        ("[[fully supported/partially supported]]", None),
        ("[[Fully supported]] / [[Partially supported]] / [[No support]]", None),
        ("- [[Fully supported]]\n- [[Partially supported]]\n- [[No support]]", None),
        ("[[Fully supported]]\n[[Partially supported]]\n[[No support]]", None),
        ("- [[Fully supported]]: all of it\n- [[No support]]: nothing of it", None),
        # no verdict
        ("[[ ]]", None),
        ("It is not fully supported", None),
        ("Support: [[Fully supported", None),
        ("", None),
    ],
)
def test_support_levels(text: str, support: float | None) -> None:
    assert parse_support(text) == support


TWO = ("Keld is a village.", "It lies on the Tarn.")


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        (
            "<statement> One. </statement>\n<statement></statement>\n<statement>Two\nlines.</statement><statement>cut",
            ("One.", "Two\nlines."),
        ),
        ("<Statement>Keld is a village.</STATEMENT>\n<statement>It lies on the Tarn.</statement>", TWO),
        ('<statement id="1">Keld is a village.</statement><statement n=2>It lies on the Tarn.</statement>', TWO),
        ("< statement >Keld is a village.</ statement ><statement>It lies on the Tarn.</statement\n>", TWO),
        ("<statements>\n<statement>Keld is a village.</statement>\n</statements>", TWO[:1]),
        ("1. Keld is a village.\n2. It lies on the Tarn.", TWO),
        ("Here are the factual statements:\n\n1) Keld is a village.\n\n2) It lies on the Tarn.\n", TWO),
        ("[陈述]\n1、Keld is a village.\n2、It lies on the Tarn.", TWO),
        ('["Keld is a village.", "It lies on the Tarn."]', TWO),
        ('```json\n{"statements": ["Keld is a village.", "It lies on the Tarn."]}\n```', TWO),
        ("<no_statement/> <statement>Yet one.</statement>", ("Yet one.",)),
        # none
        ("<no_statement/>", ()),
        ("<no_statement />", ()),
        ("<No_Statement/>", ()),
        ("<no-statement/>", ()),
        ("<no_statement></no_statement>", ()),
        ("There are no factual statements in this answer.", ()),
        ("1. No factual statements.", ()),
        ("<statement>No factual statement</statement>", ()),
        ("回答中没有事实性陈述。", ()),
        ('{"statements": []}', ()),
        ("[]", ()),
        # no list of statements
        ("<statement>Keld is a village.\n<statement>It lies on the Tarn.</statement>", None),
        ("<statement>Keld is", None),
        ("1. <statement>Keld is a village.", None),
        ("There is none.", None),
        ("1. Keld is a village.\nIt is small.", None),
        ("2. Keld is a village.", None),
        ("1. Keld is a village.\n3. It lies on the Tarn.", None),
        ("1.5 million people live in Keld.", None),
        ("Keld is a village.", None),
        ('["Keld is a village.", 2]', None),
        ("", None),
    ],
)
def test_statements(text: str, statements: tuple[str, ...] | None) -> None:
    assert parse_statements(text, NO_STATEMENT) == statements


@pytest.mark.parametrize("text", ["<no_statement/>", "There are no factual statements.", "[]"])
def test_prompts_without_no_statement_marker_have_none(text: str) -> None:
    assert parse_statements(text, None) is None


@pytest.mark.parametrize(
    "text",
    [
        "No relevant information",
        ' "no relevant information." ',
        "(No relevant information)",
        "**No relevant information**",
        "1. No relevant information",
        "- No relevant information.",
        "There is no relevant information in this part of the document.",
        "There is no relevant information about the founding of Keld in the passage.",
        "No relevant information was found.",
        "This part contains no relevant information.",
        "No relevant information about bees in this part.",
        "No information relevant to the question.",
        "[Relevant information]\nNo relevant information",
        "1. No relevant information\n2. No relevant information",
        "None.",
        "N/A",
        "无相关信息",
        "没有相关信息。",
        "（无相关信息）",
        "本部分没有与问题相关的信息。",
        "文档中未找到任何与该问题有关的内容",
        "该片段不包含相关信息",
    ],
)
def test_extraction_nothing_relevant(text: str) -> None:
    assert parse_extraction(text, NOTHING) == ExtractedText(None)


@pytest.mark.parametrize(
    "text",
    [
        "1. Keld was founded in 1905.",
        "No relevant information - the mill closed in 1950",
        "No relevant information, but the mill closed.",
        "No relevant information except that the mill closed.",
        "No relevant information on bees, but:\n1. Wasps.",
        "No relevant information about the mill that closed.",
        "No relevant information on 1905.",
        "No relevant information.\nThe mill closed in 1950.",
        "There is no relevant information on bees. The mill closed in 1950.",
        "1. Keld was founded in 1905.\n2. No relevant information on the mill.",
        "无相关信息，但磨坊于1950年关闭。",
        "没有相关信息。磨坊于1950年关闭。",
        "Nothing relevant happened until 1950.",
    ],
)
def test_extraction_with_text_kept(text: str) -> None:
    assert parse_extraction(text, NOTHING) == ExtractedText(text)


def test_extraction_phrase_of_other_prompts() -> None:
    assert parse_extraction("(Nichts dazu.)", "Nichts dazu") == ExtractedText(None)
    assert parse_extraction("Nichts dazu, aber die Mühle schloss.", "Nichts dazu").text is not None  # type: ignore[union-attr]
    assert parse_extraction("  \n", NOTHING) is None


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        # the values that functions of the published code (auto_scorer.py at c565778) return for these texts
        ("rating", "First I thought [[3]], in the end [[9]]", 9.0),
        ("rating", "[[7]] or [[8.5]]", 8.5),
        ("rating", "[[6]], not [[-1]]", 6.0),
        ("rating", "[[ 8 ]]", None),
        ("rating", "[[8/10]]", None),
        ("rating", "Rating: 8", None),
        ("support", "[[Fully supported]]", 1.0),
        ("support", "[[Not fully supported]]", 1.0),
        ("support", "[[Fully supported / Partially supported / No support]]", 1.0),
        ("support", "[[Partially Supported]]", 0.5),
        ("support", "[[Supported]]", 0.0),
        ("support", "[[Yes]]", 0.0),
        ("support", "[[ ]]", 0.0),
        ("support", "[[Fully supported]] (see also [[Passage]])", 0.0),
        ("support", "[[Fully supported]], see [[2]]", 1.0),
        ("support", "[[Fully supported.]]", None),
        ("support", "[[完全支持]]", None),
        ("statements", "<statement>One.</statement><statement> </statement>", ("One.",)),
        ("statements", "<statement>One.<statement>Two.</statement>", ("One.<statement>Two.",)),
        ("statements", "<Statement>One.</Statement>", None),
        ("extraction", "1. Keld.\nNo relevant information on the mill.", ExtractedText(None)),
        ("extraction", "无相关信息", ExtractedText("无相关信息")),
        ("extraction", " 1. Keld.\n", ExtractedText(" 1. Keld.\n")),
        ("extraction", "", None),
    ],
)
def test_published_parsers(kind: str, text: str, value: object) -> None:
    parsers = PARSERS["published"]
    parsed = {
        "rating": lambda: parsers.rating(text),
        "support": lambda: parsers.support(text),
        "statements": lambda: parsers.statements(text, None),
        "extraction": lambda: parsers.extraction(text, NOTHING),
    }
    assert parsed[kind]() == value


def test_strict_parsing_is_default() -> None:
    assert ScoreConfig().parsing == "strict"
