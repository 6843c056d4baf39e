import xml.etree.ElementTree as ElementTree

import pytest

from longreward.evaluation.tables import Taken
from longreward.params import read_params
from longreward.study.arms import NAMES, QUICK, WHOLE, cells
from longreward.study.outcome import Answers, outcome
from longreward.study.page import markdown, pictures

DOCUMENTS = 8


def run(arm: str, seed: int, exact: float, *, sft: float = 0.25) -> Answers:
    """Eight held-out documents, each with one greedy answer of each model."""
    taken = [
        Taken(model, "greedy", f"{n}-0", f"d{n}", f"p{n}", {"exact": value, "tokens": 16.0})
        for model, value in (("sft", sft), ("dpo", exact))
        for n in range(DOCUMENTS)
    ]
    return Answers(arm, seed, taken)


def test_every_setting_of_every_arm_is_one_that_params_know():
    for cell in [*cells(WHOLE), *cells(QUICK)]:
        params = read_params(None, cell.settings)
        assert {params.prepare.seed, params.train.seed, params.evaluate.seed, params.pair.seed} == {cell.seed}
    by_name = {cell.arm.name: read_params(None, cell.settings) for cell in cells(WHOLE)}
    assert by_name["srm"].pair.method == "srm"
    assert by_name["no-faithfulness"].pair.weights.by_dimension() == {
        "helpfulness": 1,
        "logicality": 1,
        "faithfulness": 0,
        "completeness": 1,
    }
    assert len(by_name) == len(NAMES) == 12


def test_the_arms_of_a_seed_follow_each_other_so_that_they_share_stages():
    order = [(cell.seed, cell.arm.name) for cell in cells(WHOLE)]
    assert order == sorted(order, key=lambda place: place[0])
    assert cells(WHOLE)[0].run_name("study") == "study-longreward-s0"


def test_differences_are_taken_seed_by_seed_on_the_same_prompts():
    found = outcome(
        [
            run("longreward", 0, 0.75),
            run("random", 0, 0.25),
            run("longreward", 1, 0.5, sft=0.0),
            run("random", 1, 0.5, sft=0.0),
        ]
    )
    assert found.seeds == (0, 1)
    assert found.means["sft", "greedy"]["exact"].value == 0.125
    assert found.means["longreward", "greedy"]["exact"].value == 0.625
    against_sft = found.effect("longreward", "sft", "greedy", "exact")
    assert against_sft.by_seed == {0: 0.5, 1: 0.5}
    assert (against_sft.difference.value, against_sft.gain) == (0.5, 1)
    against_chance = found.effect("longreward", "random", "greedy", "exact")
    assert against_chance.by_seed == {0: 0.5, 1: 0.0}
    assert against_chance.difference.value == 0.25
    assert found.effect("random", "longreward", "greedy", "exact").turned().difference.value == 0.25


def test_a_seed_that_one_arm_lacks_is_left_out_of_their_difference():
    found = outcome([run("longreward", 0, 0.75), run("random", 0, 0.25), run("longreward", 1, 0.0)])
    assert found.effect("longreward", "random", "greedy", "exact").by_seed == {0: 0.5}


def test_the_page_says_what_is_shown_and_what_not():
    page = markdown(outcome([run("longreward", 0, 0.75), run("random", 0, 0.75), run("no-faithfulness", 0, 0.25)]))
    assert "| longreward − sft | greedy | exact | +0.500 | [+0.500, +0.500] | +0.500 | better |" in page
    assert "| longreward − random | greedy | exact | +0.000 | [+0.000, +0.000] | +0.000 | not shown |" in page
    assert "| no-faithfulness − longreward | greedy | exact | -0.500 |" in page
    assert "| no-faithfulness | as longreward, without faithfulness |" in page
    assert "| longreward | 0.750 | 16.0 |" in page


def test_the_pictures_show_every_arm():
    drawn = pictures(outcome([run("longreward", 0, 0.75), run("random", 0, 0.25)]))
    [text] = drawn.values()
    ElementTree.fromstring(text)
    assert "exact, longreward: 0.750" in text
    assert "exact, sft: 0.250" in text


def test_fewer_than_six_documents_show_nothing():
    few = [Answers("longreward", 0, run("longreward", 0, 1.0, sft=0.0).taken[:4] + run("x", 0, 1.0).taken[8:12])]
    assert outcome(few).effect("longreward", "sft", "greedy", "exact").gain == 0


@pytest.mark.parametrize("size", [WHOLE, QUICK])
def test_no_two_runs_have_one_name(size):
    names = [cell.run_name("study") for cell in cells(size)]
    assert len({*names}) == len(names)
