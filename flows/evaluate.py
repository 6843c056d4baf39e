"""Compare the SFT model with the trained one, on documents that neither has seen."""

from pathlib import Path

from longreward.data.formats import example_from_row, scored_to_row, write_chunk_info
from longreward.evaluation.comparison import split_by_decoding
from longreward.evaluation.example_metrics import prompt_hash
from longreward.evaluation.measures import AnswerMeasures, load_gold_measures, measure_answers
from longreward.evaluation.report import summarize
from longreward.evaluation.short_instructions import (
    load_short_instructions,
    measure_short,
    short_accuracy_by_kind,
    short_answer_rows,
)
from longreward.judge import open_judge
from longreward.reward import Scorer
from longreward.reward.score_files import ScoreReport
from longreward.tasks.evaluation_records import MODELS, log_evaluation, write_evaluation
from longreward.tasks.evaluation_shards import answer_as_model, score_answers, verdict_shards
from longreward.tasks.evidence_pages import log_stage_page
from longreward.tasks.model_card import model_card, write_card
from longreward.tasks.policy_server import comparison_server
from longreward.tasks.score_shards import require_scores
from longreward.tasks.stage import StageRun, main, stage
from longreward.tasks.stage_judge import evaluation_forecast, forecast_budget, log_judge_metrics
from longreward.tasks.state import ledger_file
from longreward.tasks.tracking.prompt_registry import log_judge_prompts
from longreward.utils.jsonl import RecordsOnDisk, open_atomic, to_line, write_rows
from longreward.utils.language import Language, detect_language

HELDOUT, OUT = Path("data/prepared/heldout.jsonl"), Path("data/evaluation")


@stage
async def evaluate(run: StageRun) -> None:
    """Compare the SFT model with the trained one, on documents that neither has seen."""
    config = run.params.evaluate
    server = await comparison_server(run.params.server)
    heldout = RecordsOnDisk(HELDOUT, example_from_row)
    documents, prompts, languages = dict[str, str](), dict[str, str](), set[Language]()
    for example in heldout:
        documents[example.id], prompts[example.id] = example.document_id, prompt_hash(example)
        languages.add(detect_language(example.query))
    run.mlflow.log_dataset("heldout", HELDOUT, "evaluation")
    gold = load_gold_measures(Path(config.gold)) if config.gold else None
    short = load_short_instructions(config.short)
    short_measures: list[AnswerMeasures] = []
    report = ScoreReport()
    async with (
        forecast_budget(run, config.budget, lambda: evaluation_forecast(run), assumed=True) as budget,
        open_judge(run.params.judge, ledger=ledger_file(), budget=budget) as judge,
        # Adaptive scoring leaves middling responses without a reward, which would bias the means of a model.
        Scorer(run.params.score.model_copy(update={"strategy": "full"}), ledger=ledger_file()) as scorer,
    ):
        run.mlflow.set_tags({"judge": judge.name})
        log_judge_prompts(run.mlflow, scorer.prompts, languages)
        with open_atomic(OUT / "verdicts.jsonl") as verdicts, open_atomic(OUT / "answers.jsonl") as answers_file:
            for role in MODELS:
                answers, short_answers = await answer_as_model(
                    run, server, role, heldout, short.examples if short else ()
                )
                if short is not None:
                    short_measures += measure_short(short, role, short_answers)
                judged = await score_answers(run, judge, scorer, role, heldout, answers)
                for scored in judged:
                    for decoding, responses in split_by_decoding(config, scored.responses):
                        for answer in responses:
                            row = {"model": role, "decoding": decoding.name, **scored_to_row(answer)}
                            verdicts.write(to_line(row))
                            report.add_response(answer)
                        for measured in measure_answers(role, decoding, documents, responses, gold):
                            answers_file.write(to_line(measured.row()))
            answers_file.writelines(to_line(measured.row()) for measured in short_measures)
        # Extracts depend on the prompt alone, so those of the last model are those of both.
        write_chunk_info(OUT / "chunk_info.jsonl", (scored.extraction for scored in judged))
        run.log_metrics(scorer.metrics())
        log_judge_metrics(run, judge.name, judge.metrics())
    if short is not None:
        write_rows(OUT / "short.jsonl", short_answer_rows(short, short_measures))
        run.log_metrics(short_accuracy_by_kind(short, short_measures))
        prompts |= {example.id: prompt_hash(example) for example in short.examples}
    measures = RecordsOnDisk(OUT / "answers.jsonl", AnswerMeasures.from_row)
    evaluation = summarize(config, measures)
    write_evaluation(OUT, evaluation)
    run.log.info(evaluation.sentence)
    run.log_metrics(evaluation.headline())
    card = model_card(run.params, evaluation=evaluation, judge=judge.name)
    write_card(OUT / "model_card.md", card)
    run.log.info(log_evaluation(run.mlflow, config, evaluation, measures, prompts, card=card))
    log_stage_page(run, ["evaluate"])
    # Last, so that the measures that need no judge are kept if the judge's replies are unusable.
    require_scores(run, report, judge.name, shards=map(verdict_shards, MODELS))


if __name__ == "__main__":
    main(evaluate)
