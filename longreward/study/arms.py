"""What a study compares: arms, each with a few settings, times seeds.

All arms of a seed share documents, SFT model, responses and scores. They differ from the pairs on, so the stages before
are computed once for each seed.

With the tiny base model a study has its own settings, for two cores. With another model it uses those of the project or
preset, also runs the benchmarks, and mixes in UltraFeedback unless these settings name other short preferences.
"""

from dataclasses import dataclass

from longreward.builtin import TINY_BASE
from longreward.errors import ConfigError
from longreward.params import Params
from longreward.records import DIMENSIONS

SEEDED_SECTIONS = ("prepare", "sft", "sample", "pair", "train", "evaluate")
SFT, LONGREWARD, CONTROL, CONSENSUS, GOLD = "sft", "longreward", "random", "consensus", "gold"
MIXED, SHORT_ONLY = "mixed", "short-only"
REGISTERED_MODEL = "evaluate.registered_model=longreward-study"  # so that no arm becomes the project's champion
ULTRAFEEDBACK = (
    "train.short.source=hub:HuggingFaceH4/ultrafeedback_binarized",
    "train.short.hub.split=train_prefs",
    "train.short.hub.revision=3949bf5f8c17c394422ccfab0c31ea9c20bdeb85",
)


@dataclass(frozen=True)
class Arm:
    """One way to make pairs; `settings` are overrides of params.yaml, as "pair.method=srm"."""

    name: str
    description: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One run of a study: an arm with a seed, and all its settings."""

    arm: Arm
    seed: int
    settings: tuple[str, ...]

    def run_name(self, study: str) -> str:
        """Return the name of the run in Prefect, DVC and MLflow."""
        return f"{study}-{self.arm.name}-s{self.seed}"


@dataclass(frozen=True)
class StudyPlan:
    """The arms and seeds of a study, and the settings that its runs share."""

    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    settings: tuple[str, ...] = ()
    short: tuple[str, ...] = ("train.short.source=builtin",)
    """Where the arms with short preferences take them from."""
    skipped_stages: tuple[str, ...] = ("benchmark",)
    fixed: tuple[str, ...] = ()
    """Settings that override the user's; only arms override them."""


def list_arms(short: tuple[str, ...] = ()) -> tuple[Arm, ...]:
    """Return all arms: the paper's method, its baselines, the control, other selections, and the ablations."""
    methods = [
        Arm(LONGREWARD, "the judge's four scores, best against worst", ()),
        Arm("srm", "a reward model that sees query, response and what fits of the context", ("pair.method=srm",)),
        Arm("contrast", "the data's own answer against a sampled one", ("pair.method=contrast",)),
        Arm("pairwise", "the judge compares two responses, in both orders", ("pair.method=pairwise",)),
        Arm(CONTROL, "chance", ("pair.method=random",)),
        Arm("best-second", "as longreward, best against second", ("pair.selection=best_second",)),
        Arm(MIXED, "as longreward, and as many short preferences beside them", short),
        Arm(SHORT_ONLY, "short preferences alone, as many", (*short, "train.short.alone=true")),
    ]
    ablations = [
        Arm(f"no-{dimension}", f"as longreward, without {dimension}", (f"pair.weights.{dimension}=0",))
        for dimension in DIMENSIONS
    ]
    return (*methods, *ablations)


ARM_NAMES = tuple(arm.name for arm in list_arms())
REAL_ARMS = (
    Arm(GOLD, "best against worst by the gold facts, which no judge sees", ()),
    Arm(LONGREWARD, "the judge's four scores, best against worst", ()),
    Arm(CONTROL, "chance", ("pair.method=random",)),
    Arm(CONSENSUS, "most against least agreement with the other responses; no judge", ("pair.method=consensus",)),
)
"""The arms of `real.py`, which makes the pairs of GOLD itself."""
MICRO_BATCH = "train.micro_batch=8"  # a tiny model is faster with it
FULL = StudyPlan(
    seeds=(0, 1, 2),
    arms=ARM_NAMES,
    settings=(MICRO_BATCH, "evaluate.temperatures=[1.0, 0.0]", "evaluate.samples=2"),
)
QUICK = StudyPlan(
    seeds=(0,),
    arms=(LONGREWARD, "contrast", CONTROL, MIXED),
    settings=(MICRO_BATCH, "train.epochs=1", "sample.n=6", "evaluate.temperatures=[0.0]"),
)
"""Shows that everything works; a single seed supports no conclusion."""


def plan_study(params: Params, *, quick: bool) -> StudyPlan:
    """Return the default plan for these parameters; ConfigError for a quick study with another model."""
    if uses_tiny_base(params):
        return QUICK if quick else FULL
    if quick:
        raise ConfigError(
            f"--quick is for the tiny base, and policy.base_model is {params.policy.base_model}: choose --arms and "
            "--seeds instead"
        )
    source = params.train.short.source
    return StudyPlan(
        seeds=(0, 1, 2),
        arms=ARM_NAMES,
        fixed=("train.short.source=null",),
        short=ULTRAFEEDBACK if source is None else (f"train.short.source={source}",),
        skipped_stages=(),
    )


def plan_cells(plan: StudyPlan) -> list[Cell]:
    """Return the runs of a study, seed by seed, so that what arms share is computed by the first and then cached."""
    by_name = {arm.name: arm for arm in list_arms(plan.short)}
    cells = []
    for seed in plan.seeds:
        seeds = [f"{section}.seed={seed}" for section in SEEDED_SECTIONS]
        for name in plan.arms:
            arm = by_name[name]
            # A later setting overrides an earlier one, so that arms come last.
            settings = (*seeds, REGISTERED_MODEL, *plan.settings, *plan.fixed, *arm.settings)
            cells.append(Cell(arm, seed, settings))
    return cells


def check_arm(arm: Arm, params: Params) -> None:
    """ConfigError where the arm is pointless: the tiny reward model only knows the built-in corpus."""
    if not uses_tiny_base(params) and params.pair.method == "srm" and params.pair.srm.model is None:
        raise ConfigError(
            f"the arm {arm.name} needs a reward model: name one with -S pair.srm.model=<folder or hub id>, or leave "
            "it out with --arms"
        )


def uses_tiny_base(params: Params) -> bool:
    """Whether the model is the one that comes with the project."""
    return params.policy.base_model == TINY_BASE and params.policy.sft_model is None
