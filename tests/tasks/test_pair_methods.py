"""Pairs by every method from the files of the stages before, on a real Prefect server."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from recorded_run import RecordedRun

from longreward.data.formats import write_examples, write_responses, write_scored
from longreward.errors import DataError
from longreward.params import Params, read_params
from longreward.records import DIMENSIONS, Example, PreferencePair, Response, ScoredResponse, Verdict
from longreward.tasks.pair_methods import EXAMPLES, SAMPLED, SCORED, make_pairs_by_method
from longreward.tasks.stage import StageRun

pytestmark = pytest.mark.usefixtures("prefect_server")
ROOT = Path(__file__).resolve().parents[2]
FACTS = {
    "1": (
        "Mara Voss was born in Kelden. Ivo Lang studied botany.",
        "Where was Mara Voss born?",
        "Mara Voss was born in Kelden.",
    ),
    "2": (
        "Ivo Lang settled in Tarn. Mara Voss sent 48 letters.",
        "Where did Ivo Lang settle?",
        "Ivo Lang settled in Tarn.",
    ),
}
WRONG = {"1": "Mara Voss was born in Solby.", "2": "Ivo Lang settled in Marwick."}


def make_example(id_: str) -> Example:
    context, query, answer = FACTS[id_]
    return Example(id=id_, document_id=id_, context=context, query=query, answer=answer)


def make_responses(id_: str) -> list[Response]:
    texts = (WRONG[id_], FACTS[id_][2], "Nobody knows.")
    return [Response(id=f"{id_}-{n}", example_id=id_, query=FACTS[id_][1], text=text) for n, text in enumerate(texts)]


@pytest.fixture
def project(workspace: Path) -> Path:
    """Two prompts with three responses each; the right one is the second. A third prompt has none."""
    bare = Example(id="3", document_id="3", context="Rain fell.", query="Who is Bo Ray?")
    write_examples(EXAMPLES, [make_example("1"), make_example("2"), bare])
    write_responses(SAMPLED, [response for id_ in FACTS for response in make_responses(id_)])
    for file in SCORED:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return workspace


def settings(method: str, *overrides: str) -> Params:
    base = f"pair.srm.tiny.base={ROOT / 'models/tiny-base'}"
    return read_params(None, [f"pair.method={method}", "pair.min_scored=2", base, "pair.srm.tiny.pairs=9", *overrides])


async def make_pairs_with(params: Params, folder: Path, *, inputs: Sequence[str] = ()) -> tuple[list[Any], StageRun]:
    recorded: Any = RecordedRun()
    digests = {Path(name): b"" for name in inputs}
    run = StageRun("pair", params, folder / "stage", recorded, logging.getLogger("test"), digests)

    @flow
    async def pairing() -> list[Any]:
        return list(await make_pairs_by_method(run, Path("data/pairs")))

    return await pairing(), run


def ids(outcomes: list[Any]) -> list[tuple[str, str] | str]:
    return [
        (outcome.chosen.id, outcome.rejected.id) if isinstance(outcome, PreferencePair) else outcome.reason
        for outcome in outcomes
    ]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_longreward_uses_scores(project: Path) -> None:
    def scored(response: Response) -> ScoredResponse:
        score = {"0": 3.0, "1": 9.0, "2": 1.0}[response.id[-1]]
        return ScoredResponse(response=response, verdicts={d: Verdict(score=score) for d in DIMENSIONS})

    write_scored(SCORED[0], [scored(response) for id_ in FACTS for response in make_responses(id_)])
    outcomes, _ = await make_pairs_with(settings("longreward"), project)
    assert ids(outcomes) == [("1-1", "1-2"), ("2-1", "2-2"), "no responses"]
    second, _ = await make_pairs_with(settings("longreward", "pair.selection=best_second"), project)
    assert ids(second) == [("1-1", "1-0"), ("2-1", "2-0"), "no responses"]
    weighted, _ = await make_pairs_with(settings("longreward", "pair.weights.faithfulness=0"), project)
    assert ids(weighted) == ids(outcomes)
    assert not (project / "state/ledger.sqlite").exists()  # no judge was opened, whatever the weights


async def test_contrast_and_random_need_no_scores(project: Path) -> None:
    outcomes, _ = await make_pairs_with(settings("contrast"), project)
    assert [result if isinstance(result, str) else result[0] for result in ids(outcomes)] == [
        "1-answer",
        "2-answer",
        "no responses",
    ]
    outcomes, _ = await make_pairs_with(settings("random", "pair.seed=3"), project)
    again, _ = await make_pairs_with(settings("random", "pair.seed=3"), project)
    assert ids(outcomes) == ids(again)
    assert ids(outcomes)[2] == "no responses"


async def test_pairwise_writes_comparisons(project: Path) -> None:
    outcomes, run = await make_pairs_with(settings("pairwise"), project)
    assert [result[0] for result in ids(outcomes)[:2]] == ["1-1", "2-1"]
    assert ids(outcomes)[2] == "no responses"
    written = lines(Path("data/pairs/comparisons.jsonl"))
    assert {row["idx"] for row in written} == {1, 2}
    assert {row["judge"] for row in written} == {"offline-lexical-5"}
    assert run.metrics["calls"] == 2 * len(written)
    assert run.metrics["forecast/calls_high"] >= run.metrics["calls"]
    assert run.metrics["pairwise/comparisons"] == sum(
        run.metrics[f"pairwise/{o}"] for o in ("agreed", "tied", "unreadable")
    )
    again, second = await make_pairs_with(settings("pairwise"), project / "elsewhere")
    assert ids(again) == ids(outcomes)
    assert second.metrics["calls"] == 0  # all from the ledger


async def test_srm_writes_rewards(project: Path) -> None:
    outcomes, run = await make_pairs_with(settings("srm"), project)
    written = {row["idx"]: row for row in lines(Path("data/pairs/scores.jsonl"))}
    assert sorted(written) == ["1-0", "1-1", "1-2", "2-0", "2-1", "2-2"]
    assert "reward-models" in written["1-0"]["model"]
    for outcome in outcomes[:2]:
        assert isinstance(outcome, PreferencePair)
        rewards = [row["reward"] for name, row in written.items() if name.startswith(f"{outcome.id}-")]
        assert (outcome.chosen_reward, outcome.rejected_reward) == (max(rewards), min(rewards))
        assert written[outcome.chosen.id]["reward"] == max(rewards)
    assert run.metrics["srm/responses"] == 6
    assert run.metrics["srm/without_reward"] == 0


@pytest.mark.parametrize("method", ["srm", "contrast", "pairwise", "random"])
def test_methods_that_need_scores(method: str) -> None:
    assert settings("longreward").pair.needs_scores
    assert not settings(method).pair.needs_scores


@pytest.mark.parametrize("method", ["contrast", "random"])
async def test_excluded_prompts_give_no_pair(project: Path, method: str, caplog: pytest.LogCaptureFixture) -> None:
    Path("data/excluded.jsonl").write_text('{"idx": 2, "comment": "two answers"}\n{"idx": 7}\n', encoding="utf-8")
    params = settings(method, "pair.exclude=data/excluded.jsonl")
    outcomes, _ = await make_pairs_with(params, project, inputs=("data/excluded.jsonl",))
    assert [isinstance(outcome, PreferencePair) for outcome in outcomes] == [True, False, False]
    assert ids(outcomes)[1:] == ["excluded", "no responses"]
    assert "1 of 2 ids are no prompts here, such as '7'" in caplog.text
    with pytest.raises(DataError, match=r"pair\.exclude is data/excluded\.jsonl, which is no dependency"):
        await make_pairs_with(params, project)
