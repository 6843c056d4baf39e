"""The SFT model against the trained one, on documents that neither has seen."""

import json
from collections.abc import Sequence
from pathlib import Path

from longreward.evaluation.comparison import decodings
from longreward.evaluation.measuring import Decoding, Measured, Role, gold_measures, measure
from longreward.evaluation.report import Evaluation, summarise
from longreward.evaluation.table import markdown
from longreward.formats import read_examples, scored_row
from longreward.jsonl import write_rows, writing
from longreward.judging import Judge, open_judge
from longreward.policy import PolicyConfig
from longreward.records import Example, Response, ScoredResponse
from longreward.reward import Scorer
from tasks import tracking
from tasks.sampling import sample_in_shards
from tasks.scoring import score_in_shards, with_responses
from tasks.serving import for_comparison, open_policy
from tasks.stage import StageRun, main, stage
from tasks.state import ledger
from tasks.versioning import data_hashes

MODELS: dict[Role, Path] = {"sft": Path("models/sft"), "dpo": Path("models/dpo")}
OUT = Path("data/evaluation")


@stage
async def evaluate(run: StageRun) -> None:
    """The SFT model against the trained one, on documents that neither has seen."""
    config = run.params.evaluate
    policy = await for_comparison(run.params.policy)
    examples = list(read_examples(Path("data/prepared/heldout.jsonl")))
    gold = gold_measures(Path(config.gold)) if config.gold else None
    by_id = {example.id: example for example in examples}
    measured: list[Measured] = []
    verdicts: list[tuple[Role, Decoding, ScoredResponse]] = []
    async with (
        open_judge(run.params.judge, ledger=ledger()) as judge,
        Scorer(run.params.score, ledger=ledger()) as scorer,
    ):
        run.tracked.tag({"judge": judge.name})
        for role in MODELS:
            answers = await _answers(run, policy, role, examples)
            for decoding in decodings(config):
                scored = await _scored(run, judge, scorer, f"{role}-{decoding.name}", examples, answers[decoding])
                verdicts += [(role, decoding, one) for one in scored]
                measured += measure(role, decoding, by_id, scored, gold)
        run.report(judge.figures() | scorer.figures())
    evaluation = summarise(config, measured)
    _write(run, evaluation, measured, verdicts)
    _record(run, evaluation)


async def _answers(
    run: StageRun, config: PolicyConfig, role: Role, examples: Sequence[Example]
) -> dict[Decoding, list[Response]]:
    answers = {}
    async with open_policy(config, MODELS[role], role=role, logs=run.state) as policy:
        for decoding in decodings(run.params.evaluate):
            drawn = {"n": decoding.samples, "temperature": decoding.temperature, "seed": run.params.evaluate.seed}
            sampling = run.params.sample.model_copy(update=drawn)
            name = f"answers-{role}-{decoding.name}"
            answers[decoding] = (await sample_in_shards(name, policy, examples, sampling, folder=run.state)).responses
    return answers


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
    measured: Sequence[Measured],
    verdicts: Sequence[tuple[Role, Decoding, ScoredResponse]],
) -> None:
    write_rows(OUT / "answers.jsonl", (one.row() for one in measured))
    write_rows(
        OUT / "verdicts.jsonl",
        ({"model": role, "decoding": decoding.name, **scored_row(one)} for role, decoding, one in verdicts),
    )
    with writing(OUT / "table.json") as file:
        json.dump(evaluation.as_json(), file, indent=1)
    with writing(OUT / "report.md") as file:
        file.write(markdown(evaluation))
    run.tracked.artifact(OUT / "report.md")
    run.log.info(evaluation.sentence)


def _record(run: StageRun, evaluation: Evaluation) -> None:
    """One MLflow run a model under the same metric names, and the trained model in the registry."""
    run.report(evaluation.headline())
    known = data_hashes(tuple(MODELS.values()))
    hashes = {role: known.get(path.as_posix(), "unknown") for role, path in MODELS.items()}
    runs = {
        role: tracking.model_run(
            run.tracked,
            role,
            evaluation.figures(role),
            tags={"dvc.path": path.as_posix(), "dvc.md5": hashes[role]},
        )
        for role, path in MODELS.items()
    }
    version = tracking.register(
        run.params.evaluate.registered_model,
        runs["dpo"],
        source_hash=hashes["dpo"],
        path=MODELS["dpo"],
        champion=evaluation.champion,
    )
    run.log.info("registered as version %s%s", version, ", the champion" if evaluation.champion else "")


if __name__ == "__main__":
    main(evaluate)
