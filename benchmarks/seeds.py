"""Run the embedded default with several seeds, to compare the improvement with the variation between seeds.

    python benchmarks/seeds.py [--seeds 0 1 2] [--out docs/results/seeds.json]

Each seed is a complete `dvc repro` in a temporary clone of the committed project, with that seed for the document
split, SFT, sampling, DPO and evaluation. Prints every difference (DPO minus SFT) by seed with the mean, and the
conclusion of each evaluation report.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from common import argument_parser

ROOT = Path(__file__).resolve().parents[1]
SEEDED_SECTIONS = ("prepare", "sft", "sample", "train", "evaluate")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="also write the tables as JSON")
    options = parser.parse_args()
    tables = {seed: run_pipeline(seed) for seed in options.seeds}
    print_differences(tables)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")


def run_pipeline(seed: int) -> dict[str, Any]:
    """Run the pipeline in a temporary clone; return the table of its evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        shutil.copytree(ROOT / "data" / "raw", clone / "data" / "raw", dirs_exist_ok=True)
        params = yaml.safe_load((clone / "params.yaml").read_text(encoding="utf-8"))
        for section in SEEDED_SECTIONS:
            params[section] = (params.get(section) or {}) | {"seed": seed}
        (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        # Settings of this project, such as its state folder and Prefect server, must not reach the clone.
        env = {name: value for name, value in os.environ.items() if not name.startswith(("LONGREWARD_", "PREFECT_"))}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"  # the stages call `python`
        print(f"seed {seed} …", file=sys.stderr, flush=True)
        result = subprocess.run(
            [sys.executable, "-m", "dvc", "repro"], cwd=clone, env=env, capture_output=True, text=True
        )
        if result.returncode:
            sys.exit(f"seed {seed} failed:\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
        table: dict[str, Any] = json.loads((clone / "data/evaluation/table.json").read_text(encoding="utf-8"))
        return table


def print_differences(tables: dict[int, dict[str, Any]]) -> None:
    """Print one line per comparison and measure: SFT and DPO (means over the seeds), then the difference by seed.

    Bold: significant among all differences of the seed's report.
    """
    rows = {seed: {(row["comparison"], row["measure"]): row for row in table["rows"]} for seed, table in tables.items()}
    print(f"| comparison | measure | SFT | DPO | {' | '.join(f'seed {seed}' for seed in tables)} | mean |")
    print("|---" * (5 + len(tables)) + "|")
    for comparison, measure in next(iter(rows.values())):
        by_seed = [seed_rows[comparison, measure] for seed_rows in rows.values()]
        sft, dpo, mean = (fmean(row[key]["value"] for row in by_seed) for key in ("first", "second", "difference"))
        cells = " | ".join(format_difference(row["difference"]) for row in by_seed)
        print(f"| {comparison} | {measure} | {sft:.3f} | {dpo:.3f} | {cells} | {mean:+.3f} |")
    for seed, table in tables.items():
        print(f"\nseed {seed}: {table['sentence']}")


def format_difference(difference: dict[str, float]) -> str:
    """Return the difference, bold where it is significant."""
    bold = "**" if difference["p_corrected"] <= difference["level"] else ""
    return f"{bold}{difference['value']:+.3f}{bold}"


if __name__ == "__main__":
    main()
