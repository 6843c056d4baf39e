"""Two runs compared from what MLflow keeps of them: settings, data, measures with intervals, prompts that moved most.

comparison = compare(find("brave-otter"), find("champion"))
comparison.changes[0].difference    # second minus first, with its interval
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longreward.errors import ConfigError, DataError
from longreward.evaluation.config import JUDGED_MEASURES, MEASURES, EvaluateConfig, Measure
from longreward.evaluation.example_metrics import ExampleMetrics, read_measures
from longreward.evaluation.measures import Decoding
from longreward.evaluation.run_comparison import Change, ChangedExample, RunComparison, Shared, correct_changes
from longreward.evaluation.statistics import format_p
from longreward.tasks.tracking import history
from longreward.tasks.tracking.history import PastRun

DATA = "dvc."  # the prefix of a stage's tags that hold the hashes of its inputs


@dataclass(frozen=True)
class Difference:
    """A setting, a hash or a commit that the two runs do not share; None where a run does not have it."""

    name: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class MovedPrompt:
    """A prompt whose measure changed much, with both answers where the runs keep them."""

    id: str
    document: str
    query: str | None
    before: float
    after: float
    first_answer: str | None
    second_answer: str | None


@dataclass(frozen=True)
class Comparison:
    """All that is known of two runs, first and second; differences are second minus first.

    `measure` at `decoding` ranks the prompts: it is `higher` for so many of them, `lower` for others; some are `moved`.
    """

    first: PastRun
    second: PastRun
    params: tuple[Difference, ...]
    data: tuple[Difference, ...]
    shared: Shared
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]
    measure: Measure
    decoding: str
    higher: int
    lower: int
    moved: tuple[MovedPrompt, ...]


def compare(first: PastRun, second: PastRun, *, measure: str | None = None, top: int = 5) -> Comparison:
    """`measure` ranks the prompts, by default the second run's champion measure where both have it, else the reward.

    Raises ConfigError where a run has no evaluation or did not take `measure`, DataError where its tables are gone.
    """
    sides = [_evaluation(run) for run in (first, second)]
    versus = RunComparison(*(answers for answers, _ in sides))
    tags = [tags for _, tags in sides]
    changes = versus.changes("dpo", _config(second))
    if tags[0].get("dvc.models/sft") != tags[1].get("dvc.models/sft"):
        changes += versus.changes("sft", _config(second))
    changes = correct_changes(changes)
    if not changes:
        raise ConfigError(
            f"{first.name} and {second.name} have no measure at a decoding in common: {_taken(versus.first)} against "
            f"{_taken(versus.second)}; evaluate one of them with the other's `evaluate.temperatures` and judge"
        )
    ranked = _ranking(second, changes, measure)
    moved = versus.moved("dpo", decoding=ranked[1], measure=ranked[0])
    rises = sum(one.after > one.before for one in moved)
    return Comparison(
        first,
        second,
        params=tuple(differences(first.params, second.params)),
        data=tuple(_data(tags[0], tags[1])),
        shared=versus.shared,
        changes=tuple(changes),
        warnings=tuple(_warnings(tags[0], tags[1], changes)),
        measure=ranked[0],
        decoding=ranked[1],
        higher=rises,
        lower=len(moved) - rises,
        moved=_with_answers(moved[:top], first, second, ranked[1]),
    )


def beats_champion(
    champion: str, table: Mapping[str, Any], config: EvaluateConfig, *, judge: str | None
) -> tuple[bool, str]:
    """Return whether the DPO model of `table` is shown to be better than the champion, and what the two measured.

    `champion` is the evaluate run that measured the champion, `judge` the name of this evaluation's judge. Only the
    champion rule's measure and decoding count, on the prompts that both models answered. A model that cannot be
    compared with the champion does not beat it.
    """
    rule, decoding = config.champion, Decoding(config.champion.temperature, 1).name
    try:
        theirs = read_measures(history.kept(champion, history.MEASURES), source="the champion's measures")
    except DataError as error:
        return False, f"the two cannot be compared: {error}"
    their_judge = history.tags_of(champion).get("judge")
    if rule.measure in JUDGED_MEASURES and judge and their_judge and judge != their_judge:
        return False, f"the two cannot be compared: {rule.measure} is by different judges ({their_judge} and {judge})"
    versus = RunComparison(theirs, read_measures(table, source="the measures"))
    if not versus.shared.both:
        return False, "the two cannot be compared: they have no held-out prompt in common"
    wanted = (rule.measure, decoding)
    change = next((one for one in versus.changes("dpo", config) if (one.measure, one.decoding) == wanted), None)
    if change is None:
        return False, f"the two cannot be compared: the champion's {rule.measure} at {decoding} was not measured"
    moved = change.difference
    said = (
        f"{rule.measure} at {decoding} is {change.first.value:.3f} for the champion and {change.second.value:.3f} for "
        f"this model, interval [{moved.low:+.3f}, {moved.high:+.3f}], p {format_p(moved.p)}"
    )
    return change.gain > 0 and moved.is_significant, said


def differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[Difference]:
    """What differs, in the order of the names."""
    names = sorted({*first, *second})
    return [Difference(n, first.get(n), second.get(n)) for n in names if first.get(n) != second.get(n)]


def _evaluation(run: PastRun) -> tuple[list[ExampleMetrics], Mapping[str, str]]:
    if run.evaluation is None:
        raise ConfigError(
            f"run {run.name} ({run.status.lower()}) has no evaluation: run the stage, with the same settings, by "
            "`longreward run --stages evaluate`"
        )
    table = history.kept(run.evaluation, history.MEASURES)
    source = f"{history.MEASURES} of run {run.name}"
    return read_measures(table, source=source), history.tags_of(run.evaluation)


def _config(run: PastRun) -> EvaluateConfig:
    """The run's own settings of the intervals, where it has them."""
    asked = {name: run.params.get(f"evaluate.{name}") for name in ("bootstrap_resamples", "confidence", "seed")}
    return EvaluateConfig.parse({k: v for k, v in asked.items() if v is not None}, source=f"run {run.name}")


def _ranking(run: PastRun, changes: Sequence[Change], asked: str | None) -> tuple[Measure, str]:
    """The measure that ranks prompts and its decoding: greedy where there is one, else the highest temperature."""
    taken = {change.measure for change in changes if change.model == "dpo"}
    if asked is not None and asked not in taken:
        known = ", ".join(measure for measure in MEASURES if measure in taken)
        raise ConfigError(f"measure {asked!r} was not taken in both runs; they have {known}")
    wanted = (asked, run.params.get("evaluate.champion.measure"), "reward", *taken)
    measure = next(measure for name in wanted for measure in MEASURES if measure == name and measure in taken)
    decodings = [change.decoding for change in changes if change.measure == measure and change.model == "dpo"]
    return measure, decodings[-1]  # greedy comes last


def _data(first: Mapping[str, str], second: Mapping[str, str]) -> list[Difference]:
    sides = []
    for tags in (first, second):
        known = {name.removeprefix(DATA): value for name, value in tags.items() if name.startswith(DATA)}
        code = {"git commit": tags["mlflow.source.git.commit"]} if "mlflow.source.git.commit" in tags else {}
        sides.append(code | ({"judge": tags["judge"]} if "judge" in tags else {}) | known)
    return differences(*sides)


def _warnings(first: Mapping[str, str], second: Mapping[str, str], changes: Sequence[Change]) -> list[str]:
    judges = [tags.get("judge") for tags in (first, second)]
    if judges[0] == judges[1] or not any(change.measure in JUDGED_MEASURES for change in changes):
        return []
    return [
        f"The judges differ ({judges[0]} and {judges[1]}): the reward and its dimensions are not on one scale. "
        "Evaluate both with one judge, or look at the gold measures and the lengths."
    ]


def _taken(answers: Sequence[ExampleMetrics]) -> str:
    return ", ".join(dict.fromkeys(f"{taken.model} {taken.decoding}" for taken in answers)) or "nothing"


def _with_answers(
    moved: Sequence[ChangedExample], first: PastRun, second: PastRun, decoding: str
) -> tuple[MovedPrompt, ...]:
    if not moved:
        return ()
    before, after = (_answers(run, decoding) for run in (first, second))
    return tuple(
        MovedPrompt(
            id=one.second_id,
            document=one.document,
            query=after.get(one.second_id, before.get(one.first_id, {})).get("query"),
            before=one.before,
            after=one.after,
            first_answer=before.get(one.first_id, {}).get("DPO"),
            second_answer=after.get(one.second_id, {}).get("DPO"),
        )
        for one in moved
    )


def _answers(run: PastRun, decoding: str) -> dict[str, dict[str, Any]]:
    """The rows of the table of answers by prompt; empty where the run does not keep it."""
    assert run.evaluation is not None, "its measures were read"
    try:
        table = history.kept(run.evaluation, history.ANSWERS)
    except DataError:
        return {}
    rows = (dict(zip(table["columns"], cells, strict=True)) for cells in table["data"])
    return {row["id"]: row for row in rows if row["decoding"] == decoding}
