"""Rubrics: given or written by the judge, checked item by item."""

import json
from pathlib import Path

import pytest

from longreward import LongReward
from longreward.chat_model import ChatReply, ChatRequest
from longreward.data.columns import ColumnsConfig, check_columns, map_columns
from longreward.data.formats import example_from_row, example_to_row, read_scored
from longreward.errors import ConfigError
from longreward.judge import JudgeConfig
from longreward.params import Params
from longreward.records import Example, RubricItem, weighted_bounds
from longreward.reward import ScoreConfig
from longreward.reward.optional_parsers import parse_checks, parse_rubric
from longreward.reward.score_files import ScoreReport, open_scored_files
from longreward.utils.jsonl import RowError

CONFIG = ScoreConfig(optional_dimensions=("rubric",))
CONTEXT = "Keld lies on the Osten. Ann Lee founded Keld in 1905."
QUERY = "Who founded Keld, and when?"
RUBRIC = (RubricItem(text="Ann Lee founded Keld.", weight=3), RubricItem(text="Keld was founded in 1905."))


class RubricJudge:
    """Writes a rubric of two items, and checks whether the answer has the last word of each item."""

    name = "rubric-judge"

    def __init__(self, *, extract: str = "1. Ann Lee founded Keld in 1905.") -> None:
        self.extract = extract
        self.requests: list[ChatRequest] = []

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        self.requests.append(request)
        if request.template == "rubric_check":
            words = [line.rstrip(".").split()[-1] for line in request.slots["rubric"].splitlines()]
            verdicts = ["Met" if word in request.slots["answer"] else "Not met" for word in words]
            text = "\n".join(f"{number}. Checked. [[{verdict}]]" for number, verdict in enumerate(verdicts, 1))
        else:
            text = {
                "extraction": self.extract,
                "rubric": "1. The founder is Lee.\n2. The year is 1905.",
                "statements": "<no_statement/>",
            }.get(request.template, "Rating: [[8]]")
        return ChatReply(text, model=self.name)

    async def close(self) -> None:
        pass


def test_given_rubric_is_checked_with_one_call_for_each_response() -> None:
    judge = RubricJudge()
    example = Example(id="1", document_id="1", context=CONTEXT, query=QUERY, rubric=RUBRIC)
    scored = LongReward(judge, config=CONFIG).score_responses(example, ["Ann Lee founded Keld.", "In 1905."])
    first, second = (response.verdicts["rubric"] for response in scored.responses)
    assert (first.score, second.score) == (7.5, 2.5)
    assert [(item.text, item.support, item.weight, item.analysis) for item in first.statements] == [
        ("Ann Lee founded Keld.", 1.0, 3.0, "Checked."),
        ("Keld was founded in 1905.", 0.0, 1.0, "Checked."),
    ]
    assert first.calls == 1
    assert not any(request.template == "rubric" for request in judge.requests)
    # A small model would add lines for items that do not exist.
    assert {request.reply_format.stop[-1] for request in judge.requests if request.template == "rubric_check"} == {
        "\n3."
    }


def test_judge_writes_one_rubric_for_all_responses() -> None:
    judge = RubricJudge()
    example = Example(id="1", document_id="1", context=CONTEXT, query=QUERY)
    scored = LongReward(judge, config=CONFIG).score_responses(example, ["It was Lee.", "Lee, in 1905.", "Unknown."])
    assert [response.verdicts["rubric"].score for response in scored.responses] == [5.0, 10.0, 0.0]
    [request] = [request for request in judge.requests if request.template == "rubric"]
    assert "Ann Lee founded Keld in 1905." in request.slots["context"]
    assert scored.rubric is not None
    assert [item.text for item in scored.rubric.items] == ["The founder is Lee.", "The year is 1905."]
    assert scored.rubric.calls == 1


def test_rubric_is_unscored_without_extracts() -> None:
    judge = RubricJudge(extract=" ")
    scored = LongReward(judge, config=CONFIG).score(context=CONTEXT, query=QUERY, response="Lee.")
    verdict = scored.verdicts["rubric"]
    assert verdict.score is None
    assert str(verdict.reason).startswith("1 of 1 parts of the document gave no readable extract")
    assert scored.reward is None


def test_reward_is_the_mean_over_all_judged_dimensions() -> None:
    config = ScoreConfig(optional_dimensions=("rubric",), no_statements="zero")
    scored = LongReward(RubricJudge(), config=config).score(context=CONTEXT, query=QUERY, response="It was Lee.")
    assert scored.reward == (8 + 8 + 0 + 8 + 5) / 5
    assert scored.reward_bounds({**dict.fromkeys(scored.dimensions, 0.0), "rubric": 2.0}) == (5.0, 5.0)


def test_optional_dimensions_weigh_1_where_they_are_judged() -> None:
    bounds = dict.fromkeys(("helpfulness", "logicality", "faithfulness", "completeness"), (8.0, 8.0))
    assert weighted_bounds(bounds) == (8.0, 8.0)
    assert weighted_bounds({**bounds, "rubric": (3.0, 3.0)}) == (7.0, 7.0)
    assert weighted_bounds({**bounds, "rubric": None}) is None


def test_checks_are_numbered_lines_or_json() -> None:
    met, not_met = (1.0, "It says so."), (0.0, "")
    assert parse_checks("1. It says so. [[Met]]\n2. [[Not met]]", count=2) == (met, not_met)
    assert parse_checks("**1.** It says\nso. [[Met]]\n**2.** [[unmet]]", count=2) == ((1.0, "It says\nso."), not_met)
    objects = [{"analysis": "It says so.", "verdict": "Met"}, {"analysis": "", "verdict": "Not met"}]
    assert parse_checks(json.dumps({"verdicts": objects}), count=2) == (met, not_met)
    assert parse_checks(json.dumps({"verdicts": objects}), count=3) is None
    assert parse_checks("1. [[Met]]\n3. [[Met]]", count=2) is None
    assert parse_checks("1. [[Met]]\n2. [[Perhaps met]]", count=2) is None
    assert parse_checks("Fine.", count=1) is None
    assert parse_checks("1. 满足。[[满足]]", count=1) == ((1.0, "满足。"),)


def test_written_rubric_is_a_numbered_list() -> None:
    assert parse_rubric("Rubric:\n1. Keld.\n2) Ann Lee.") == ("Keld.", "Ann Lee.")
    assert parse_rubric('["Keld.", "Ann Lee."]') == ("Keld.", "Ann Lee.")
    assert parse_rubric("1. Keld.\n3. Ann Lee.") is None
    assert parse_rubric("No list.") is None


def test_rows_have_the_rubric_of_the_prompt() -> None:
    row = {"idx": 1, "query": QUERY, "context": CONTEXT, "rubric": ["Names Lee.", {"text": "Names 1905.", "weight": 2}]}
    example = example_from_row(row)
    assert example.rubric == (RubricItem(text="Names Lee."), RubricItem(text="Names 1905.", weight=2.0))
    assert example_from_row(example_to_row(example)) == example
    assert example_from_row({**row, "rubric": "Names Lee.\n\n Names 1905.\n"}).rubric[1].text == "Names 1905."
    assert "rubric" not in example_to_row(example_from_row({**row, "rubric": []}))
    for wrong in ({"text": "x"}, [1], [{"text": " "}], [{"text": "x", "weight": -1}], [{"text": "x", "points": 1}]):
        with pytest.raises(RowError, match="rubric"):
            example_from_row({**row, "rubric": wrong})


def test_rubric_comes_from_a_column_of_the_source() -> None:
    row = {"idx": 1, "query": QUERY, "context": CONTEXT, "requirements": ["Names Lee."], "rubric": "of another kind"}
    fields = map_columns(ColumnsConfig(rubric="requirements"), row, number=0)
    assert example_from_row(fields).rubric == (RubricItem(text="Names Lee."),)
    assert "rubric" not in map_columns(ColumnsConfig(), row, number=0)
    with pytest.raises(ConfigError, match=r"prepare\.columns\.rubric is 'requirement', .* did you mean 'requirements'"):
        check_columns(ColumnsConfig(rubric="requirement"), list(row), source="x.jsonl")


def test_score_files_keep_the_items_and_the_cited_passages(tmp_path: Path) -> None:
    config = ScoreConfig(optional_dimensions=("rubric", "citations"), no_statements="zero")
    example = Example(id="1", document_id="1", context=f"[1] {CONTEXT}", query=QUERY, rubric=RUBRIC)
    scored = LongReward(config=config).score_responses(example, ["Ann Lee founded Keld in 1905 [1]."])
    files = {name: tmp_path / f"{name}.jsonl" for name in ("complete", "unscored", "chunk_info")}
    report = ScoreReport()
    with open_scored_files(**files, settings={}, report=report) as write:
        write(scored)
    assert list(read_scored(files["complete"])) == list(scored.responses)
    row = json.loads(files["complete"].read_text(encoding="utf-8"))
    assert row["details"]["rubric"]["details"][0]["item"] == "Ann Lee founded Keld."
    assert row["details"]["citations"]["details"][0]["evidences"][0]["relevance"] == 1.0
    assert json.loads(files["chunk_info"].read_text(encoding="utf-8"))["rubric"]["items"][0]["weight"] == 3.0
    assert report.means()["rubric"] == 10.0


def test_weight_of_a_dimension_that_is_not_judged_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"pair\.weights gives citations a weight"):
        Params.model_validate({"pair": {"weights": {"citations": 2}}})
    Params.model_validate({"pair": {"weights": {"citations": 2}}, "score": {"optional_dimensions": ["citations"]}})
    with pytest.raises(ConfigError, match="adaptive"):
        ScoreConfig.parse({"optional_dimensions": ["rubric"], "strategy": "adaptive"}, source="score")


def test_optional_dimension_can_have_a_judge_of_its_own() -> None:
    config = JudgeConfig(kind="vllm", model="a", base_url="http://localhost:1", dimensions={"rubric": {"model": "b"}})
    dimensions = {judge.model: names for judge, names in config.judges()}
    assert dimensions == {
        "a": ("helpfulness", "logicality", "faithfulness", "completeness", "citations"),
        "b": ("rubric",),
    }
