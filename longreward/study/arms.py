"""What the study compares: arms, each a few settings on top of common ones, over seeds.

Every arm of a seed has the same documents, SFT model, responses and scores: what
differs begins with the pairs. All stages before them are computed once a seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from longreward.records import DIMENSIONS

SEEDED = ("prepare", "sft", "sample", "pair", "train", "evaluate")
LONGREWARD, CONTROL = "longreward", "random"


@dataclass(frozen=True)
class Arm:
    """One way to make pairs; `settings` are those of a run, "pair.method=srm"."""

    name: str
    what: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One run of the study."""

    arm: Arm
    seed: int
    settings: tuple[str, ...]

    def run_name(self, study: str) -> str:
        """What the run is called in Prefect, DVC and MLflow."""
        return f"{study}-{self.arm.name}-s{self.seed}"


@dataclass(frozen=True)
class Size:
    """How large a study is; `settings` hold for all its runs."""

    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    settings: tuple[str, ...] = ()


def arms() -> tuple[Arm, ...]:
    """All of them: the paper's method, its baselines, the control, another choice, and each dimension left out."""
    methods = [
        Arm(LONGREWARD, "the judge's four scores, best against worst", ()),
        Arm("srm", "a reward model that sees query, response and what fits of the context", ("pair.method=srm",)),
        Arm("contrast", "the data's own answer against a sampled one", ("pair.method=contrast",)),
        Arm("pairwise", "the judge compares two responses, in both orders", ("pair.method=pairwise",)),
        Arm(CONTROL, "chance", ("pair.method=random",)),
        Arm("best-second", "as longreward, best against second", ("pair.selection=best_second",)),
    ]
    left_out = [Arm(f"no-{d}", f"as longreward, without {d}", (f"pair.weights.{d}=0",)) for d in DIMENSIONS]
    return (*methods, *left_out)


def cells(size: Size) -> list[Cell]:
    """The runs of a study, seed by seed, so that what arms share is computed once and then found."""
    known = {arm.name: arm for arm in arms()}
    return [
        Cell(known[name], seed, (*_seeded(seed), *size.settings, *known[name].settings))
        for seed in size.seeds
        for name in size.arms
    ]


def _seeded(seed: int) -> Sequence[str]:
    return [f"{section}.seed={seed}" for section in SEEDED]


COMMON = ("evaluate.temperatures=[1.0, 0.0]", "evaluate.samples=2")
WHOLE = Size(seeds=(0, 1, 2), arms=tuple(arm.name for arm in arms()), settings=COMMON)
QUICK = Size(
    seeds=(0,),
    arms=(LONGREWARD, "contrast", CONTROL),
    settings=("evaluate.temperatures=[0.0]", "sample.n=6", "train.epochs=1"),
)
"""Shows that everything works; one seed shows nothing else."""
