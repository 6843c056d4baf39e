"""The plan includes the requests of the pair method."""

from pathlib import Path

import pytest

from longreward.data.formats import write_examples, write_responses
from longreward.errors import ConfigError
from longreward.params import Params, read_params
from longreward.planning.plan import plan_project
from longreward.records import Example, Response


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one prompt and ten different responses."""
    example = Example(id="1", document_id="1", context="Rain fell in Keld.", query="Where did rain fell?")
    write_examples(tmp_path / "data/prepared/preference.jsonl", [example])
    responses = [Response(id=f"1-{n}", example_id="1", query=example.query, text=f"Keld {n}.") for n in range(10)]
    write_responses(tmp_path / "data/sampled/sampled_responses.jsonl", responses)
    return tmp_path


def params(method: str) -> Params:
    return read_params(None, [f"pair.method={method}"])


async def test_pairwise_comparisons_counted(project: Path) -> None:
    plan = await plan_project(params("pairwise"), ledger=None, root=project, stages=("score",))
    [note] = [note for note in plan.notes if note.startswith("pair:")]
    assert "makes at most 28 requests" in note  # 14 comparisons of ten responses, in both orders
    other = await plan_project(params("srm"), ledger=None, root=project, stages=("score",))
    assert not [note for note in other.notes if note.startswith("pair:")]


async def test_note_on_assumed_speed_of_a_server(project: Path) -> None:
    server = ["judge.kind=http", "judge.base_url=http://127.0.0.1:1/v1", "judge.model=m", "judge.max_concurrency=4"]
    plan = await plan_project(read_params(None, server), ledger=None, root=project, stages=("score",))
    [note] = [note for note in plan.notes if note.startswith("the time assumes")]
    assert "4 requests at once (judge.max_concurrency), 1 s to the first token of each reply and 50 tokens/s" in note
    offline = await plan_project(params("longreward"), ledger=None, root=project, stages=("score",))
    assert not [note for note in offline.notes if note.startswith("the time assumes")]


def test_unknown_selection_is_config_error() -> None:
    with pytest.raises(ConfigError, match="best_second"):
        read_params(None, ["pair.method=random", "pair.selection=best_second"])


async def test_given_pairs_need_no_scoring(project: Path) -> None:
    write_responses(project / "data/sampled/sampled_responses.jsonl", [])
    write_examples(
        project / "data/prepared/heldout.jsonl",
        [Example(id="2", document_id="2", context="Snow fell in Moor.", query="Where did snow fall?")],
    )
    given = read_params(None, ["pair.method=given", "prepare.pairs.source=data/raw/pairs.jsonl", "evaluate.samples=2"])
    plan = await plan_project(given, ledger=None, root=project)
    assert [stage.stage for stage in plan.stages] == ["evaluate"]


async def test_empty_split_is_named(project: Path) -> None:
    (project / "data/prepared/heldout.jsonl").touch()
    plan = await plan_project(read_params(None), ledger=None, root=project)
    assert [stage.prompts for stage in plan.stages] == [1, 0]
    [note] = [note for note in plan.notes if note.startswith("evaluate:")]
    assert note.startswith(f"evaluate: there is no prompt in {project}/data/prepared/heldout.jsonl")


async def test_outputs_of_outdated_stages_are_not_read(project: Path) -> None:
    raw = project / "data/raw/questions.jsonl"
    raw.parent.mkdir(parents=True)
    raw.write_text(
        "".join(f'{{"idx": {n}, "query": "Where is {n}?", "context": "Town {n} is in Moor."}}\n' for n in range(3))
    )
    settings = ["prepare.source=data/raw/questions.jsonl", "prepare.preference_share=1", "prepare.heldout_share=0"]
    settings += ["sample.n=6"]

    async def score_plan(*outdated: str) -> tuple[int, int, str]:
        plan = await plan_project(
            read_params(None, settings), ledger=None, root=project, stages=("score",), outdated=outdated
        )
        return plan.stages[0].prompts, plan.stages[0].responses, plan.notes[0]

    prepared, sampled = project / "data/prepared/preference.jsonl", project / "data/sampled/sampled_responses.jsonl"
    assert await score_plan() == (1, 10, f"score: {prepared} with {sampled}")
    assert await score_plan("sample") == (1, 6, f"score: {prepared}; 6 responses each, assumed to have 2 tokens")
    assert await score_plan("prepare", "sample") == (
        3,
        18,
        "score: data/raw/questions.jsonl, split as `prepare` would; 6 responses each, assumed to have 2 tokens",
    )
