import re
from dataclasses import replace

import pytest

from longreward.errors import ConfigError
from longreward.evaluation.example_metrics import ExampleMetrics
from longreward.params import preset_path, read_params
from longreward.study.arms import ARM_NAMES, FULL, QUICK, check_arm, plan_cells, plan_study
from longreward.study.page import COLUMNS, PAPER, render_page, render_plots
from longreward.study.results import RunResult, summarize_runs

DOCUMENTS = 8


def run(arm: str, seed: int, exact: float, *, sft: float = 0.25) -> RunResult:
    """Eight held-out documents, each with one greedy answer of each model."""
    examples = [
        ExampleMetrics(model, "greedy", f"{n}-0", f"d{n}", f"p{n}", {"exact": value, "tokens": 16.0})
        for model, value in (("sft", sft), ("dpo", exact))
        for n in range(DOCUMENTS)
    ]
    return RunResult(arm, seed, examples)


def test_arm_settings_are_valid():
    for cell in [*plan_cells(FULL), *plan_cells(QUICK)]:
        params = read_params(None, cell.settings)
        assert params.evaluate.registered_model == "longreward-study"
        assert {params.prepare.seed, params.train.seed, params.evaluate.seed, params.pair.seed} == {cell.seed}
    by_name = {cell.arm.name: read_params(None, cell.settings) for cell in plan_cells(FULL)}
    assert by_name["srm"].pair.method == "srm"
    assert by_name["no-faithfulness"].pair.weights == {
        "helpfulness": 1,
        "logicality": 1,
        "faithfulness": 0,
        "completeness": 1,
    }
    assert len(by_name) == len(ARM_NAMES) == 12


def test_arms_of_one_seed_run_in_sequence():
    order = [(cell.seed, cell.arm.name) for cell in plan_cells(FULL)]
    assert order == sorted(order, key=lambda cell: cell[0])
    assert plan_cells(FULL)[0].run_name("study") == "study-longreward-s0"


def test_differences_paired_within_seed():
    results = summarize_runs(
        [
            run("longreward", 0, 0.75),
            run("random", 0, 0.25),
            run("longreward", 1, 0.5, sft=0.0),
            run("random", 1, 0.5, sft=0.0),
        ]
    )
    assert results.seeds == (0, 1)
    assert results.means["sft", "greedy"]["exact"].value == 0.125
    assert results.means["longreward", "greedy"]["exact"].value == 0.625
    against_sft = results.effect("longreward", "sft", "greedy", "exact")
    assert against_sft.by_seed == {0: 0.5, 1: 0.5}
    assert (against_sft.difference.value, against_sft.gain) == (0.5, 1)
    assert against_sft.difference.documents == 2 * DOCUMENTS  # one name in two seeds is two documents
    against_chance = results.effect("longreward", "random", "greedy", "exact")
    assert against_chance.by_seed == {0: 0.5, 1: 0.0}
    assert against_chance.difference.value == 0.25
    assert results.effect("random", "longreward", "greedy", "exact").reversed().difference.value == 0.25


def test_seed_missing_in_one_arm_excluded_from_difference():
    results = summarize_runs([run("longreward", 0, 0.75), run("random", 0, 0.25), run("longreward", 1, 0.0)])
    assert results.effect("longreward", "random", "greedy", "exact").by_seed == {0: 0.5}


def test_page_marks_significant_differences():
    page = render_page(
        summarize_runs([run("longreward", 0, 0.75), run("random", 0, 0.75), run("no-faithfulness", 0, 0.25)])
    )
    # Six comparisons, five of them with a difference in all eight documents: p = 2 / 2 ** 8, times 6.
    [better] = [line for line in page.splitlines() if line.startswith("| longreward − sft | greedy | exact | +0.500 |")]
    assert re.search(r"\| \[\+0\.\d+, \+0\.\d+\] \| 0\.047 \| \+0\.500 \| better \|$", better)
    [equal] = [line for line in page.splitlines() if line.startswith("| longreward − random | greedy | exact |")]
    assert re.search(r"\| \+0\.000 \| \[-0\.\d+, \+0\.\d+\] \| 1\.000 \| \+0\.000 \| not shown \|$", equal)
    assert "corrected for all 6 comparisons of the study (Holm)" in page
    assert "| no-faithfulness − longreward | greedy | exact | -0.500 |" in page
    assert "| no-faithfulness | as longreward, without faithfulness |" in page
    assert re.search(r"\| longreward \| 0\.750 \[0\.\d+, [01]\.\d+\] \| 16\.0 \[", page)


def test_comparison_in_both_directions_is_one_test() -> None:
    two = summarize_runs([run("longreward", 0, 0.75), run("random", 0, 0.25)])
    assert two.tests == 3  # either against SFT, and one against the other
    forward, back = (
        two.effect("longreward", "random", "greedy", "exact"),
        two.effect("random", "longreward", "greedy", "exact"),
    )
    assert forward is not None
    assert back is not None
    assert forward.difference.p_corrected == back.difference.p_corrected == pytest.approx(3 * 2 / 2**8)
    turned = forward.reversed().difference
    assert (turned.value, turned.low) == pytest.approx((back.difference.value, back.difference.low))
    many = summarize_runs(
        [run(arm, 0, 0.75) for arm in ("longreward", "srm", "contrast", "pairwise", "mixed")] + [run("random", 0, 0.25)]
    )
    assert many.tests == 21 - 6  # the arms that nothing is compared with have no tests among themselves
    assert many.effect("longreward", "random", "greedy", "exact").gain == 0


def test_charts_show_all_arms():
    plots = render_plots(summarize_runs([run("longreward", 0, 0.75), run("random", 0, 0.25)]))
    [figure] = plots.values()
    [axis] = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["longreward", "random"]
    points = [container.lines[0].get_xdata()[0] for container in axis.containers]
    assert points == pytest.approx([0.5, 0.0])


def test_mixing_compared_with_long_and_short_pairs():
    results = summarize_runs([run("longreward", 0, 0.75), run("mixed", 0, 0.5), run("short-only", 0, 0.25)])
    page = render_page(results)
    assert re.search(r"\| mixed − longreward \| greedy \| exact \| -0\.250 \| .* \| -0\.250 \| worse \|", page)
    assert "| mixed − short-only | greedy | exact | +0.250 |" in page
    assert "| short-only − sft | greedy | exact | +0.000 |" in page


def test_without_gold_facts_judge_scores_compared():
    def judged(arm: str, reward: float) -> RunResult:
        examples = [
            replace(one, values={"reward": reward if one.model == "dpo" else 5.0}) for one in run(arm, 0, 0).examples
        ]
        return RunResult(arm, 0, examples)

    results = summarize_runs([judged("longreward", 8.0), judged("random", 5.0)])
    assert "| longreward − random | greedy | reward | +3.000 |" in render_page(results)
    [figure] = render_plots(results).values()
    assert figure.axes[0].containers[0].lines[0].get_xdata()[0] == 3.0


def figures(chat: float, single: float) -> dict[str, dict[str, float]]:
    of_dpo = {
        "longbench_chat/score": chat,
        "longbench/class/single_doc_qa": single,
        "longbench/class/multi_doc_qa": 50.0,
        "longbench/class/summarization": 40.0,
    }
    return {"sft": {"longbench_chat/score": 60.0}, "dpo": of_dpo}


def test_page_shows_benchmarks_next_to_paper():
    runs = [replace(run("longreward", seed, 0.5), benchmarks=figures(70.0 + seed, 66.0)) for seed in (0, 1)]
    page = render_page(summarize_runs(runs), preset="paper-llama3.1-8b")
    assert "| sft | 60.0 (69.8) | (66.1) | (44.5) | (39.6) | (55.0) |" in page
    assert "| longreward | 70.5 (72.6) | 66.0 (67.8) | 50.0 (55.8) | 40.0 (43.2) | 56.6 (59.9) |" in page
    assert "| contrast | (70.6) | (67.8) | (46.2) | (40.3) | (56.2) |" in page
    assert "| longreward | 70.5 | 66.0 | 50.0 | 40.0 | 56.6 |" in render_page(summarize_runs(runs), preset="laptop")
    assert "Benchmarks" not in render_page(summarize_runs([run("longreward", 0, 0.5)]))


def test_means_of_paper_match_columns():
    for arms_of in PAPER.values():
        for *figures_of, mean in arms_of.values():
            assert sum(figures_of) / len(COLUMNS) == pytest.approx(mean, abs=0.051)


@pytest.mark.parametrize("preset", ["paper-llama3.1-8b", "paper-glm4-9b"])
def test_other_model_keeps_settings_and_mixes_in_ultrafeedback(preset):
    plain = read_params(preset_path(preset))
    plan = plan_study(plain, quick=False)
    cells = plan_cells(replace(plan, seeds=(0,)))
    params = {cell.arm.name: read_params(preset_path(preset), cell.settings) for cell in cells}
    assert plan.skipped_stages == ()
    assert params["longreward"].train == plain.train
    assert params["mixed"].train.short.source == "hub:HuggingFaceH4/ultrafeedback_binarized"
    assert params["short-only"].train.short.alone
    srm = next(cell for cell in cells if cell.arm.name == "srm")
    with pytest.raises(ConfigError, match=r"the arm srm needs a reward model: .*pair\.srm\.model"):
        check_arm(srm.arm, params["srm"])
    check_arm(srm.arm, read_params(preset_path(preset), [*srm.settings, "pair.srm.model=org/reward"]))
    with pytest.raises(ConfigError, match="--quick is for the tiny base"):
        plan_study(plain, quick=True)


def test_user_short_preferences_mixed_in():
    own = ("policy.base_model=org/model", "train.short.source=data/raw/prefs.jsonl")
    plan = replace(plan_study(read_params(None, own), quick=False), settings=own)
    params = {cell.arm.name: read_params(None, cell.settings) for cell in plan_cells(plan)}
    assert params["longreward"].train.short.source is None
    assert params["mixed"].train.short.source == params["short-only"].train.short.source == "data/raw/prefs.jsonl"


def test_fewer_than_six_documents_are_not_significant():
    few = [
        RunResult("longreward", 0, run("longreward", 0, 1.0, sft=0.0).examples[:4] + run("x", 0, 1.0).examples[8:12])
    ]
    assert summarize_runs(few).effect("longreward", "sft", "greedy", "exact").gain == 0


@pytest.mark.parametrize("plan", [FULL, QUICK])
def test_run_names_are_unique(plan):
    names = [cell.run_name("study") for cell in plan_cells(plan)]
    assert len({*names}) == len(names)
