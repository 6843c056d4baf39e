from pathlib import Path

from label_sets import CONTEXT, make_item

from longreward.builtin.offline_judge.judge import NAME
from longreward.human_labels.items import ReviewItem
from longreward.human_labels.verdicts import judge_rounds, live_config
from longreward.judge import JudgeConfig
from longreward.judge.ledger import Ledger
from longreward.records import Evidence
from longreward.reward import ScoreConfig

ITEMS = [
    make_item("supported"),
    make_item(
        "unsupported",
        statement="Bo Ray founded Keld in 1800.",
        evidence=(Evidence(start=37, end=63, text=CONTEXT[37:63]),),
    ),
    make_item("right first", "preference", responses=("Ann Lee founded Keld.", "Bo Ray founded Keld.")),
    make_item("wrong first", "preference", responses=("Bo Ray founded Keld.", "Ann Lee founded Keld.")),
    make_item("same", "preference", responses=("Ann Lee founded Keld.", "Ann Lee founded Keld.")),
    make_item("complete", "score", responses=("Ann Lee founded Keld.",)),
    make_item("helpful", "score", aspect="helpfulness", responses=("Ann Lee founded Keld.",)),
]


async def judge(items: list[ReviewItem], ledger: Path, *, rounds: int = 1) -> list[dict[str, float | None]]:
    name, verdicts = await judge_rounds(items, JudgeConfig(), ScoreConfig(), rounds=rounds, ledger=ledger)
    assert name == NAME
    return verdicts


async def test_verdicts_on_the_scale_of_the_labels(tmp_path: Path) -> None:
    (verdicts,) = await judge(ITEMS, tmp_path / "ledger.sqlite")
    assert verdicts["supported"] == 1.0
    assert verdicts["unsupported"] == 0.0
    assert [verdicts[id] for id in ("right first", "wrong first", "same")] == [1.0, -1.0, 0.0]
    assert verdicts["complete"] == verdicts["helpful"] == 10.0


async def test_first_round_comes_from_the_ledger_and_repeats_do_not(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"

    def exchanges() -> int:
        opened = Ledger(ledger)
        try:
            return opened.totals().exchanges
        finally:
            opened.close()

    await judge(ITEMS[:1], ledger)
    assert exchanges() == 1
    await judge(ITEMS[:1], ledger)
    assert exchanges() == 1
    first, second, third = await judge(ITEMS[:1], ledger, rounds=3)
    assert exchanges() == 3
    assert first == second == third == {"supported": 1.0}


async def test_progress_counts_all_rounds(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    await judge_rounds(
        ITEMS[:2],
        JudgeConfig(),
        ScoreConfig(),
        rounds=2,
        ledger=tmp_path / "ledger.sqlite",
        progress=lambda finished, total: seen.append((finished, total)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_batch_judges_are_called_live() -> None:
    config = JudgeConfig(
        kind="openai",
        model="m",
        mode="batch",
        api_key_env="KEY",
        dimensions={"faithfulness": {"model": "n", "mode": "batch"}},
    )
    live = live_config(config)
    assert [live.judge_for(name).mode for name in ("faithfulness", "helpfulness")] == ["live", "live"]
