"""`params.yaml`, read once and strictly: one section a stage, and five that several stages share."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import model_validator

from longreward.benchmarks.config import BenchmarkConfig
from longreward.config import CONFIGS, Config
from longreward.data.prepare import PrepareConfig
from longreward.errors import ConfigError
from longreward.evaluation.config import EvaluateConfig
from longreward.judge.config import JudgeConfig
from longreward.judge.usage import Price, PricesConfig
from longreward.models.config import PolicyConfig
from longreward.models.sampling import SampleConfig
from longreward.models.server_config import ServerConfig
from longreward.pairs.selection import PairConfig
from longreward.records import Dimension
from longreward.reward.config import ScoreConfig
from longreward.synthesis.config import SynthesizeConfig
from longreward.training.dpo import TrainConfig
from longreward.training.sft import SftConfig
from longreward.workers import WorkersConfig

SHARED = ("policy", "server", "judge", "prices", "workers")
PACE: Mapping[str, frozenset[str]] = {  # settings that change no record: how fast it goes, and when it stops
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


class Params(Config):
    """All settings of a run: those of SHARED belong to several stages, every other section to the stage of its name."""

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

    def price_of(self, dimension: Dimension) -> Price | None:
        """What the judge of this dimension costs; None where that is not known."""
        judge = self.judge.judge_for(dimension)
        return self.prices.of(judge.model, offline=judge.kind == "offline")

    @model_validator(mode="after")
    def _pairs_have_scores(self) -> Self:
        if self.pair.needs_scores and self.score.strategy == "none":
            raise ConfigError(
                f"score.strategy is none, and pair.method is {self.pair.method}, which pairs responses by their "
                "scores: set score.strategy to full or extremes, or name another method"
            )
        return self

    @model_validator(mode="after")
    def _given_pairs_have_a_source(self) -> Self:
        source, method = self.prepare.pairs.source, self.pair.method
        if method == "given" and source is None:
            raise ConfigError(
                "pair.method is given, and prepare.pairs.source is not set: name the file that holds the pairs, under "
                "data/raw"
            )
        if method != "given" and source is not None:
            raise ConfigError(
                f"prepare.pairs.source is {source}, and pair.method is {method}, which makes pairs of its own: set "
                "pair.method to given, or prepare.pairs.source to null"
            )
        return self

    @model_validator(mode="after")
    def _batches_ask_everything(self) -> Self:
        in_batches = any(judge.mode != "live" for judge, _ in self.judge.judges())
        if in_batches and self.score.strategy == "extremes":
            raise ConfigError(
                f"score.strategy is {self.score.strategy}, and judge.mode asks in batches, which ask everything at "
                "once: set score.strategy to full, or judge.mode to live"
            )
        return self

    @model_validator(mode="after")
    def _workers_keep_to_limits(self) -> Self:
        if self.workers.kind == "none":
            return self
        unfit = {
            "score.budget limits what one process spends, and workers are several": self.score.budget.limits,
            "judge.mode asks in batches, which one process sends": any(
                judge.mode != "live" for judge, _ in self.judge.judges()
            ),
            "score.retriever embeds, and workers cannot be handed vectors": self.score.retriever.kind != "bm25",
        }
        if reasons := [reason for reason, holds in unfit.items() if holds]:
            raise ConfigError(f"{'; '.join(reasons)}: change that, or set workers.kind to none")
        return self


def read_params(path: Path | None = Path("params.yaml"), overrides: Sequence[str] = ()) -> Params:
    """The file's settings under `overrides` of the form "section.key=value" (values are YAML).

    Without a path, the defaults: the paper's figures. Raises ConfigError that names the file, the key and the nearest
    known one.
    """
    values = _read_yaml(path) if path else {}
    source = str(path) if path else "the settings"
    for override in overrides:
        set_override(values, override)
    return Params.parse(values, source=" with ".join([source, *overrides]))


def deciding(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Sections without PACE: another try that differs in it alone goes on from the last one."""
    return {
        section: {key: value for key, value in values.items() if key not in PACE.get(section, ())}
        for section, values in settings.items()
    }


def stage_names() -> tuple[str, ...]:
    """The stages, in the order of the pipeline."""
    return tuple(name for name in Params.model_fields if name not in SHARED)


def preset_names() -> tuple[str, ...]:
    """The presets that come with the project: files of the top-level folder configs/."""
    return tuple(sorted(file.stem for file in CONFIGS.glob("*.yaml")))


def preset_path(name: str) -> Path:
    """The params file of a preset, in a checkout and in an installed package; ConfigError names the nearest one."""
    names = preset_names()
    if name in names:
        return CONFIGS / f"{name}.yaml"
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"there is no preset {name!r}; {hint}There are: {', '.join(names)}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {_one_line(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no sections; expected {', '.join(Params.model_fields)}")
    return values


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def parse_override(override: str) -> tuple[str, Any]:
    """The key and the value of "section.key=value"; raises ConfigError where it is not of that form."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"[^.\s]+(\.[^.\s]+)+", key):
        raise ConfigError(f'override {override!r} is not of the form "section.key=value"')
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not YAML: {_one_line(error)}") from error
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, re.IGNORECASE):
        value = float(value)  # as YAML 1.2 has it; to PyYAML 1e-6 is a word
    return key, value


def set_override(values: dict[str, Any], override: str) -> None:
    """Applies one "section.key=value" in place."""
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


def parameters_page() -> str:
    """Every setting with its default and meaning, as Markdown, from the config classes themselves."""
    lines = [
        "# Parameters",
        "",
        "Every key of `params.yaml`, with its default (the paper's figure where it gives one) and meaning. An unknown",
        "key is an error. This page is made by `python -m longreward.params`.",
    ]
    for section, field in Params.model_fields.items():
        config = field.annotation
        assert isinstance(config, type)
        assert issubclass(config, Config)
        meaning = (config.__doc__ or "").strip().splitlines()[0]
        lines += ["", f"## {section}", "", meaning, "", "| key | default | meaning |", "|---|---|---|"]
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
    print(parameters_page(), end="")
