"""The evidence page in a real browser: clicks, filters, keyboard, flags, untrusted text."""

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspected_records import CONTEXT, birthplace_records, evidence_page, plain_records

from longreward.inspection.comparison_entries import evaluation_entries
from longreward.inspection.entries import judge_costs
from longreward.inspection.html_page import Collection, EvidencePage
from longreward.inspection.reward_entries import PromptRecords
from longreward.judge.usage import PricesConfig
from longreward.pairs.exclusions import read_exclusions
from longreward.records import Example, RubricItem
from longreward.reward import LongReward, ScoreConfig

OpenPage = Callable[..., Any]


@pytest.fixture
def page() -> EvidencePage:
    return evidence_page(
        [
            birthplace_records("11"),
            plain_records("12", "When did the market open?", margin=1.5),
            plain_records("13", "Who was Bo?", margin=None, unscored=True),
            plain_records("part/14", "What is in the cellar?", margin=3.0),
        ]
    )


def listed(tab: Any) -> list[str]:
    return [item.inner_text() for item in tab.query_selector_all("#list .id")]


def current(tab: Any) -> str:
    return str(tab.inner_text(".entry-head h1"))


def select(tab: Any, name: str, value: str) -> None:
    if tab.get_attribute("#filters", "open") is None:
        tab.click("#filters summary")
    tab.select_option(f"#{name}", value)


def wait_for_list(tab: Any, ids: list[str]) -> None:
    tab.wait_for_function(
        "ids => JSON.stringify([...document.querySelectorAll('#list .id')].map(n => n.innerText)) === ids",
        arg=json.dumps(ids, separators=(",", ":")),
    )


def wait_for_prompt(tab: Any, name: str) -> None:
    tab.wait_for_function("name => document.querySelector('.entry-head h1')?.innerText === name", arg=name)


def test_items_of_the_rubric_and_citations_are_listed(open_page: OpenPage) -> None:
    example = Example(
        id="11",
        document_id="keld",
        context="[1] Keld lies on the Osten.\n[2] Ann Lee founded it in 1905.",
        query="Who founded Keld, and when?",
        rubric=(RubricItem(text="Ann Lee founded it.", weight=2), RubricItem(text="It was founded in 1931.")),
    )
    reward = LongReward(config=ScoreConfig(optional_dimensions=("rubric", "citations")))
    scored = reward.score_responses(example, ["Ann Lee founded it in 1905 [2]. It was so [1]."])
    tab = open_page(evidence_page([PromptRecords(example, scored=scored.responses, extraction=scored.extraction)]))
    wait_for_prompt(tab, "11")
    headings = [heading.inner_text() for heading in tab.query_selector_all(".side-column h3")]
    assert headings[-2:] == ["Rubric (2)", "Statements with their citations (2)"]
    met, missed = tab.query_selector_all(".side-column ol >> nth=1 >> .statement button")
    assert "weight 2" in met.inner_text()
    assert [button.get_attribute("title").partition(":")[0] for button in (met, missed)] == ["met", "not met"]
    tab.click(".side-column ol >> nth=2 >> .statement button >> nth=0")
    assert tab.inner_text("#reader mark.evidence") == "Ann Lee founded it in 1905."


def test_statement_highlights_its_evidence(open_page: OpenPage, page: EvidencePage) -> None:
    tab = open_page(page)
    assert current(tab) == "11"
    assert tab.inner_text(".document") == CONTEXT
    assert tab.query_selector_all(".document mark") == []

    tab.click(".side-column[data-side='0'] .statement.partial button")
    assert [mark.inner_text() for mark in tab.query_selector_all(".document mark")] == ["She studied botany in Tarn."]
    tab.click(".side-column[data-side='1'] .response mark.none")  # the statement in the response itself
    assert [mark.inner_text() for mark in tab.query_selector_all(".document mark")] == ["The market opened in 1931."]
    tab.click(".side-column[data-side='1'] .statement button")  # again: no highlight
    assert tab.query_selector_all(".document mark") == []


def test_scores_replies_cost_and_ranking(open_page: OpenPage, page: EvidencePage) -> None:
    tab = open_page(page)
    rows = [row.inner_text().split() for row in tab.query_selector_all(".ranking tbody tr")]
    assert [row[1] for row in rows] == ["#0chosen", "#2", "#1rejected"]
    assert tab.inner_text(".side-column.chosen h2").split() == ["Chosen", "#0", "9.75"]
    assert "12 judge calls, USD 7.2" in tab.inner_text(".entry-head")  # 3 responses, 4 dimensions, 0.6 each
    tab.click(".side-column.chosen .dimension[data-name='helpfulness'] summary")
    details = tab.inner_text(".side-column.chosen .dimension[data-name='helpfulness']")
    for text in ("The helpfulness of Mara Voss", "judge-1", "500 + 50 tokens", "USD 0.60", "abababababab"):
        assert text in details
    tab.click(".ranking tbody tr:nth-child(2) input[name='side-1']")
    assert tab.inner_text(".side-column[data-side='1'] h2").split() == ["Response", "#2", "6.50"]


def test_extracts_show_what_a_response_leaves_out(open_page: OpenPage, page: EvidencePage) -> None:
    tab = open_page(page)
    tab.click("#tab-extracts")
    text = tab.inner_text("#reader")
    assert "Left: #0 · completeness 10.0" in text
    assert "The completeness of She was born in Solby." in text
    lines = [line.inner_text().split("\n")[-1] for line in tab.query_selector_all(".extract li")]
    covered = [
        [mark.inner_text() for mark in line.query_selector_all(".cover")]
        for line in tab.query_selector_all(".extract li")
    ]
    assert lines == ["Mara Voss was born in Kelden.", "She read law."]
    assert covered == [["L✓", "R–"], ["L–", "R–"]]
    tab.click(".extract button")
    assert tab.inner_text(".document mark") == CONTEXT[:57]


def test_filters(open_page: OpenPage, page: EvidencePage) -> None:
    tab = open_page(page)
    assert listed(tab) == ["11", "12", "13", "part/14"]
    select(tab, "show", "no-pair")
    wait_for_list(tab, ["13"])
    wait_for_prompt(tab, "13")
    select(tab, "show", "")
    select(tab, "reason", "completeness: no rating in 5 replies")
    wait_for_list(tab, ["13"])
    tab.click("#reset")
    tab.fill("#margin-min", "2")
    wait_for_list(tab, ["11", "part/14"])
    tab.fill("#margin-max", "4")
    wait_for_list(tab, ["part/14"])
    tab.click("#reset")
    select(tab, "dimension", "faithfulness")
    select(tab, "of", "right")
    tab.fill("#score-max", "1")
    wait_for_list(tab, ["11"])
    tab.click("#reset")
    select(tab, "of", "left")
    tab.fill("#length-min", "150")
    wait_for_list(tab, ["12", "13", "part/14"])
    tab.click("#reset")
    select(tab, "sort", "small")
    wait_for_list(tab, ["12", "part/14", "11", "13"])
    tab.fill("#margin-min", "99")
    wait_for_list(tab, [])
    assert "No prompt matches" in tab.inner_text("#main")


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("the CELLAR", ["part/14"]),
        ("solby", ["11"]),  # a response
        ("opened in 1931", ["11"]),  # the document
        ("first sentence says", ["11"]),  # a reply on a statement
        ("<b>", []),
    ],
)
def test_search_covers_all_texts(open_page: OpenPage, page: EvidencePage, words: str, ids: list[str]) -> None:
    tab = open_page(page)
    tab.keyboard.press("/")
    tab.keyboard.type(words)
    wait_for_list(tab, ids)
    tab.keyboard.press("Escape")
    wait_for_list(tab, ["11", "12", "13", "part/14"])


def test_keyboard(open_page: OpenPage, page: EvidencePage) -> None:
    tab = open_page(page)
    tab.keyboard.press("j")
    wait_for_prompt(tab, "12")
    tab.keyboard.press("ArrowDown")
    wait_for_prompt(tab, "13")
    tab.keyboard.press("k")
    tab.keyboard.press("k")
    wait_for_prompt(tab, "11")
    tab.keyboard.press("k")  # the first one stays
    tab.keyboard.press("n")
    assert tab.inner_text(".document mark") == "Mara Voss was born in Kelden."
    tab.keyboard.press("n")
    tab.keyboard.press("n")
    assert tab.inner_text(".document mark") == "The market opened in 1931."
    tab.keyboard.press("p")
    assert tab.inner_text(".document mark") == "She studied botany in Tarn."
    tab.keyboard.press("d")
    assert tab.get_attribute("#tab-extracts", "aria-selected") == "true"
    tab.keyboard.press("ArrowRight")  # behind the rejected one, which is last, comes the first
    assert tab.inner_text(".side-column[data-side='1'] h2").split() == ["Chosen", "#0", "9.75"]
    tab.keyboard.press("?")
    assert tab.is_visible("#help-dialog")
    tab.keyboard.press("j")  # not while a dialog is open
    tab.keyboard.press("Escape")
    assert current(tab) == "11"


def test_address_opens_a_prompt(open_page: OpenPage, page: EvidencePage) -> None:
    tab = open_page(page, "#part%2F14")
    assert current(tab) == "part/14"
    tab.keyboard.press("k")
    wait_for_prompt(tab, "13")
    assert tab.url.endswith("#13")
    tab.evaluate("location.hash = '#12'")
    wait_for_prompt(tab, "12")


def test_flags_are_kept_and_accepted_by_pair_exclude(open_page: OpenPage, page: EvidencePage, tmp_path: Path) -> None:
    tab = open_page(page)
    tab.keyboard.press("f")
    tab.keyboard.press("c")
    tab.keyboard.type('two "answers",\u2028 both f')
    tab.keyboard.press("Enter")
    tab.keyboard.press("j")
    wait_for_prompt(tab, "12")
    tab.keyboard.press("c")
    tab.keyboard.type("only a comment")
    tab.keyboard.press("Enter")
    for _ in range(2):
        tab.keyboard.press("j")
    wait_for_prompt(tab, "part/14")
    tab.click("#flag")
    assert tab.inner_text("#flag-count") == "2"

    again = open_page(page)  # a page that is written later
    assert again.inner_text("#flag-count") == "2"
    assert again.get_attribute("#flag", "aria-pressed") == "true"
    select(again, "show", "flagged")
    wait_for_list(again, ["11", "part/14"])
    again.click("#export")
    with again.expect_download() as download:
        again.click("#export-download")
    exported = tmp_path / download.value.suggested_filename
    download.value.save_as(exported)
    assert exported.name == "excluded.jsonl"
    assert read_exclusions(exported) == {"11": 'two "answers",\u2028 both f', "part/14": ""}
    assert again.input_value("#export-text") == exported.read_text(encoding="utf-8")
    again.click("#export-clear")
    assert again.inner_text("#flag-count") == "0"


def test_flags_are_copied_where_the_frame_forbids_downloads(
    open_file: OpenPage, page: EvidencePage, tmp_path: Path
) -> None:
    page.write(tmp_path / "evidence.html")
    content = html.escape((tmp_path / "evidence.html").read_text(encoding="utf-8"))
    frame_page = tmp_path / "frame.html"  # like MLflow's view of an artifact
    frame_page.write_text(
        f'<!doctype html><html data-ready><iframe sandbox="allow-scripts" width="900" height="600" srcdoc="{content}">',
        encoding="utf-8",
    )
    frame = open_file(frame_page).frame_locator("iframe")
    frame.locator("#flag").click()
    frame.locator("#export").click()
    assert frame.locator("#export-download").is_hidden()
    assert "Copy the lines" in frame.locator("#export-sandboxed").inner_text()
    frame.locator("#export-copy").click()
    assert frame.locator("#export-copy").inner_text() == "Copied"


def test_models_side_by_side(open_page: OpenPage) -> None:
    example = Example(id="1", document_id="d", context="Rain fell.", query="What fell?")
    records = birthplace_records("1").scored
    answers = [("sft", "greedy", records[0]), ("dpo", "greedy", records[1])]
    cost_of = judge_costs(PricesConfig())
    page = evidence_page([birthplace_records("11")])
    entries = evaluation_entries({"1": example}, answers, {}, {}, cost_of)  # type: ignore[arg-type]
    page.add(Collection("evaluation", "Evaluation", "comparison"), entries)
    tab = open_page(page)
    tab.click("#tabs button:nth-child(2)")
    tab.wait_for_selector("text=DPO − SFT +6.00")
    assert "null" not in tab.inner_text("#main")
    assert [head.inner_text().split()[0] for head in tab.query_selector_all(".side-column h2")] == ["SFT", "DPO"]


HOSTILE = (
    "</script><script>window.attacked = 1</script><img src=x onerror='window.attacked = 1'>"
    "<a href='javascript:window.attacked=1'>\"'`${window.attacked=1}{{ 1 }}{% x %}&lt;"
    "\u2028\u2029\x1b[31m\x00\u202eabc\u2066]]>-->"
)


def test_untrusted_text_stays_text(open_page: OpenPage) -> None:
    def replace(value: Any) -> Any:
        if isinstance(value, str):
            return f"{value} {HOSTILE}"
        if isinstance(value, dict):
            return {name: replace(inner) for name, inner in value.items()}
        return [replace(inner) for inner in value] if isinstance(value, list | tuple) else value

    records = birthplace_records()
    hostile = PromptRecords(
        type(records.example).model_validate(replace(records.example.model_dump())),
        [_hostile(scored, replace) for scored in records.scored],
        extraction=type(records.extraction).model_validate(replace(records.extraction.model_dump())),  # type: ignore[union-attr]
        no_pair=HOSTILE,
    )
    page = evidence_page([hostile], title=HOSTILE)
    page.collections[0]["title"] = HOSTILE
    tab = open_page(page)
    assert tab.inner_text(".entry-head h1").startswith("11 </script><script>window.attacked")
    for details in tab.query_selector_all("details"):
        details.evaluate("node => { node.open = true; }")
    tab.keyboard.press("n")
    tab.keyboard.press("d")
    tab.keyboard.press("f")
    tab.fill("#comment", HOSTILE.replace("\x00", ""))
    tab.keyboard.press("Enter")
    tab.click("#export")
    tab.click("#export-close")
    tab.fill("#search", "onerror='window.attacked")
    tab.wait_for_selector("#list li")
    assert tab.evaluate("window.attacked") is None
    assert tab.query_selector_all("img, a[href^='javascript'], main script") == []
    shown = tab.inner_text("body")
    assert "\u241b[31m\u2400\u2426abc\u2426" in shown  # control and direction characters are visible
    assert not any(character in shown for character in "\x1b\u202e\u2066\u2028")


def _hostile(scored: Any, replace: Callable[[Any], Any]) -> Any:
    values = scored.model_dump()
    number = values["response"]["id"].rpartition("-")[2]
    verdicts = {name: replace(verdict) for name, verdict in values["verdicts"].items()}
    response = {**replace(values["response"]), "id": f"{HOSTILE}-{number}", "finish_reason": None}
    return type(scored).model_validate({"response": response, "verdicts": verdicts})
