"""Train a real policy on pairs of several methods and compare them by gold facts: `make real`.

    python -m longreward.study.real --model models/smollm2-135m --out data/real --seeds 0 1 2

The settings are those of a preset, as for `longreward study`, but nothing of Prefect, MLflow and DVC is imported: this
also runs on a machine that has only torch, transformers, trl and peft. Results appear in the folder `--out` after every
arm:

    results.md       tables with intervals over all seeds
    results.json     the same as data, with the statistics of pairs and trainings
    study-….svg      differences from the SFT model, for each decoding
    seed-<n>/        the files of a seed (`seed_run.py`)

If it is stopped, the same command continues. Several processes may run different seeds with the same `--out`, and once
`--arms` without a name has sampled the responses of a seed, also different arms.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from longreward.builtin.corpus import write_corpus
from longreward.builtin.natural_corpus import write_natural_corpus
from longreward.data.formats import read_examples
from longreward.errors import ConfigError, DataError, LongRewardError
from longreward.evaluation.measures import GoldMeasures, load_gold_measures
from longreward.params import Params, preset_path, read_params
from longreward.records import Example
from longreward.study.arms import REAL_ARMS, SEEDED_SECTIONS, Arm
from longreward.study.page import render_page, render_plots
from longreward.study.results import RunResult, summarize_runs
from longreward.study.seed_run import SeedRun, split_examples, write_split
from longreward.utils.jsonl import open_atomic

PRESET = "smollm2-135m"
SHARED = ("policy", "judge", "sample", "score", "evaluate")
"""The sections that all arms of a seed share; another value needs another folder."""
SETTINGS = ("evaluate.short.source=builtin", "evaluate.short.match=contains", "evaluate.short.count=60")
log = logging.getLogger("longreward.study.real")


def main() -> None:
    options = parse_options()
    # With the time, by which the log shows what each step costs.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    logging.getLogger("longreward").setLevel(logging.INFO)
    try:
        run_study(options)
    except LongRewardError as error:
        sys.exit(str(error))


def run_study(options: argparse.Namespace) -> None:
    """Run all arms of all seeds, and write the results after each."""
    arms = [arm for arm in REAL_ARMS if arm.name in options.arms]
    for seed in options.seeds:
        examples, gold = _read_corpus(options, seed)
        shared = _read_params(options, seed)
        folder = options.out / f"seed-{seed}"
        train, heldout = split_examples(
            examples,
            seed=seed,
            train=options.documents,
            heldout=options.heldout,
            per_document=options.questions,
        )
        settings = {name: section for name, section in shared.model_dump(mode="json").items() if name in SHARED}
        _check_settings(
            folder,
            {**settings, "train": [example.id for example in train], "heldout": [example.id for example in heldout]},
        )
        write_split(folder, train, heldout)
        run = SeedRun(shared, seed, folder, gold, options.processes, options.keep_models)
        run.measure_sft()
        run.sampled()
        for arm in arms:
            params = _read_params(options, seed, arm)
            arm_settings = {name: params.model_dump(mode="json")[name] for name in ("pair", "train")}
            _check_settings(folder / arm.name, arm_settings)
            try:
                run.run_arm(arm, params)
            except DataError as error:  # no pairs; the other arms may have some
                log.warning("seed %d, %s: skipped: %s", seed, arm.name, error)
                continue
            write_results(options.out)
            log.info("seed %d, %s: finished, %s", seed, arm.name, options.out / "results.md")


def write_results(out: Path) -> None:
    """Summarize all finished arms of all seeds in the folder `out`."""
    results, details = [], []
    for result, folder in _finished_arms(out):
        results.append(result)
        detail: dict[str, Any] = {"arm": result.arm, "seed": result.seed}
        detail["pairs"] = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
        detail["settings"] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        details.append(detail)
    summary = summarize_runs(results)
    with open_atomic(out / "results.json") as file:
        json.dump({**summary.as_json(), "arms": details}, file, indent=1)
    with open_atomic(out / "results.md") as file:
        file.write(render_page(summary))
    for name, figure in render_plots(summary).items():
        with open_atomic(out / name) as file:
            figure.savefig(file, format="svg")


def _finished_arms(out: Path) -> Iterator[tuple[RunResult, Path]]:
    for arm in REAL_ARMS:
        for folder in sorted(out.glob("seed-*")):
            seed = int(folder.name.removeprefix("seed-"))
            run = SeedRun(Params(), seed, folder, lambda example_id, text: None)
            if (result := run.read_result(arm)) is not None:
                yield result, folder / arm.name


def _read_corpus(options: argparse.Namespace, seed: int) -> tuple[list[Example], GoldMeasures]:
    """Return all examples and the measures by their facts; without --data, a corpus is generated for the seed."""
    folder: Path = options.data or options.out / f"seed-{seed}" / "corpus"
    if options.data is None and not (folder / "gold.jsonl").is_file():
        size = {"seed": seed + 1, "questions_per_document": options.questions}
        if options.corpus == "natural":
            write_natural_corpus(folder, train=options.documents, heldout=options.heldout, **size)
        else:
            write_corpus(folder, documents=options.documents + options.heldout, **size)
    return list(read_examples(folder / "corpus.jsonl")), load_gold_measures(folder / "gold.jsonl")


def _read_params(options: argparse.Namespace, seed: int, arm: Arm | None = None) -> Params:
    """Return the settings of a seed; later ones override earlier ones, so that those of an arm come last."""
    overrides = [*SETTINGS, *(f"{section}.seed={seed}" for section in SEEDED_SECTIONS)]
    if options.model:
        overrides.append(f"policy.sft_model={options.model}")
    if options.n is not None:
        overrides.append(f"sample.n={options.n}")
    if options.bf16:
        overrides.append("train.bf16=true")
    return read_params(preset_path(options.preset), [*overrides, *options.overrides, *(arm.settings if arm else ())])


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Store the settings of a folder at first, later compare with them: results of different ones must not mix."""
    file = folder / "settings.json"
    if not file.is_file():
        with open_atomic(file) as text:
            json.dump(settings, text, indent=1)
        return
    stored = json.loads(file.read_text(encoding="utf-8"))
    if differing := [name for name in settings if stored.get(name) != json.loads(json.dumps(settings[name]))]:
        raise ConfigError(
            f"{folder} was computed with other settings of {', '.join(differing)}: repeat them, choose another --out, "
            "or delete the folder"
        )


def parse_options(command: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Train a real policy on pairs of several methods, and compare them on held-out documents by facts."
    )
    folder = os.environ.get("LONGREWARD_MODELS")
    model = str(Path(folder) / PRESET) if folder else None
    parser.add_argument("--model", default=model, help="a folder or a hub id (default: $LONGREWARD_MODELS, the preset)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    names = [arm.name for arm in REAL_ARMS]
    parser.add_argument("--arms", nargs="*", choices=names, default=names, metavar="ARM", help=", ".join(names))
    parser.add_argument(
        "--corpus", choices=("natural", "builtin"), default="natural", help="which documents to generate"
    )
    parser.add_argument("--data", type=Path, help="a folder with corpus.jsonl and gold.jsonl instead")
    parser.add_argument("--documents", type=int, default=24, help="documents to train on")
    parser.add_argument("--heldout", type=int, default=20, help="held-out documents")
    parser.add_argument("--questions", type=int, default=2, help="questions about each document, at most")
    parser.add_argument("--n", type=int, help="responses to each training prompt (default: sample.n)")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16 (autocast), for GPUs")
    parser.add_argument("--processes", type=int, default=1, help="processes of the offline judge")
    parser.add_argument("--keep-models", action="store_true", help="keep the trained models after their evaluation")
    parser.add_argument("--preset", default=PRESET, help="the settings: a file of configs/")
    parser.add_argument(
        "-S", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a setting"
    )
    return parser.parse_args(command)


if __name__ == "__main__":
    main()
