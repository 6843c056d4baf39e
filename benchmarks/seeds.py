"""The embedded default over several seeds: is the improvement on the gold measures more than luck?

    python benchmarks/seeds.py [--seeds 0 1 2] [--out docs/results/seeds.json]

Each seed is a whole `dvc repro` in a private clone, with that seed for the division of the documents, the SFT training,
the samples, the DPO training and the evaluation. It prints each difference (DPO minus SFT) for every seed, with
the mean, and what each seed's report found.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SEEDED = ("prepare", "sft", "sample", "train", "evaluate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="keep the figures as JSON")
    arguments = parser.parse_args()
    found = {seed: run(seed) for seed in arguments.seeds}
    show(found)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def run(seed: int) -> dict[str, Any]:
    """The comparison table of one seed, from a clone of the committed project."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        shutil.copytree(ROOT / "data" / "raw", clone / "data" / "raw", dirs_exist_ok=True)
        params = yaml.safe_load((clone / "params.yaml").read_text(encoding="utf-8"))
        for section in SEEDED:
            params[section] = (params.get(section) or {}) | {"seed": seed}
        (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LONGREWARD_", "PREFECT_"))}
        kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"  # the stages' python
        print(f"seed {seed} …", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro"], cwd=clone, env=kept, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"seed {seed} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        table: dict[str, Any] = json.loads((clone / "data/evaluation/table.json").read_text(encoding="utf-8"))
        return table


def show(found: dict[int, dict[str, Any]]) -> None:
    """One line a comparison and measure: SFT and DPO (means over the seeds), then the difference of each seed."""
    seeds = list(found)
    places = [(row["comparison"], row["measure"]) for row in found[seeds[0]]["rows"]]
    print(f"| comparison | measure | SFT | DPO | {' | '.join(f'seed {seed}' for seed in seeds)} | mean |")
    print("|---" * (5 + len(seeds)) + "|")
    for place in places:
        rows = [next(r for r in found[s]["rows"] if (r["comparison"], r["measure"]) == place) for s in seeds]
        sft, dpo, differences = ([row[side]["value"] for row in rows] for side in ("sft", "dpo", "difference"))
        each = " | ".join(f"{value:+.3f}" for value in differences)
        print(f"| {' | '.join(place)} | {_mean(sft):.3f} | {_mean(dpo):.3f} | {each} | {_mean(differences):+.3f} |")
    for seed in seeds:
        print(f"\nseed {seed}: {found[seed]['sentence']}")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
