"""`params.yaml`, read once and parsed strictly: a section for each stage, five that several share, and `distill`."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from longreward.benchmarks.config import BenchmarkConfig
from longreward.config import CONFIGS, Config
from longreward.data.prepare import PrepareConfig
from longreward.errors import ConfigError
from longreward.evaluation.config import EvaluateConfig
from longreward.judge.config import JudgeConfig
from longreward.judge.usage import PricesConfig
from longreward.models.config import PolicyConfig
from longreward.models.sampling import SampleConfig
from longreward.models.server_config import ServerConfig
from longreward.pairs.methods import PairConfig
from longreward.records import DIMENSIONS, OPTIONAL_DIMENSIONS
from longreward.reward.config import ScoreConfig
from longreward.synthesis.config import SynthesizeConfig
from longreward.training.distill import DistillConfig
from longreward.training.dpo import TrainConfig
from longreward.training.sft import SftConfig

SHARED_SECTIONS = ("policy", "server", "judge", "prices", "workers")
COMMAND_SECTIONS = ("distill",)
# Settings that change no record, only speed, limits and when a stage stops.
RUNTIME_SETTINGS: Mapping[str, frozenset[str]] = {
    "judge": frozenset(
        (
            "max_concurrency",
            "adaptive",
            "requests_per_minute",
            "tokens_per_minute",
            "timeout_s",
            "max_retries",
            "stop_after_unreadable",
            "mode",
            "batch",
            "check",
        )
    ),
    "score": frozenset(("budget", "prompts_in_flight")),
    "synthesize": frozenset(("budget", "documents_in_flight")),
    "pair": frozenset(("budget",)),
    "evaluate": frozenset(("budget",)),
    "benchmark": frozenset(("budget",)),
}

PARAMS = Path("params.yaml")


class WorkersConfig(Config):
    """Where the shards of `sample` and `score` run: in the stage's process or on Dask workers. It changes no record."""

    kind: Literal["none", "dask"] = "none"
    """`none`: the stage's own process; `dask`: workers of a Dask cluster, which needs the extra `longreward[dask]`."""

    address: str | None = None
    """The address of a scheduler, as `tcp://10.0.0.2:8786` (or `tls://…`); None: the stage starts `count` workers on
    this machine."""

    count: int = Field(default=2, ge=1, le=256)
    """Without an `address`: how many workers the stage starts, each a process that runs one shard at a time."""

    start_limit_s: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    """How many seconds to wait for the first worker; the stage fails if there is none by then."""

    @field_validator("address")
    @classmethod
    def _is_scheduler_address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"(tcp|tls)://[^\s/@?]+:\d{1,5}", value):
            raise ValueError("must be a scheduler's address like tcp://10.0.0.2:8786")
        return value


def check_workers_installed(config: WorkersConfig) -> None:
    """Raise ConfigError if a package that `kind` needs is not installed."""
    packages = ("prefect-dask", "distributed") if config.kind == "dask" else ()
    missing = [name for name in packages if find_spec(name.replace("-", "_")) is None]
    if missing:
        raise ConfigError(
            f"workers.kind is dask, and {' and '.join(missing)} cannot be imported: `pip install 'longreward[dask]'` "
            "here and on all workers, or set workers.kind to none"
        )


class Params(Config):
    """All settings of a run. A section has the name of its stage, except for SHARED_SECTIONS and COMMAND_SECTIONS."""

    policy: PolicyConfig = PolicyConfig(base_model="models/tiny-base")
    server: ServerConfig = ServerConfig()
    judge: JudgeConfig = JudgeConfig()
    prices: PricesConfig = PricesConfig()
    workers: WorkersConfig = WorkersConfig()
    synthesize: SynthesizeConfig = SynthesizeConfig()
    prepare: PrepareConfig = PrepareConfig()
    sft: SftConfig = SftConfig()
    sample: SampleConfig = SampleConfig()
    score: ScoreConfig = ScoreConfig()
    pair: PairConfig = PairConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    benchmark: BenchmarkConfig = BenchmarkConfig()
    distill: DistillConfig = DistillConfig()

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        source, method = self.prepare.pairs.source, self.pair.method
        if self.pair.needs_scores and self.score.strategy == "none":
            raise ConfigError(
                f"score.strategy is none, and pair.method is {method}, which pairs responses by their scores: set "
                "score.strategy to full or adaptive, or choose another method"
            )
        if method == "given" and source is None:
            raise ConfigError(
                "pair.method is given, and prepare.pairs.source is not set: set it to the file of pairs under data/raw"
            )
        if method != "given" and source is not None:
            raise ConfigError(
                f"prepare.pairs.source is {source}, and pair.method is {method}, which creates pairs itself: set "
                "pair.method to given, or prepare.pairs.source to null"
            )
        weighted = [name for name in OPTIONAL_DIMENSIONS if self.pair.weights.get(name)]
        if unjudged := [name for name in weighted if name not in self.score.optional_dimensions]:
            raise ConfigError(
                f"pair.weights gives {', '.join(unjudged)} a weight, and score.optional_dimensions has no such "
                "dimension: add it there, or remove the weight"
            )
        self._check_responses_per_prompt()
        self._check_lengths()
        in_batches = any(judge.mode != "live" for judge, _ in self.judge.judges())
        if in_batches and self.score.strategy == "adaptive":
            raise ConfigError(
                "score.strategy is adaptive, and judge.mode sends all requests at once in batches: set score.strategy "
                "to full, or judge.mode to live"
            )
        unsupported = {
            "score.budget limits the spending of one process, and there are several workers": (
                self.score.budget.is_limited
            ),
            "judge.mode is a batch mode, which one process has to run": in_batches,
            "score.retriever uses embeddings, which workers cannot share": self.score.retriever.embedding_kind
            is not None,
        }
        reasons = [reason for reason, applies in unsupported.items() if applies]
        if reasons and self.workers.kind == "dask":
            raise ConfigError(f"{'; '.join(reasons)}: change that, or set workers.kind to none")
        return self

    def _check_responses_per_prompt(self) -> None:
        pair = self.pair
        counts = {"pair.responses": pair.responses}
        if self.prepare.responses is None:  # the number of imported responses is unknown before `prepare`
            counts["sample.n"] = self.sample.n
        for key, count in counts.items():
            # `contrast` needs one response and given pairs none.
            if count is not None and count < pair.min_scored and pair.method not in ("contrast", "given"):
                raise ConfigError(
                    f"{key} ({count}) is less than pair.min_scored ({pair.min_scored}): no prompt could give a pair"
                )
        # Adaptive scoring leaves responses open that are neither the best nor the worst at these settings.
        changes = {
            "pair.selection": pair.selection != "best_worst",
            "pair.responses": pair.responses is not None and pair.responses < self.sample.n,
            "pair.weights": len({pair.weights[dimension] for dimension in DIMENSIONS}) > 1,
        }
        if self.score.strategy == "adaptive" and pair.needs_scores and any(changes.values()):
            raise ConfigError(
                "score.strategy is adaptive, which scores only what best_worst needs with all responses and equal "
                f"weights: set it to full, or remove {', '.join(key for key, changed in changes.items() if changed)}"
            )

    def _check_lengths(self) -> None:
        window = self.policy.window
        if window is None:
            return
        if self.sample.max_new_tokens >= window:
            raise ConfigError(
                f"sample.max_new_tokens ({self.sample.max_new_tokens:,}) leaves no room for a prompt in policy.window "
                f"({window:,})"
            )
        trained = {"train": self.train.max_length}
        if self.policy.sft_model is None:
            trained["sft"] = self.sft.max_length
        for stage, length in trained.items():
            if length is not None and length > window:
                raise ConfigError(f"{stage}.max_length ({length:,}) is more than policy.window ({window:,})")


def read_params(path: Path | None = PARAMS, overrides: Sequence[str] = ()) -> Params:
    """Read the settings of a file, with `overrides` of the form "section.key=value" (values are YAML) applied.

    Without a path, the settings are the defaults, which are the paper's values. Raises ConfigError that names the file,
    the key and, for an unknown key, the nearest one that exists.
    """
    values = _read_yaml(path) if path else {}
    source = str(path) if path else "the settings"
    for override in overrides:
        set_override(values, override)
    return Params.parse(values, source=" with ".join([source, *overrides]))


def without_runtime_settings(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the sections without RUNTIME_SETTINGS: a stage resumes its progress if only those were changed."""
    return {
        section: {key: value for key, value in values.items() if key not in RUNTIME_SETTINGS.get(section, ())}
        for section, values in settings.items()
    }


def stage_names() -> tuple[str, ...]:
    """Return the stages in the order of the pipeline."""
    return tuple(name for name in Params.model_fields if name not in (*SHARED_SECTIONS, *COMMAND_SECTIONS))


def preset_names() -> tuple[str, ...]:
    """Return the names of the presets: the files of configs/."""
    return tuple(sorted(file.stem for file in CONFIGS.glob("*.yaml")))


def preset_path(name: str) -> Path:
    """Return the params file of a preset; raises ConfigError, with the nearest name, if there is none."""
    names = preset_names()
    if name in names:
        return CONFIGS / f"{name}.yaml"
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {matches[0]}? " if matches else ""
    raise ConfigError(f"unknown preset {name!r}; {hint}The presets are {', '.join(names)}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        advice = "; run this in the project's folder" if path == PARAMS and not path.exists() else ""
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}{advice}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {_one_line(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} has no sections; expected {', '.join(Params.model_fields)}")
    return values


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def parse_override(override: str) -> tuple[str, Any]:
    """Return the key and the value of "section.key=value"; raises ConfigError for any other form."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"[^.\s]+(\.[^.\s]+)+", key):
        raise ConfigError(f'override {override!r} is not of the form "section.key=value"')
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not YAML: {_one_line(error)}") from error
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, re.IGNORECASE):
        value = float(value)  # PyYAML implements YAML 1.1, in which 1e-6 is a string
    return key, value


def set_override(values: dict[str, Any], override: str) -> None:
    """Apply one "section.key=value" to nested dictionaries, in place."""
    key, value = parse_override(override)
    *sections, name = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if inner is None:
            inner = values[section] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"override {override!r}: {section} is a value ({inner!r}), not a section")
        values = inner
    values[name] = value


def parameters_markdown() -> str:
    """Return docs/parameters.md: every setting with its default and docstring, from the config classes."""
    lines = [
        "# Parameters",
        "",
        "Every key of `params.yaml`, with its default (the paper's value where it gives one) and meaning. An unknown",
        "key is an error. This page is generated by `python -m longreward.params`.",
    ]
    for section, field in Params.model_fields.items():
        config = field.annotation
        assert isinstance(config, type)
        assert issubclass(config, Config)
        summary = (config.__doc__ or "").strip().splitlines()[0]
        lines += ["", f"## {section}", "", summary, "", "| key | default | meaning |", "|---|---|---|"]
        lines += _rows(config, prefix="")
    return "\n".join(lines) + "\n"


def _rows(config: type[Config], *, prefix: str) -> Iterator[str]:
    for name, field in config.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Config):
            yield from _rows(inner, prefix=f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else json.dumps(field.get_default(call_default_factory=True))
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        yield f"| `{prefix}{name}` | `{default}` | {meaning} |"


if __name__ == "__main__":
    print(parameters_markdown(), end="")
