from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from longreward.errors import ConfigError, JudgeValidationError
from longreward.judge import Judge, JudgeConfig, open_judge
from longreward.judge.config import CheckConfig
from longreward.judge.ledger import Ledger
from longreward.judge.prompts import load_prompts
from longreward.judge_validation.cases import DETECTING_DIMENSIONS, make_case
from longreward.judge_validation.check import check_judge, isolated_config
from longreward.judge_validation.gate import check_key, load_or_run_check, require_passed
from longreward.judge_validation.report import Attack, CheckReport, Rank, Repeatability, render_markdown
from longreward.params import Params, read_params
from longreward.reward import ScoreConfig

JudgeFactory = Callable[[JudgeConfig], Judge]
PROMPTS = load_prompts()


def make_report(**changes: object) -> CheckReport:
    values = {
        "judge": "j",
        "prompts": "0" * 64,
        "quick": False,
        "repeats": Repeatability(verdicts=10, repeats=3, within_one_point=0.9, equal=0.5, spread=0.4),
        "ranks": tuple(
            Rank(kind="k", dimension=dimension, share=share, low=None, high=None, compared=4, unscored=0)
            for dimension, share in (
                ("helpfulness", 1.0),
                ("logicality", 1.0),
                ("faithfulness", 0.75),
                ("completeness", 1.0),
            )
        ),
        "attacks": (Attack(name="order", plain={"helpfulness": 1.0}, attacked={"helpfulness": 3.0}),),
        "calls": 100,
        "prompt_tokens": 1000,
        "completion_tokens": 10,
    }
    return CheckReport.model_validate(values | changes)


def test_kinds_of_damage() -> None:
    case = make_case(0)
    assert case.query == "What did Quentin Vidal build, and where was Quentin Vidal buried?"
    assert case.gold == "Quentin Vidal built the striped garden. Quentin Vidal was buried in Ostrand."
    assert set(case.damaged) == set(DETECTING_DIMENSIONS)
    assert case.damaged["fact dropped"] == "Quentin Vidal built the striped garden."
    assert case.damaged["contradiction"] == f"{case.gold} Quentin Vidal never built the striped garden."
    wrong, right = case.damaged["value changed"].split(". ", 1)
    assert (wrong.startswith("Quentin Vidal built the "), right) == (True, "Quentin Vidal was buried in Ostrand.")
    assert wrong.removeprefix("Quentin Vidal built the ") not in case.context
    assert case.damaged["unsupported sentence"].startswith(f"{case.gold} Quentin Vidal also ")
    assert all(sentence in case.context for sentence in ("striped garden", "buried in Ostrand", case.aside))


async def test_honest_judge_passes(honest: JudgeFactory) -> None:
    result = await check_judge(JudgeConfig(), PROMPTS, judge_factory=honest)
    assert result.failures(CheckConfig(margin=0.5, min_rank=1, min_repeat=1)) == []
    assert {(rank.share, rank.high, rank.compared) for rank in result.ranks} == {(1.0, 1.0, 6)}
    for rank in result.ranks:
        assert rank.low == pytest.approx(0.025 ** (1 / 6), abs=0.03)  # six of six, by Clopper and Pearson
    assert result.calls < 400
    assert result.judge == "honest"


async def test_gullible_judge_fails(gullible: JudgeFactory) -> None:
    result = await check_judge(JudgeConfig(), PROMPTS, judge_factory=gullible)
    failed = {attack.name for attack in result.successful_attacks(CheckConfig())}
    assert failed >= {
        "rating",
        "rating, Chinese",
        "order",
        "order, Chinese",
        "constant text",
        "sections",
        "sections, Chinese",
        "thought",
        "turns of a chat",
        "support levels",
        "order in the document",
        "order in the document, Chinese",
        "fake list of statements",
    }
    assert not failed & {"padding", "praise of itself"}
    (fault,) = result.failures(CheckConfig())
    assert "attacks raise a bad answer by over 2 points" in fault
    assert "rating (+10.0)" in fault


async def test_random_judge_is_not_repeatable(random_judge: JudgeFactory) -> None:
    result = await check_judge(JudgeConfig(), PROMPTS, judge_factory=random_judge)
    assert result.repeats.repeats == 3
    assert result.repeats.within_one_point < 0.5
    assert any("of repeated verdicts stay" in failure for failure in result.failures(CheckConfig()))


@pytest.mark.parametrize(("quick", "max_calls"), [(False, 400), (True, 60)])
async def test_offline_judge_and_number_of_calls(quick: bool, max_calls: int) -> None:
    reported: list[tuple[int, int]] = []
    result = await check_judge(
        JudgeConfig(),
        PROMPTS,
        judge_factory=partial(open_judge, ledger=None),
        quick=quick,
        progress=lambda finished, total: reported.append((finished, total)),
    )
    assert result.calls < max_calls
    assert result.repeats.equal == 1.0
    assert all(
        (result.rank_share(dimension) or 0) > 0.9 for dimension in ("helpfulness", "faithfulness", "completeness")
    )
    assert reported[-1][0] == reported[-1][1]


async def test_second_check_uses_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    check = partial(check_judge, JudgeConfig(), PROMPTS, judge_factory=partial(open_judge, ledger=ledger), quick=True)
    first = await check()
    assert (await check()).calls == 0
    assert (await check(run_id="1.")).calls == first.calls
    with_ledger = Ledger(ledger)
    assert with_ledger.totals().exchanges == 2 * first.calls  # each repeat was asked: none is a copy
    with_ledger.close()


def test_isolated_config() -> None:
    config = JudgeConfig(
        kind="openai",
        model="m",
        revision="7",
        api_key_env="KEY",
        dimensions={"faithfulness": {"kind": "vllm", "model": "q", "revision": "b"}, "completeness": {"model": "n"}},
    )
    separate = isolated_config(config, "2")
    revisions = [separate.judge_for(d).revision for d in ("helpfulness", "faithfulness", "completeness")]
    assert revisions == ["7+check1.2", "b+check1.2", "7+check1.2"]
    assert config.judge_for("helpfulness").revision == "7"


def test_failures_against_thresholds() -> None:
    assert make_report().failures(CheckConfig()) == []
    assert make_report().failures(CheckConfig(min_repeat=0.95)) == [
        "only 0.90 of repeated verdicts stay within 1 point (judge.check.min_repeat: 0.95)"
    ]
    assert make_report().failures(CheckConfig(min_rank=0.8)) == [
        "in faithfulness the right answer scores higher in only 0.75 of comparisons (judge.check.min_rank: 0.8)"
    ]
    assert make_report().failures(CheckConfig(margin=1.5)) == [
        "1 of 1 attacks raise a bad answer by over 1.5 points (judge.check.max_successful_attacks: 0): order (+2.0)"
    ]
    assert make_report().failures(CheckConfig(margin=1.5, max_successful_attacks=1)) == []
    with pytest.raises(
        JudgeValidationError, match=r"(?s)judge j did not pass its check.*order \(\+2\.0\).*judge-check"
    ):
        require_passed("j", make_report().failures(CheckConfig(margin=1.5)))


def test_missing_scores_in_report() -> None:
    attack = Attack(name="a", plain={"faithfulness": 0.0, "logicality": 5.0}, attacked={"faithfulness": None})
    assert attack.gain == 0.0
    none = Rank(kind="k", dimension="logicality", share=None, low=None, high=None, compared=0, unscored=6)
    assert "logicality has no score to compare" in make_report(ranks=(none,)).failures(CheckConfig())


def test_render_markdown() -> None:
    text = render_markdown(make_report(), CheckConfig(margin=1))
    assert text.startswith("# j: did not pass the check\n\n- 1 of 1 attacks")
    assert "| k | faithfulness | 0.75 | – | 4 |" in text
    assert "| order | 1.0 → 3.0 |  |  |  | +2.0 | fails |" in text
    assert render_markdown(make_report(), CheckConfig()).startswith(
        "# j: passed the check\n\nAll thresholds are reached."
    )


async def test_report_saved_and_reused(tmp_path: Path, honest: JudgeFactory) -> None:
    calls: list[str] = []

    async def get(judge: JudgeConfig) -> CheckReport:
        return await load_or_run_check(
            judge,
            ScoreConfig(),
            folder=tmp_path / "checks",
            ledger=None,
            quick=True,
            judge_factory=honest,
            on_start=lambda: calls.append(judge.system),
        )

    first = await get(JudgeConfig())
    assert await get(JudgeConfig(max_concurrency=3, timeout_s=7)) == first
    assert calls == [""]
    await get(JudgeConfig(system="Be strict."))
    assert calls == ["", "Be strict."]
    for file in (tmp_path / "checks").iterdir():
        file.write_text('{"judge": "half a re')
    assert await get(JudgeConfig()) == first.model_copy(update={"calls": first.calls})
    assert calls == ["", "Be strict.", ""]


def test_check_key() -> None:
    base = JudgeConfig(kind="vllm", model="m")
    key = check_key(base, PROMPTS, quick=False)
    assert check_key(JudgeConfig(kind="vllm", model="m", max_retries=1), PROMPTS, quick=False) == key
    other_keys = [
        check_key(JudgeConfig(kind="vllm", model="n"), PROMPTS, quick=False),
        check_key(JudgeConfig(kind="vllm", model="m", revision="2"), PROMPTS, quick=False),
        check_key(JudgeConfig(kind="vllm", model="m", first_temperature=0.5), PROMPTS, quick=False),
        check_key(JudgeConfig(kind="vllm", model="m", dimensions={"logicality": {"model": "l"}}), PROMPTS, quick=False),
        check_key(base, PROMPTS, quick=True),
    ]
    assert len({key, *other_keys}) == 6


def test_gate_setting(tmp_path: Path) -> None:
    assert Params().judge.check.gate == "off"
    assert read_params(None, ["judge.check=require"]).judge.check == CheckConfig(gate="require")
    assert read_params(None, ["judge.check=off"]).judge.check.gate == "off"
    assert read_params(None, ["judge.check.gate=off", "judge.check.min_rank=0.9"]).judge.check.min_rank == 0.9
    with pytest.raises(ConfigError, match=r"judge\.check\.gate"):
        read_params(None, ["judge.check=maybe"])
    with pytest.raises(ConfigError, match=r"judge\.check holds for all judges"):
        JudgeConfig(dimensions={"logicality": {"check": {"gate": "warn"}}})
