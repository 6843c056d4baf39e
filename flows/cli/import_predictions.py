"""`longreward import`: predictions of another tool as a file of responses, for `score` and `prepare.responses`."""

import argparse
import sys
from pathlib import Path

from longreward.flows.cli.options import add_prediction_arguments, read_prediction_file
from longreward.utils.plurals import pluralize


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "import",
        help="convert predictions of another tool into responses for `score`",
        description="Writes a file of sampled responses from predictions: AlpacaEval's model_outputs.json, sample "
        "logs of lm-eval, or files with an id or prompt and a response. A prediction belongs to the example with its "
        "id, else to the only one with its question. `score`, `plan` and prepare.responses read the result.",
        epilog="example: longreward import outputs.jsonl --data sft.jsonl --out sampled_responses.jsonl "
        "--column response=output",
    )
    command.add_argument("predictions", metavar="FILE")
    command.add_argument("--data", type=Path, required=True, metavar="FILE", help="examples: idx, query, context")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file of responses to write")
    add_prediction_arguments(command)
    command.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> int:
    from longreward.data.import_predictions import import_predictions

    file = read_prediction_file(options)
    report = import_predictions(file, data=options.data, out=options.out)
    if file.rejected:
        print(file.describe_rejected(), file=sys.stderr)
    size = f"{pluralize(report.responses, 'response')} to {pluralize(report.examples, 'example')}"
    print(f"{options.out}: {size}, read as {file.format}")
    if report.unmatched:
        print(f"  {pluralize(report.unmatched, 'prediction')} without exactly one example of {options.data}")
    if report.repeated:
        print(f"  {report.repeated} predictions repeat an earlier one")
    return 0
