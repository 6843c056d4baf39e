"""The SFT model against the trained one, on documents that neither has seen."""

import json
from collections.abc import Sequence
from pathlib import Path

from longreward.data.formats import read_examples, scored_to_row
from longreward.evaluation.comparison import decodings
from longreward.evaluation.config import GOLD_MEASURES, JUDGED_MEASURES, Measure
from longreward.evaluation.measures import AnswerMeasures, Decoding, load_gold_measures, measure_answers
from longreward.evaluation.plots import plot_points
from longreward.evaluation.report import Evaluation, markdown, summarize
from longreward.evaluation.short_instructions import (
    ShortInstructionSet,
    load_short_instructions,
    measure_short,
    short_accuracy_by_kind,
    short_answer_rows,
)
from longreward.judge import Judge, open_judge
from longreward.models.server_config import ServerConfig
from longreward.records import Example, Response, Role, ScoredResponse
from longreward.reward import Scorer
from longreward.reward.score_files import ScoreReport
from longreward.tasks.evaluation_records import MODELS, record_evaluation
from longreward.tasks.policy_server import comparison_server, open_policy
from longreward.tasks.sample_shards import sample_in_shards
from longreward.tasks.score_shards import require_scores, score_in_shards, with_responses
from longreward.tasks.stage import StageRun, main, stage, write_points
from longreward.tasks.stage_judge import evaluation_forecast, forecast_budget, report_judge
from longreward.tasks.state import ledger_file
from longreward.utils.jsonl import open_atomic, write_rows

OUT = Path("data/evaluation")
BAR = ("bar", "value")
PLOTS: dict[str, tuple[Measure, ...]] = {"judged": JUDGED_MEASURES, "gold": GOLD_MEASURES, "lengths": ("tokens",)}


@stage
async def evaluate(run: StageRun) -> None:
    """The SFT model against the trained one, on documents that neither has seen."""
    config = run.params.evaluate
    server = await comparison_server(run.params.server)
    examples = list(read_examples(Path("data/prepared/heldout.jsonl")))
    gold = load_gold_measures(Path(config.gold)) if config.gold else None
    by_id = {example.id: example for example in examples}
    short = load_short_instructions(config.short)
    measured: list[AnswerMeasures] = []
    on_short: list[AnswerMeasures] = []
    verdicts: list[tuple[Role, Decoding, ScoredResponse]] = []
    async with (
        forecast_budget(run, config.budget, evaluation_forecast(run), assumed=True) as budget,
        open_judge(run.params.judge, ledger=ledger_file(), budget=budget) as judge,
        Scorer(run.params.score.model_copy(update={"strategy": "full"}), ledger=ledger_file()) as scorer,
    ):
        run.tracked.tag({"judge": judge.name})
        for role in MODELS:
            answers, to_short = await _answers(run, server, role, examples, short)
            if short is not None:
                on_short += measure_short(short, role, to_short)
            for decoding in decodings(config):
                scored = await _scored(run, judge, scorer, f"{role}-{decoding.name}", examples, answers[decoding])
                verdicts += [(role, decoding, one) for one in scored]
                measured += measure_answers(role, decoding, by_id, scored, gold)
        run.report(scorer.metrics())
        report_judge(run, judge.name, judge.metrics())
    if short is not None:
        write_rows(OUT / "short.jsonl", short_answer_rows(short, on_short))
        run.report(short_accuracy_by_kind(short, on_short))
        measured += on_short
        by_id |= {example.id: example for example in short.examples}
    evaluation = summarize(config, measured)
    _write(run, evaluation, measured, verdicts)
    run.report(evaluation.headline())
    run.log.info(record_evaluation(run.tracked, config, evaluation, measured, by_id))
    report = ScoreReport()
    for _, _, one in verdicts:
        report.add_response(one)
    require_scores(run, report, judge.name, shards=MODELS)


async def _answers(
    run: StageRun, server: ServerConfig, role: Role, examples: Sequence[Example], short: ShortInstructionSet | None
) -> tuple[dict[Decoding, list[Response]], list[Response]]:
    """Of each decoding, and to the short instructions, which are answered greedily."""
    folder = _answers_of_sft(run) if role == "sft" else run.state
    async with open_policy(run.params.policy, server, MODELS[role], role=role, logs=run.state) as policy:

        async def drawn(name: str, prompts: Sequence[Example], *, n: int, temperature: float) -> list[Response]:
            update = {"n": n, "temperature": temperature, "seed": run.params.evaluate.seed}
            sampling = run.params.sample.model_copy(update=update)
            sampled = await sample_in_shards(f"answers-{role}-{name}", policy, prompts, sampling, folder=folder)
            # Nothing is trained on them, and token ids would double the files.
            return [response.model_copy(update={"token_ids": None}) for response in sampled.responses]

        answers = {
            one: await drawn(one.name, examples, n=one.samples, temperature=one.temperature)
            for one in decodings(run.params.evaluate)
        }
        return answers, await drawn("short", short.examples, n=1, temperature=0.0) if short else []


def _answers_of_sft(run: StageRun) -> Path:
    """Where the SFT model's answers stay: they are the same for every model that is trained from it."""
    return run.shared(
        "answers", sections=("policy", "server", "sample", "evaluate"), without=(MODELS["dpo"], Path("data/raw"))
    )


async def _scored(
    run: StageRun,
    judge: Judge,
    scorer: Scorer,
    name: str,
    examples: Sequence[Example],
    responses: Sequence[Response],
) -> list[ScoredResponse]:
    items = with_responses(examples, responses)
    scored = await score_in_shards(f"verdicts-{name}", judge, items, run.params.score, scorer=scorer, folder=run.state)
    return [one for example in scored for one in example.responses]


def _write(
    run: StageRun,
    evaluation: Evaluation,
    measured: Sequence[AnswerMeasures],
    verdicts: Sequence[tuple[Role, Decoding, ScoredResponse]],
) -> None:
    write_rows(OUT / "answers.jsonl", (one.row() for one in measured))
    write_rows(
        OUT / "verdicts.jsonl",
        ({"model": role, "decoding": decoding.name, **scored_to_row(one)} for role, decoding, one in verdicts),
    )
    with open_atomic(OUT / "table.json") as file:
        json.dump(evaluation.as_json(), file, indent=1)
    with open_atomic(OUT / "report.md") as file:
        file.write(markdown(evaluation))
    for name, measures in PLOTS.items():
        write_points(Path(f"plots/evaluate-{name}.csv"), plot_points(evaluation, measures), BAR)
    run.log.info(evaluation.sentence)


if __name__ == "__main__":
    main(evaluate)
