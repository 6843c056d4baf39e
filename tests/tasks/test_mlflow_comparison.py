"""Runs that are found again, described, and compared, in a real MLflow store."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow_store import mlflow_store

from longreward.errors import ConfigError, DataError
from longreward.evaluation.config import ChampionRule, EvaluateConfig
from longreward.evaluation.example_metrics import prompt_hash
from longreward.evaluation.measures import AnswerMeasures, Decoding
from longreward.evaluation.report import summarize
from longreward.flows.cli.main import main
from longreward.records import Example, Response
from longreward.tasks.evaluation_records import log_evaluation
from longreward.tasks.mlflow_comparison import compare, to_json, to_markdown
from longreward.tasks.stage import describe_parent
from longreward.tasks.tracking.history import PastRun, find_run, last_runs_are_evaluated, read_artifact, read_run
from longreward.tasks.tracking.run_hierarchy import PARENT, link_stage, parent_run, stage_run
from longreward.tasks.tracking.store import client

CONFIG = EvaluateConfig(champion=ChampionRule(measure="recall", temperature=0), bootstrap_resamples=200)
EXAMPLES = {n: Example(id=n, document_id=f"d{n}", context=f"text {n}", query=f"question {n}?") for n in "12345678"}
OTTER, HERON = (0.4, 0.5, 0.6, 0.5, 0.4, 0.6, 0.5, 0.6), (0.9, 0.8, 1.0, 0.9, 0.8, 0.9, 0.9, 1.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    """Four pipelines, oldest first: otter, heron, failed, unevaluated. Both that were evaluated became champions."""
    with mlflow_store(tmp_path_factory.mktemp("store")) as patch:
        record_pipeline("otter", patch, beta="0.1", judge="lexical", recalls=OTTER)
        record_pipeline("heron", patch, beta="0.3", judge="lexical", recalls=HERON)
        with pytest.raises(ValueError):
            record_failed_pipeline(patch)
        with parent_run(
            "unevaluated",
            settings("0.5"),
            overrides="train.beta=0.5\npair.min_scored=4",
            describe=describe_parent,
        ):
            pass
        yield client()


def settings(beta: str) -> dict[str, Any]:
    return {"policy": {"base_model": "tiny"}, "train": {"beta": beta}, "evaluate": {"champion": {"measure": "recall"}}}


def record_pipeline(
    name: str,
    patch: pytest.MonkeyPatch,
    *,
    beta: str,
    judge: str,
    recalls: Sequence[float],
    examples: Mapping[str, Example] = EXAMPLES,
    config: EvaluateConfig = CONFIG,
    reward: float | None = None,
) -> str:
    """Record a pipeline with an evaluation; return its message about the registry."""
    measure, decoding = config.champion.measure, Decoding(config.champion.temperature, 1).name
    reward_measures = {} if reward is None else {"reward": reward}
    measures = [
        AnswerMeasures(
            role,
            decoding,
            f"d{n}",
            make_response(n, f"{role} of {name}", examples),
            {measure: recall * share, **reward_measures},
        )
        for role, share in (("sft", 0.5), ("dpo", 1.0))
        for n, recall in zip(examples, recalls, strict=True)
    ]
    with parent_run(name, settings(beta), describe=describe_parent) as parent:
        patch.setenv(PARENT, parent)
        tags = {"dvc.models/sft": "aa.dir", "dvc.models/dpo": f"{name}.dir"}
        with stage_run("evaluate", params={}, all_params={}, tags=tags) as run:
            run.set_tags({"judge": judge})
            prompts = {name: prompt_hash(example) for name, example in examples.items()}
            message = log_evaluation(run, config, summarize(config, measures), measures, prompts, card="# card")
        link_stage(parent, "evaluate", {}, stage_run_id=run.id)
    return message


Values = Mapping[str, Mapping[str, float]]
"""Measures by example."""


def record_evaluation(
    name: str, patch: pytest.MonkeyPatch, models: Mapping[str, Values], *, sft_model: str = "aa", **evaluate: Any
) -> PastRun:
    """A pipeline whose models, "dpo t0.5" and so on, answered with these measures; `evaluate` are settings."""
    measures = [
        AnswerMeasures(model.split()[0], model.split()[1], f"d{n}", make_response(n, f"{model} of {name}"), values)  # type: ignore[arg-type]
        for model, by_example in models.items()
        for n, values in by_example.items()
    ]
    with parent_run(name, settings("0.1") | {"evaluate": evaluate}) as parent:
        patch.setenv(PARENT, parent)
        tags = {"dvc.models/sft": f"{sft_model}.dir", "dvc.models/dpo": f"{name}.dir"}
        with stage_run("evaluate", params={}, all_params={}, tags=tags) as run:
            prompts = {name: prompt_hash(example) for name, example in EXAMPLES.items()}
            log_evaluation(run, CONFIG, summarize(CONFIG, measures), measures, prompts, card="# card")
        link_stage(parent, "evaluate", {}, stage_run_id=run.id)
    return past_run(name)


def record_failed_pipeline(patch: pytest.MonkeyPatch) -> None:
    with parent_run("failed", settings("0.5"), describe=describe_parent) as parent:
        patch.setenv(PARENT, parent)
        with stage_run("train", params={}, all_params={}, tags={}):
            raise ValueError("no pair in data/pairs")


def record_stopped_pipeline(patch: pytest.MonkeyPatch) -> None:
    with parent_run("stopped", settings("0.5"), describe=describe_parent) as parent:
        patch.setenv(PARENT, parent)
        with stage_run("sample", params={}, all_params={}, tags={}):
            raise KeyboardInterrupt


def make_response(example: str, text: str, examples: Mapping[str, Example] = EXAMPLES) -> Response:
    return Response(id=f"{example}-0", example_id=example, query=examples[example].query, text=text)


def past_run(name: str) -> PastRun:
    return find_run(name, registered_model="longreward-policy")


def read_note(run: PastRun) -> str:
    return read_run(run.id).tags["mlflow.note.content"]


def test_find_run_by_name_id_position_and_champion(store: MlflowClient) -> None:
    heron = past_run("heron")
    assert [past_run(name).name for name in ("last", "last~1", "last~3")] == ["unevaluated", "failed", "otter"]
    assert past_run(heron.id) == heron
    assert heron.evaluation is not None
    assert past_run(heron.evaluation).id == heron.id  # a stage's run leads to the pipeline's
    assert (past_run("champion").id, past_run("champion").evaluation) == (heron.id, heron.evaluation)
    assert heron.params["train.beta"] == "0.3"


@pytest.mark.parametrize("name", ["hern", "last~9", "f" * 32, "it's"])
def test_find_run_unknown_name(store: MlflowClient, name: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no run .*; the newest are unevaluated, failed, heron, otter$"):
        past_run(name)


def test_last_runs_are_evaluated(tmp_path: Path) -> None:
    with mlflow_store(tmp_path) as patch:
        record_pipeline("otter", patch, beta="0.1", judge="lexical", recalls=OTTER)
        assert not last_runs_are_evaluated()
        record_pipeline("heron", patch, beta="0.3", judge="lexical", recalls=HERON)
        assert last_runs_are_evaluated()
        with pytest.raises(ValueError, match="no pair"):
            record_failed_pipeline(patch)
        assert not last_runs_are_evaluated()


def test_champion_replaced_only_by_significantly_better_model(tmp_path: Path) -> None:
    with mlflow_store(tmp_path) as patch:
        first = record_pipeline(
            "strong", patch, beta="0.1", judge="lexical", recalls=(0.8, 0.7, 0.6, 0.7, 0.8, 0.7, 0.6, 0.7)
        )
        assert first == "registered as version 1, the champion"
        weak = record_pipeline("weak", patch, beta="0.3", judge="lexical", recalls=OTTER)
        assert past_run("champion").name == "strong"
        assert weak.startswith(
            "registered as version 2; the champion stays, since this model is not shown to be better: recall at greedy "
            "is 0.700 for the champion and 0.512 for this model, interval [-"
        )
        record_pipeline("equal", patch, beta="0.5", judge="lexical", recalls=(0.9, 0.6, 0.7, 0.7, 0.7, 0.8, 0.6, 0.7))
        assert past_run("champion").name == "strong"
        worse = (0.62, 0.48, 0.41, 0.5, 0.59, 0.53, 0.37, 0.5)  # 0.2 below "strong" on every prompt, give or take 0.03
        worse_message = record_pipeline("worse", patch, beta="0.5", judge="lexical", recalls=worse)
        assert ", interval [-0.235, -0.158], p 0.008" in worse_message
        assert past_run("champion").name == "strong"
        equal_message = record_pipeline("likely", patch, beta="0.5", judge="lexical", recalls=HERON)
        assert (
            "for this model, interval [-0.0" in equal_message
        )  # the test shows a difference, and the interval holds zero
        assert ", p 0.016" in equal_message
        assert past_run("champion").name == "strong"
        higher = (1.0, 0.9, 0.9, 0.9, 1.0, 1.0, 0.8, 0.9)
        better = record_pipeline("better", patch, beta="0.7", judge="lexical", recalls=higher)
        assert past_run("champion").name == "better"
        assert better.endswith(", p 0.008")


def test_champion_stays_if_not_comparable(tmp_path: Path) -> None:
    reward = EvaluateConfig(champion=ChampionRule(measure="reward", temperature=0))
    warm = EvaluateConfig(champion=ChampionRule(measure="recall", temperature=1))
    other_examples = {n: example.model_copy(update={"context": f"other {n}"}) for n, example in EXAMPLES.items()}
    with mlflow_store(tmp_path) as patch:
        record_pipeline("first", patch, beta="0.1", judge="lexical", recalls=OTTER, config=reward)
        message = record_pipeline("other judge", patch, beta="0.1", judge="gpt", recalls=HERON, config=reward)
        assert "the two cannot be compared: reward is by different judges (lexical and gpt). Move the alias" in message
        message = record_pipeline(
            "other prompts", patch, beta="0.1", judge="lexical", recalls=HERON, examples=other_examples, config=reward
        )
        assert "the two cannot be compared: they have no held-out prompt in common" in message
        message = record_pipeline("other measure", patch, beta="0.1", judge="gpt", recalls=HERON, config=warm)
        assert "the two cannot be compared: the champion's recall at t1 was not measured" in message
        assert past_run("champion").name == "first"
        record_pipeline("comparable", patch, beta="0.1", judge="lexical", recalls=HERON, config=reward)
        assert past_run("champion").name == "comparable"


def test_find_run_without_champion(store: MlflowClient) -> None:
    with pytest.raises(ConfigError, match="no version of the registered model 'other' is the champion yet"):
        find_run("champion", registered_model="other")


def test_find_run_creates_no_store(workspace: Path) -> None:
    with pytest.raises(
        ConfigError, match="has no runs yet; change to the folder of a project with runs, or set MLFLOW"
    ):
        find_run("last", registered_model="other")
    assert list(workspace.iterdir()) == []


def test_compare_settings_data_measures_and_prompts(
    store: MlflowClient,
) -> None:
    comparison = compare(past_run("otter"), past_run("heron"), top=1)
    assert [(difference.name, difference.first, difference.second) for difference in comparison.params] == [
        ("train.beta", "0.1", "0.3")
    ]
    assert [difference.name for difference in comparison.data] == ["models/dpo"]
    (recall,) = comparison.changes  # the SFT models are one and the same
    assert (recall.measure, recall.first.value, recall.second.value) == ("recall", 0.5125, pytest.approx(0.9))
    assert recall.difference.value == pytest.approx(0.3875)
    assert comparison.overlap.both == 8
    assert (comparison.higher, comparison.lower) == (8, 0)
    (moved,) = comparison.prompts
    assert (moved.id, moved.query, moved.before, moved.after) == ("1", "question 1?", 0.4, 0.9)
    assert (moved.first_answer, moved.second_answer) == ("dpo of otter", "dpo of heron")
    page = to_markdown(comparison)
    assert "| train.beta | 0.1 | 0.3 |" in page
    assert "| greedy | recall | 0.512 | 0.900 | +0.388 |" in page
    assert json.loads(json.dumps(to_json(comparison)))["changes"][0]["difference"]["value"] == pytest.approx(0.3875)


def test_compare_without_evaluation_or_measure(store: MlflowClient) -> None:
    with pytest.raises(ConfigError, match=r"run unevaluated \(finished\) has no evaluation: run the stage"):
        compare(past_run("otter"), past_run("unevaluated"))
    with pytest.raises(ConfigError, match="measure 'reward' was not taken in both runs; they have recall"):
        compare(past_run("otter"), past_run("heron"), measure="reward")


def test_read_artifact_missing_file(store: MlflowClient) -> None:
    with pytest.raises(DataError, match=r"evaluation/measures.json of run .* cannot be read: .*--stages evaluate"):
        read_artifact(past_run("failed").id, "evaluation/measures.json")


def test_compare_command_output_and_error(store: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "otter", "champion"]) == 0
    output = capsys.readouterr().out
    lines = [line.split() for line in output.splitlines()]
    assert ["train.beta", "0.1", "0.3"] in lines
    assert ["1", "of", "d1,", "0.400", "→", "0.900:", "question", "1?"] in lines
    assert ["heron:", "dpo", "of", "heron"] in [line[1:] for line in lines]
    assert main(["compare", "otter", "hern"]) == 1
    assert "longreward: error: there is no run 'hern'" in capsys.readouterr().err


def test_note_of_first_champion(store: MlflowClient) -> None:
    text = read_note(past_run("otter"))
    parts = [text.index(part) for part in ("**otter** finished", " shown", "### Against its SFT model", "- model `")]
    assert parts == sorted(parts)  # the result comes first
    assert text.startswith("**otter** finished after ")
    assert "- model `tiny`, judge `lexical`" in text
    assert "| greedy | recall | 0.256 | 0.512 | +0.256 |" in text
    assert "There was none yet; this model became the champion." in text
    evaluation = past_run("otter").evaluation
    assert f"| [evaluate](#/experiments/1/runs/{evaluation}?workflowType=machine_learning) | " in text


def test_note_compares_with_champion_before_run(store: MlflowClient) -> None:
    text = read_note(past_run("heron"))
    link = f"#/experiments/1/runs/{past_run('otter').id}?workflowType=machine_learning"
    assert f"It was compared with [otter]({link}) and became the champion." in text
    assert "| greedy | recall | 0.512 | 0.900 | +0.388 |" in text
    assert "| train.beta | 0.1 | 0.3 |" in text


def test_note_of_failed_and_unevaluated_run(
    store: MlflowClient,
) -> None:
    assert "**It failed:**\n\n```\nValueError: no pair in data/pairs\n```" in read_note(past_run("failed"))
    text = read_note(past_run("unevaluated"))
    assert "No model of this run has been evaluated." in text
    assert "- settings of this run alone: `train.beta=0.5, pair.min_scored=4`" in text


def test_note_of_stopped_run(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        record_stopped_pipeline(monkeypatch)
    text = read_note(past_run("stopped"))
    assert text.startswith("**It was stopped** in sample; the next run continues from there.")
    assert "| killed |" in text


def test_compare_warns_about_different_judges(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    record_pipeline("strict", monkeypatch, beta="0.3", judge="other", recalls=HERON)
    comparison = compare(past_run("heron"), past_run("strict"))
    assert [difference.name for difference in comparison.data] == ["judge", "models/dpo"]
    assert comparison.warnings == ()  # recall is measured without a judge
    assert comparison.prompts == ()
    assert "No shared prompt changed, by recall at greedy" in to_markdown(comparison)
    for name, judge, reward in (("rewarded", "lexical", 6.5), ("strictly", "other", 7.5), ("again", "other", 8.0)):
        record_pipeline(name, monkeypatch, beta="0.3", judge=judge, recalls=HERON, reward=reward)
    comparison = compare(past_run("rewarded"), past_run("strictly"))
    (warning,) = comparison.warnings
    assert "The judges differ (lexical and other): the reward and its dimensions are not on one scale" in warning
    assert warning in to_markdown(comparison)
    assert to_json(comparison)["warnings"] == [warning]
    assert compare(past_run("strictly"), past_run("again")).warnings == ()  # one judge, so that rewards compare


def by_example(measure: str, values: Sequence[float]) -> Values:
    return {n: {measure: value} for n, value in zip(EXAMPLES, values, strict=False)}


def test_compare_at_common_temperatures(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    dull, warm, hot = (
        by_example("recall", OTTER),
        by_example("recall", HERON),
        by_example("recall", (0.6, 0.5, 0.6, 0.6, 0.5, 0.6, 0.5, 0.4)),
    )
    first = record_evaluation(
        "three", monkeypatch, {"dpo greedy": dull, "dpo t0.5": warm, "dpo t1": dull, "sft t0.3": hot}
    )
    second = record_evaluation(
        "two", monkeypatch, {"dpo t0.5": dull, "dpo t1": hot, "dpo t0.7": warm, "sft greedy": dull}
    )
    comparison = compare(first, second, top=1)
    assert [
        (difference.comparison, difference.first.value, difference.second.value) for difference in comparison.changes
    ] == [
        ("t0.5", pytest.approx(0.9), 0.5125),
        ("t1", 0.5125, 0.5375),
    ]
    # Neither has greedy answers of both, so that prompts are ranked at the highest temperature: 4 of 8 differ there.
    assert (comparison.decoding, comparison.higher, comparison.lower) == ("t1", 3, 1)
    (moved,) = comparison.prompts
    assert (moved.id, moved.before, moved.after) == ("1", 0.4, 0.6)
    assert (moved.first_answer, moved.second_answer) == ("dpo t1 of three", "dpo t1 of two")
    assert "Prompts that changed most, by recall at t1 (higher for 3, lower for 1)" in to_markdown(comparison)
    third = record_evaluation("other", monkeypatch, {"dpo t0.2": warm, "sft t1": warm})
    with pytest.raises(ConfigError, match=r"no measure at a decoding in common: .*dpo t0\.5.* against .*dpo t0\.2"):
        compare(first, third)


def test_compare_counts_all_changed_prompts(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    first = record_evaluation(
        "before", monkeypatch, {"dpo greedy": by_example("recall", (0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5))}
    )
    second = record_evaluation(
        "after", monkeypatch, {"dpo greedy": by_example("recall", (0.4, 0.6, 0.5, 0.2, 0.3, 0.45, 0.9))}
    )
    comparison = compare(first, second, top=2)
    assert (comparison.higher, comparison.lower, len(comparison.prompts)) == (2, 4, 2)
    assert [(difference.id, difference.after) for difference in comparison.prompts] == [("7", 0.9), ("4", 0.2)]
    assert "(higher for 2, lower for 4)" in to_markdown(comparison)
    assert (
        "**7** of d7, 0.500 → 0.900: question 7?\n\n- before: dpo greedy of before\n- after: dpo greedy of after"
        in (to_markdown(comparison))
    )


def test_compare_sft_models_if_different(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"dpo greedy": by_example("recall", OTTER), "sft greedy": by_example("recall", OTTER)}
    new = {"dpo greedy": by_example("recall", OTTER), "sft greedy": by_example("recall", HERON)}
    first, second = (
        record_evaluation("old-sft", monkeypatch, old),
        record_evaluation("new-sft", monkeypatch, new, sft_model="bb"),
    )
    changes = compare(first, second).changes
    assert [(difference.model, difference.comparison, difference.second.value) for difference in changes] == [
        ("dpo", "greedy", 0.5125),
        ("sft", "greedy", pytest.approx(0.9)),
    ]
    # Both models' measures are claims of one report.
    assert changes[1].difference.p_corrected == 2 * changes[1].difference.p == 2 * 2 / 2**8
    page = to_markdown(compare(first, second))
    assert page.index("## DPO model") < page.index("## SFT model")
    assert "| greedy | recall | 0.512 | 0.900 | +0.388 |" in page
    assert "| 0.016 | better |" in page


def test_report_marks_significant_changes_after_correction(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, recall: float, unsupported: float, exact: float, tokens: float) -> PastRun:
        values = {"recall": recall, "unsupported": unsupported, "exact": exact, "tokens": tokens}
        return record_evaluation(name, monkeypatch, {"dpo greedy": dict.fromkeys(EXAMPLES, values)})

    page = to_markdown(compare(run("plain", 0.5, 0.2, 0.6, 20), run("mixed", 0.75, 0.5, 0.6, 25.25)))
    rows = {line.split(" | ")[1]: line.split(" | ")[4:] for line in page.splitlines() if line.startswith("| greedy |")}
    assert (rows["recall"][0], rows["recall"][2:]) == ("+0.250", ["0.023", "better |"])  # three claims, 2 / 2 ** 8 each
    assert (rows["unsupported"][0], rows["unsupported"][2:]) == ("+0.300", ["0.023", "worse |"])
    assert (rows["exact"][0], rows["exact"][2:]) == ("+0.000", ["1.000", " |"])
    assert rows["tokens"][0] == "+5.2"
    assert rows["tokens"][2:] == ["", " |"]


def test_compare_uses_confidence_of_second_run(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str, recalls: Sequence[float], confidence: float) -> PastRun:
        return record_evaluation(
            name, monkeypatch, {"dpo greedy": by_example("recall", recalls)}, confidence=confidence
        )

    loose, strict = run("loose", OTTER, 0.6), run("strict-one", HERON, 0.99)
    assert [difference.difference.level for difference in compare(loose, strict).changes] == [pytest.approx(0.01)]
    assert [difference.difference.level for difference in compare(strict, loose).changes] == [pytest.approx(0.4)]


def test_compare_ranks_prompts_by_requested_or_champion_measure(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, measure: str, rewards: Sequence[float], recalls: Sequence[float]) -> PastRun:
        values = {
            n: {"reward": reward, "recall": recall, "exact": 0.5}
            for n, reward, recall in zip(EXAMPLES, rewards, recalls, strict=False)
        }
        return record_evaluation(name, monkeypatch, {"dpo greedy": values}, champion={"measure": measure})

    first = run("by-recall", "recall", (5, 6, 7), (0.1, 0.2, 0.3))
    second = run("by-exact", "exact", (9, 6, 8), (0.1, 0.9, 0.2))
    assert [(difference.id, difference.after) for difference in compare(first, second, measure="reward").prompts] == [
        ("1", 9),
        ("3", 8),
    ]
    assert compare(first, second).measure == "exact"
    assert [(difference.id, difference.after) for difference in compare(second, first).prompts] == [
        ("2", 0.2),
        ("3", 0.3),
    ]
