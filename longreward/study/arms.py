"""What the study compares: arms, each a few settings on top of common ones, over seeds.

Every arm of a seed has the same documents, SFT model, responses and scores: what
differs begins with the pairs. All stages before them are computed once a seed.

With the tiny base a study has settings of its own, for two cores. With another model it takes the project's or the
preset's, measures with the benchmarks too, and mixes in UltraFeedback where these name no short preferences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from longreward.builtin import TINY_BASE
from longreward.errors import ConfigError
from longreward.params import Params
from longreward.records import DIMENSIONS

SEEDED = ("prepare", "sft", "sample", "pair", "train", "evaluate")
SFT, LONGREWARD, CONTROL = "sft", "longreward", "random"
MIXED, SHORT_ONLY = "mixed", "short-only"
REGISTERED = "evaluate.registered_model=longreward-study"  # no arm becomes the project's champion
ULTRAFEEDBACK = (
    "train.short.source=hub:HuggingFaceH4/ultrafeedback_binarized",
    "train.short.hub.split=train_prefs",
    "train.short.hub.revision=3949bf5f8c17c394422ccfab0c31ea9c20bdeb85",
)


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
class StudyPlan:
    """How large a study is; `settings` hold for all its runs, `short` says where short preferences come from."""

    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    settings: tuple[str, ...] = ()
    short: tuple[str, ...] = ("train.short.source=builtin",)
    left_out: tuple[str, ...] = ("benchmark",)
    """Stages that its runs do without."""
    fixed: tuple[str, ...] = ()
    """Settings that come after the user's, and only arms change."""


def list_arms(short: tuple[str, ...] = ()) -> tuple[Arm, ...]:
    """All of them: the paper's method, its baselines, the control, another choice, short preferences beside and in
    place of the long ones, and each dimension left out."""
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
    left_out = [Arm(f"no-{d}", f"as longreward, without {d}", (f"pair.weights.{d}=0",)) for d in DIMENSIONS]
    return (*methods, *left_out)


def check_arm(arm: Arm, params: Params) -> None:
    """ConfigError where the arm would show nothing: the tiny reward model knows the built-in corpus alone."""
    if not is_embedded(params) and params.pair.method == "srm" and params.pair.srm.model is None:
        raise ConfigError(
            f"the arm {arm.name} needs a reward model: name one with -S pair.srm.model=<folder or hub id>, or leave "
            "it out with --arms"
        )


def plan_cells(size: StudyPlan) -> list[Cell]:
    """The runs of a study, seed by seed, so that what arms share is computed once and then found."""
    known = {arm.name: arm for arm in list_arms(size.short)}
    return [
        Cell(known[name], seed, (*_seeded(seed), REGISTERED, *size.settings, *size.fixed, *known[name].settings))
        for seed in size.seeds
        for name in size.arms
    ]


def _seeded(seed: int) -> Sequence[str]:
    return [f"{section}.seed={seed}" for section in SEEDED]


ARM_NAMES = tuple(arm.name for arm in list_arms())
FAST = "train.micro_batch=8"
FULL = StudyPlan(
    seeds=(0, 1, 2),
    arms=ARM_NAMES,
    settings=(FAST, "evaluate.temperatures=[1.0, 0.0]", "evaluate.samples=2"),
)
QUICK = StudyPlan(
    seeds=(0,),
    arms=(LONGREWARD, "contrast", CONTROL, MIXED),
    settings=(FAST, "train.epochs=1", "sample.n=6", "evaluate.temperatures=[0.0]"),
)
"""Shows that everything works; one seed shows nothing else."""


def plan_study(params: Params, *, quick: bool) -> StudyPlan:
    """How large a study of these parameters is; ConfigError where a quick one is asked for with another model."""
    if is_embedded(params):
        return QUICK if quick else FULL
    if quick:
        raise ConfigError(
            f"--quick is for the tiny base, and policy.base_model is {params.policy.base_model}: choose --arms and "
            "--seeds instead"
        )
    own = params.train.short.source
    short = ULTRAFEEDBACK if own is None else (f"train.short.source={own}",)
    return StudyPlan(seeds=(0, 1, 2), arms=ARM_NAMES, fixed=("train.short.source=null",), short=short, left_out=())


def is_embedded(params: Params) -> bool:
    """Whether the model is the embedded default's."""
    return params.policy.base_model == TINY_BASE and params.policy.sft_model is None
