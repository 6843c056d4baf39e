"""`longreward benchmarks fetch|list|score`: the benchmarks' published files, and scores of existing predictions."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from longreward.flows.cli.options import (
    add_actions,
    add_ledger_argument,
    add_prediction_arguments,
    add_settings_arguments,
    load_settings,
    read_prediction_file,
)

if TYPE_CHECKING:
    from longreward.benchmarks.predictions import PredictionScores
    from longreward.benchmarks.types import Benchmark
    from longreward.params import Params

FOLDER = "data/benchmarks"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "benchmarks",
        help="the public benchmarks: fetch and list their files, score predictions of any tool",
        description="The published files of the benchmarks, and scores of predictions. The files are not part of this "
        "program: each is downloaded from its publisher at a pinned commit and verified by its checksum.",
    )
    actions = add_actions(command)
    fetch = actions.add_parser(
        "fetch",
        help="download missing files and verify all files",
        description="Download missing files and verify all files. Exits with 1 if a needed file is not available, and "
        "prints its path and checksum.",
        epilog="example: longreward benchmarks fetch --only mt_bench",
    )
    _add_selection(fetch)
    origin = fetch.add_mutually_exclusive_group()
    origin.add_argument("--mirror", metavar="URL", help="download from <URL>/<benchmark>/<file>")
    origin.add_argument("--from", dest="local", type=Path, metavar="FOLDER", help="copy from here, without network")
    fetch.set_defaults(run=_fetch)
    listing = actions.add_parser("list", help="list all files with source, licence and status, without network")
    _add_selection(listing)
    listing.set_defaults(run=_list)
    _add_score_parser(actions)


def _add_score_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    score = actions.add_parser(
        "score",
        help="score predictions that another tool generated with a benchmark's metrics",
        description="Scores the predictions of one model with a benchmark's own metrics. Reads AlpacaEval's "
        "model_outputs.json and annotations.json (whose preferences need no judge), sample logs of lm-eval, prediction "
        "files of LongBench and ∞Bench, MT-Bench answers of FastChat, and files with an id or prompt and a response.",
        epilog="example: longreward benchmarks score samples_longbench_qasper.jsonl --benchmark longbench_official",
    )
    score.add_argument("predictions", type=Path, metavar="FILE")
    score.add_argument("--benchmark", required=True, metavar="NAME", help="for example alpaca_eval")
    add_prediction_arguments(score)
    score.add_argument(
        "--folder",
        type=Path,
        metavar="FOLDER",
        help=f"the benchmark's published files (default: benchmark.files, else {FOLDER} if it exists)",
    )
    score.add_argument("--model", metavar="NAME", help="the model's name in files (default: that in FILE, or its name)")
    score.add_argument("--out", type=Path, metavar="FOLDER", help="write answers, verdicts and the benchmark's files")
    add_settings_arguments(score, default="the paper's settings")
    add_ledger_argument(score)
    score.add_argument("--json", action="store_true", help="all metrics, as JSON")
    score.set_defaults(run=_score)


def _add_selection(action: argparse.ArgumentParser) -> None:
    action.add_argument("--folder", type=Path, default=Path(FOLDER), metavar="FOLDER", help=f"default: {FOLDER}")
    action.add_argument(
        "--only", action="append", default=[], metavar="BENCHMARK", help="for example mt_bench; can be repeated"
    )


def _fetch(options: argparse.Namespace) -> int:
    from longreward.benchmarks.downloads import fetch

    results = fetch(
        options.folder,
        only=options.only,
        mirror=options.mirror,
        local=options.local,
        progressbar=sys.stderr.isatty(),
    )
    for result in results:
        if result.status == "failed":
            print(f"{'missing ' if result.is_fatal else 'optional'}  {result.source.key}: {result.reason}")
        else:
            recorded = f" (recorded sha256 {result.recorded_sha256})" if result.recorded_sha256 else ""
            print(f"{result.status:<8}  {result.source.key}{recorded}")
    available = sum(result.status != "failed" for result in results)
    print(f"{available} of {len(results)} files in {options.folder}")
    return int(any(result.is_fatal for result in results))


def _list(options: argparse.Namespace) -> int:
    from longreward.benchmarks.downloads import read_sources, recorded_checksums

    checksums = recorded_checksums(options.folder)
    for source in read_sources(options.only):
        present = all((options.folder / source.benchmark / name).is_file() for name in source.files)
        checksum = source.sha256 or checksums.get(source.key) or "recorded at the first fetch"
        print(f"{'present' if present else 'missing'}  {source.key}{'' if source.needed else ' (optional)'}")
        print(f"         {source.what}; {source.size}; {source.licence}")
        print(f"         sha256 {checksum}")
        for address in source.addresses or ("no known address: copy it by hand",):
            print(f"         {address}")
    return 0


def _score(options: argparse.Namespace) -> int:
    import json

    from longreward.benchmarks.registry import BenchmarkName
    from longreward.benchmarks.report import BenchmarkResult, benchmark_section
    from longreward.errors import ConfigError
    from longreward.flows.cli.parser import unknown_name
    from longreward.utils.markdown_text import print_markdown
    from longreward.utils.progress import log_progress_to_stderr

    if options.benchmark not in get_args(BenchmarkName):
        raise ConfigError(unknown_name("--benchmark value", options.benchmark, get_args(BenchmarkName)))
    params = load_settings(options, default=None)
    folder = options.folder or (Path(FOLDER) if params.benchmark.files is None and Path(FOLDER).is_dir() else None)
    if folder is not None:
        config = params.benchmark.model_copy(update={"files": str(folder)})
        params = params.model_copy(update={"benchmark": config})
    log_progress_to_stderr()
    benchmark, model, judge, scores = _score_file(options, params)
    if options.out is not None:
        _write_scores(options.out, benchmark, scores, model)
    if options.json:
        values = {"model": model, "judge": judge, "cases": len(scores.answers), "metrics": scores.summary.to_dict()}
        print(json.dumps(values, indent=1, ensure_ascii=False))
        return 0
    result = BenchmarkResult(
        benchmark.name, {model: scores.summary}, benchmark.max_score, official=benchmark.official, judge=judge
    )
    print_markdown(f"{benchmark_section(result)}\n")
    return 0


def _score_file(
    options: argparse.Namespace, params: "Params"
) -> "tuple[Benchmark[Any], str, str | None, PredictionScores]":
    """Return the benchmark, the names of model and judge, and the scores."""
    import asyncio

    from longreward.benchmarks.alpaca_eval.annotations import is_annotations, read_annotations
    from longreward.benchmarks.alpaca_eval.benchmark import AlpacaEval
    from longreward.benchmarks.mt_bench.benchmark import MtBench
    from longreward.benchmarks.predictions import PredictionScores, match_predictions
    from longreward.benchmarks.suite import open_benchmark
    from longreward.errors import DataError

    config, path = params.benchmark, options.predictions
    if options.benchmark == "alpaca_eval" and is_annotations(path):
        # Without the published files, the instructions are those of the annotations.
        paths = {} if config.files else {"baseline": path}
        alpaca_eval = open_benchmark("alpaca_eval", config, **paths)
        assert isinstance(alpaca_eval, AlpacaEval)
        annotations = read_annotations(path, alpaca_eval, parsing=config.parsing)
        _report_coverage(len(annotations.answers), len(alpaca_eval.cases), annotations.unmatched, repeated=0)
        summary = alpaca_eval.summarize(annotations.answers, annotations.verdicts, config.interval_options)
        scores = PredictionScores(summary, annotations.answers, annotations.verdicts)
        return alpaca_eval, options.model or annotations.model, annotations.annotator, scores
    benchmark = open_benchmark(options.benchmark, config)
    if isinstance(benchmark, MtBench):
        items = list(zip(benchmark.cases, benchmark.read_answers(path), strict=True))
        model = options.model or path.stem
    else:
        file = read_prediction_file(options)
        if len(models := file.models) > 1:
            if options.model not in models:
                raise DataError(f"{path} has predictions of {', '.join(models)}: name one with --model")
            file.predictions = [prediction for prediction in file.predictions if prediction.model == options.model]
        if file.rejected:
            print(file.describe_rejected(), file=sys.stderr)
        matched = match_predictions(benchmark, file.predictions)
        _report_coverage(len(matched.items), len(benchmark.cases), len(matched.unmatched), matched.repeated)
        items, model = matched.items, options.model or next(iter(models), path.stem)
    judge, scores = asyncio.run(_judge(params, benchmark, items, options.ledger))
    return benchmark, model, judge, scores


async def _judge(
    params: "Params", benchmark: "Benchmark[Any]", items: list[Any], ledger: Path
) -> "tuple[str | None, PredictionScores]":
    from longreward.benchmarks.predictions import score_predictions
    from longreward.benchmarks.suite import judge_config
    from longreward.judge import open_judge
    from longreward.judge.budget import Budget
    from longreward.utils.progress import show_progress

    config = params.benchmark
    if not benchmark.uses_judge:
        return None, await score_predictions(benchmark, None, items, config.interval_options)
    settings = judge_config(config, params.judge, benchmark.judge_options)
    with (
        show_progress("judge, answers") as update,
        Budget(config.budget, params.prices, name="benchmark.budget") as budget,
    ):
        async with open_judge(settings, ledger=ledger, budget=budget) as judge:
            return judge.name, await score_predictions(
                benchmark, judge, items, config.interval_options, progress=lambda done: update(done, len(items))
            )


def _report_coverage(answered: int, cases: int, unmatched: int, repeated: int) -> None:
    if answered < cases or unmatched or repeated:
        print(
            f"{answered} of {cases} cases have a prediction; {unmatched} predictions match no case, {repeated} repeat "
            "an earlier one",
            file=sys.stderr,
        )


def _write_scores(folder: Path, benchmark: "Benchmark[Any]", scores: "PredictionScores", model: str) -> None:
    from longreward.utils.jsonl import write_rows

    name = model.replace("/", "_")
    write_rows(folder / benchmark.name / name / "answers.jsonl", (dict(vars(answer)) for answer in scores.answers))
    write_rows(folder / benchmark.name / name / "verdicts.jsonl", (dict(vars(verdict)) for verdict in scores.verdicts))
    benchmark.write_files(folder, scores.answers, scores.verdicts, model=model)
