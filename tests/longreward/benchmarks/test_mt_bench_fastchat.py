"""Files of FastChat, written and read; `show_single` and `show_pairwise` repeat the arithmetic of its `show_result`."""

import json
from pathlib import Path

import pytest

from longreward.benchmarks.mt_bench import MtBench
from longreward.benchmarks.mt_bench.judge import SLOTS
from longreward.benchmarks.types import Answer, Verdict
from longreward.errors import DataError
from longreward.evaluation.statistics import IntervalOptions

PAGE = Path(__file__).parents[3] / "docs" / "mt-bench.md"
INTERVALS = IntervalOptions(resamples=100)
QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]},
    {"question_id": 101, "category": "reasoning", "turns": ["Who?", "Why?"]},
]
SINGLE = {"question_id": int, "model": str, "judge": list, "user_prompt": str, "judgment": str, "score": int | float}
SINGLE |= {"turn": int, "tstamp": float}
PAIR = {"question_id": int, "model_1": str, "model_2": str, "g1_winner": str, "g2_winner": str, "judge": list}
PAIR |= dict.fromkeys(("g1_user_prompt", "g1_judgment", "g2_user_prompt", "g2_judgment"), str)
PAIR |= {"turn": int, "tstamp": float}
ANSWER = {"question_id": int, "answer_id": str, "model_id": str, "choices": list, "tstamp": float}


def answer_row(question, *turns, **changes):
    choices = [{"index": 0, "turns": list(turns)}]
    return {"question_id": question, "answer_id": "a", "model_id": "x", "choices": choices, "tstamp": 1.5} | changes


@pytest.fixture
def parsing():
    """Published parsing takes the values of the rows, as `show_result` does."""
    return "published"


@pytest.fixture
def bench(tmp_path, write_lines, parsing):
    questions = write_lines(tmp_path / "question.jsonl", QUESTIONS)
    references = write_lines(tmp_path / "gpt-4.jsonl", [answer_row(101, "Ann.", "She was first.")])
    rival = write_lines(tmp_path / "vicuna.jsonl", [answer_row(81, "v", "w"), answer_row(101, "x", "y")])
    return MtBench(questions, references=references, baseline=rival, parsing=parsing)


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def matches_schema(row, schema):
    return list(row) == list(schema) and all(isinstance(row[name], kind) for name, kind in schema.items())


def make_answers(turns=("one", "two")):
    return [Answer(name, turns, (1, 1), ("stop", "stop"), (4, 9), False, 2.0) for name in ("81", "101")]


def make_rating(case, turn, judgment, value):
    metadata = {"turn": turn, "prompt": "single-v1", "official": True}
    return Verdict(case, f"turn {turn}", "t", "", "asked", judgment, value, None, "gpt-4", 3.0, metadata)


def make_game(case, turn, order, value, judgment=""):
    part = f"turn {turn} against vicuna" + (", swapped" if order == 2 else "")
    metadata = {"turn": turn, "opponent": "vicuna", "order": order, "prompt": "pair-v2", "official": True}
    return Verdict(case, part, "t", "", "asked", judgment, value, None, "gpt-4", 3.0, metadata)


RATINGS = [
    make_rating("81", 1, "[[7]]", 7.0),
    make_rating("81", 2, "[[8.5]]", 8.5),
    make_rating("101", 1, "none", None),
    make_rating("101", 2, "[[2]]", 2.0),
]
GAMES = [  # won both; the orders disagree; an error; lost both
    *(make_game("81", 1, 1, 1.0, "[[A]]"), make_game("81", 1, 2, 1.0, "[[B]]")),
    *(make_game("81", 2, 1, 1.0, "[[A]]"), make_game("81", 2, 2, 0.0, "[[A]]")),
    *(make_game("101", 1, 1, None, "?"), make_game("101", 1, 2, 0.5, "[[C]]")),
    *(make_game("101", 2, 1, 0.0, "[[B]]"), make_game("101", 2, 2, 0.0, "[[A]]")),
]


def show_single(path, model):
    """Rows of -1 dropped; the mean of turn 1, of turn 2, of all rows left."""
    left = [row for row in read_rows(path) if row["model"] == model and row["score"] != -1]
    of_turns = [[row["score"] for row in left if row["turn"] in turns] for turns in ((1,), (2,), (1, 2))]
    return [sum(scores) / len(scores) for scores in of_turns]


def show_pairwise(path, model):
    """Rows with an error dropped; a tie where game 1 is one or the games disagree; adjusted, a tie is half a win."""
    win = loss = tie = 0
    for row in read_rows(path):
        if "error" in (row["g1_winner"], row["g2_winner"]) or row["model_1"] != model:
            continue
        if row["g1_winner"] == "tie" or row["g1_winner"] != row["g2_winner"]:
            tie += 1
        elif row["g1_winner"] == "model_1":
            win += 1
        else:
            loss += 1
    count = win + loss + tie
    return [win / count, loss / count, (win + 0.5 * tie) / count]


def test_written_files_read_by_fastchat(bench, tmp_path):
    bench.write_files(tmp_path / "data", make_answers(), [*RATINGS, *GAMES], model="dpo")
    folder = tmp_path / "data" / "mt_bench"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jsonl")) == [
        "model_answer/dpo.jsonl",
        "model_answer/vicuna.jsonl",
        "model_judgment/gpt-4_pair.jsonl",
        "model_judgment/gpt-4_single.jsonl",
        "question.jsonl",
        "reference_answer/gpt-4.jsonl",
    ]
    assert read_rows(folder / "question.jsonl") == QUESTIONS
    written = read_rows(folder / "model_answer" / "dpo.jsonl")
    assert all(matches_schema(row, ANSWER) for row in written)
    assert [(row["question_id"], row["choices"]) for row in written] == [
        (81, [{"index": 0, "turns": ["one", "two"]}]),
        (101, [{"index": 0, "turns": ["one", "two"]}]),
    ]
    (reference,) = read_rows(folder / "reference_answer" / "gpt-4.jsonl")
    assert reference["choices"] == [{"index": 0, "turns": ["Ann.", "She was first."]}]
    single, pair = (folder / "model_judgment" / f"gpt-4_{kind}.jsonl" for kind in ("single", "pair"))
    assert all(matches_schema(row, SINGLE) for row in read_rows(single))
    assert all(matches_schema(row, PAIR) for row in read_rows(pair))
    assert [row["score"] for row in read_rows(single)] == [7, 8.5, -1, 2]
    assert [(row["g1_winner"], row["g2_winner"]) for row in read_rows(pair)] == [
        ("model_1", "model_1"),
        ("model_1", "model_2"),
        ("error", "tie"),
        ("model_2", "model_2"),
    ]
    metrics = bench.summarize(make_answers(), [*RATINGS, *GAMES], INTERVALS).to_dict()
    assert show_single(single, "dpo") == [metrics[f"mt_bench/{name}"] for name in ("turn_1", "turn_2", "score")]
    assert show_single(single, "dpo") == [7.0, 5.25, 17.5 / 3]
    names = ("win_rate", "loss_rate", "win_rate_adjusted")
    assert show_pairwise(pair, "dpo") == [metrics[f"mt_bench/pairwise/{name}"] for name in names]
    assert show_pairwise(pair, "dpo") == [1 / 3, 1 / 3, 0.5]


def test_judgments_read_back_give_same_figures(bench, tmp_path):
    bench.write_files(tmp_path, make_answers(), [*RATINGS, *GAMES], model="dpo")
    read = bench.read_judgments(tmp_path, model="dpo", judge="gpt-4")
    expected = bench.summarize([], [*RATINGS, *GAMES], INTERVALS)
    assert bench.summarize([], read, INTERVALS).to_dict() == expected.to_dict()
    assert [(verdict.case_id, verdict.part, verdict.judgment) for verdict in read] == [
        (verdict.case_id, verdict.part, verdict.judgment) for verdict in [*RATINGS, *GAMES]
    ]
    assert read[0].metadata == {"turn": 1, "prompt": "single-v1", "official": True}


def test_second_judgment_replaces_rows_of_model_only(bench, tmp_path):
    bench.write_files(tmp_path, make_answers(), [*RATINGS, *GAMES], model="sft")
    bench.write_files(tmp_path, make_answers(), RATINGS, model="dpo")
    bench.write_files(tmp_path, make_answers(), [make_rating("81", 1, "[[9]]", 9.0)], model="sft")
    folder = tmp_path / "mt_bench" / "model_judgment"
    assert [(row["model"], row["score"]) for row in read_rows(folder / "gpt-4_single.jsonl")] == [
        ("dpo", 7),
        ("dpo", 8.5),
        ("dpo", -1),
        ("dpo", 2),
        ("sft", 9),
    ]
    assert {row["model_1"] for row in read_rows(folder / "gpt-4_pair.jsonl")} == {"sft"}


def test_documented_example_runs(bench, tmp_path, write_lines, monkeypatch, capsys):
    bench.write_files(tmp_path / "data", make_answers(), RATINGS, model="vicuna-13b-v1.3")
    folder = tmp_path / "data" / "mt_bench" / "model_answer"
    (folder / "gpt-3.5-turbo.jsonl").write_bytes((folder / "vicuna.jsonl").read_bytes())
    names = [name for name in SLOTS if name.startswith("single")]
    prompts = [{"name": n, "prompt_template": " ".join(f"{{{slot}}}" for slot in SLOTS[n])} for n in SLOTS]
    forms = [{"system_prompt": "", "output_format": "[[rating]]" if p["name"] in names else "[[A]]"} for p in prompts]
    write_lines(tmp_path / "data" / "judge_prompts.jsonl", [p | f for p, f in zip(prompts, forms, strict=True)])
    monkeypatch.chdir(tmp_path)
    exec(PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0], {})
    assert float(capsys.readouterr().out) == pytest.approx(17.5 / 3)


def test_names_with_slashes_become_file_names(bench, tmp_path):
    of_org = [Verdict(**{**vars(verdict), "judge": "org/judge:1"}) for verdict in RATINGS]
    bench.write_files(tmp_path, make_answers(), of_org, model="../org/model 7b")
    folder = tmp_path / "mt_bench"
    assert read_rows(folder / "model_answer" / "org_model_7b.jsonl")[0]["model_id"] == "org_model_7b"
    assert read_rows(folder / "model_judgment" / "org_judge_1_single.jsonl")[0]["model"] == "org_model_7b"


def test_answers_of_other_models_use_first_choice_and_last_row(bench, tmp_path, write_lines):
    both = [{"index": 1, "turns": ["first", "of them"]}, {"index": 0, "turns": ["second", "one"]}]
    rows = [answer_row(81, "old", "older"), answer_row(101, "a", "b"), answer_row(999, "of none"), answer_row(81)]
    path = write_lines(tmp_path / "theirs.jsonl", [*rows[:3], {**rows[3], "choices": both}])
    read = bench.read_answers(path)
    assert [(answer.case_id, answer.turns, answer.created) for answer in read] == [
        ("81", ("first", "of them"), 1.5),
        ("101", ("a", "b"), 1.5),
    ]


@pytest.mark.parametrize(("parsing", "score", "unscored"), [("published", 5.5, 1), ("strict", 8.0, 2)])
def test_judgments_of_other_models_read(bench, tmp_path, write_lines, score, unscored):
    row = {"question_id": 81, "model": "dpo", "judge": ["gpt-4", "single-v1"], "judgment": "[[3]] or [[4]]"}
    row |= {"user_prompt": "?", "score": 3, "turn": 1, "tstamp": 1.0}
    again = row | {"score": 8, "judgment": "[[8]]"}
    (tmp_path / "mt_bench" / "model_judgment").mkdir(parents=True)
    path = tmp_path / "mt_bench" / "model_judgment" / "gpt-4_single.jsonl"
    write_lines(path, [row, again, row | {"model": "other"}, row | {"score": -1, "turn": 2, "judgment": "$ERROR$"}])
    read = bench.read_judgments(tmp_path, model="dpo", judge="gpt-4")
    assert [verdict.part for verdict in read] == ["turn 1", "turn 1, repeat 1", "turn 2"]
    figure = bench.summarize([], read, INTERVALS).metrics[0]
    assert (figure.estimate.value, figure.unscored) == (score, unscored)


def test_pair_with_model_as_model_2(bench, tmp_path, write_lines):
    folder = tmp_path / "mt_bench" / "model_judgment"
    folder.mkdir(parents=True)
    row = {"question_id": 81, "model_1": "vicuna", "model_2": "dpo", "judge": ["gpt-4", "pair-v2"], "tstamp": 1.0}
    row |= {"g1_winner": "model_2", "g1_judgment": "[[B]]", "g2_winner": "model_2", "g2_judgment": "[[A]]"}
    write_lines(folder / "gpt-4_pair.jsonl", [row, row | {"model_2": "other", "g1_winner": "nonsense"}])
    write_lines(folder / "gpt-4_single.jsonl", [{"model": "other"}])
    read = bench.read_judgments(tmp_path, model="dpo", judge="gpt-4")
    assert [(verdict.part, verdict.value) for verdict in read] == [
        ("turn 1 against vicuna, swapped", 1.0),
        ("turn 1 against vicuna", 1.0),
    ]
    assert bench.summarize([], read, INTERVALS).to_dict()["mt_bench/pairwise/win_rate"] == 1.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([answer_row(81, "a", "b")], "has no answer to question 101, which has 2 turns"),
        ([answer_row(81, "a", "b"), answer_row(101, "a")], "has an answer of 1 turn to question 101"),
        ([answer_row(81, choices=[])], "line 1: choices is not a list of objects"),
        ([answer_row(81, "a", 3)], r"line 1: turns is \[\x27a\x27, 3\]"),
    ],
)
def test_malformed_answers_reported_with_line(bench, tmp_path, write_lines, rows, message):
    with pytest.raises(DataError, match=message):
        bench.read_answers(write_lines(tmp_path / "theirs.jsonl", rows))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": None}, "line 1: score is None, expected a number"),
        ({"question_id": 5}, "question_id 5 is not one of the questions"),
        ({"judge": "gpt-4"}, "judge is 'gpt-4', expected its name and that of the prompt"),
        ({"turn": 3}, "turn is 3, expected 1 or 2"),
        ({"judgment": None}, "judgment is None, expected a text"),
    ],
)
def test_malformed_judgments_reported_with_line(bench, tmp_path, write_lines, changes, message):
    folder = tmp_path / "mt_bench" / "model_judgment"
    folder.mkdir(parents=True)
    row = {"question_id": 81, "model": "dpo", "judge": ["gpt-4", "single-v1"], "judgment": "[[3]]", "score": 3}
    write_lines(folder / "gpt-4_single.jsonl", [row | changes])
    with pytest.raises(DataError, match=message):
        bench.read_judgments(tmp_path, model="dpo", judge="gpt-4")
