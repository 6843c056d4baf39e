"""What is known of the servers that can be named instead of described: `judge.kind: openai`, `zhipu`, `ollama`, …

A preset fills in what a setting leaves open: the address, the variable of the key, and the field and bounds in which
that server differs. Its key goes to the preset's own hosts alone: at another address, `judge.api_key_env` must say
which key is meant.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from longreward.config import Config
from longreward.errors import ConfigError
from longreward.judge.batch.config import BatchConfig
from longreward.records import DIMENSIONS, Dimension
from longreward.utils.endpoints import validate_url, validate_variable_name

Kind = Literal["offline", "http", "openai", "zhipu", "anthropic", "vllm", "sglang", "ollama"]
LengthField = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True)
class Preset:
    """One kind of server."""

    base_url: str | None
    key_env: str
    hosts: tuple[str, ...] | None  # where its key may go unasked; None: wherever base_url points
    key_needed: bool
    length_field: LengthField = "max_tokens"
    max_temperature: float = 2.0
    greedy: Mapping[str, Any] = field(default_factory=dict)  # fields that stand for temperature 0, where it is refused

    def owns(self, base_url: str | None) -> bool:
        """Whether the preset's own key may be sent to this address (None: to the preset's)."""
        host = urlsplit(base_url or self.base_url or "").hostname or ""
        if self.hosts is None:
            return True
        return any(host == own or host.endswith("." + own) for own in self.hosts)


PRESETS: Mapping[Kind, Preset] = {
    # Any server: as the `openai` library itself, which sends the key of that name to every address.
    "http": Preset(None, "OPENAI_API_KEY", hosts=None, key_needed=False),
    # The newer models refuse max_tokens; the older ones take max_completion_tokens as well.
    "openai": Preset(
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        hosts=("api.openai.com",),
        key_needed=True,
        length_field="max_completion_tokens",
    ),
    # Temperatures lie above 0 and up to 1; do_sample: false is its way to ask for the likeliest answer.
    "zhipu": Preset(
        "https://open.bigmodel.cn/api/paas/v4",
        "ZHIPUAI_API_KEY",
        hosts=("open.bigmodel.cn",),
        key_needed=True,
        max_temperature=1.0,
        greedy={"do_sample": False},
    ),
    # Its OpenAI layer cuts temperatures off at 1; thoughts are not sent along; reasoning_effort is ignored.
    "anthropic": Preset(
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        hosts=("api.anthropic.com",),
        key_needed=True,
        max_temperature=1.0,
    ),
    "vllm": Preset("http://localhost:8000/v1", "VLLM_API_KEY", hosts=None, key_needed=False),
    "sglang": Preset("http://localhost:30000/v1", "SGLANG_API_KEY", hosts=None, key_needed=False),
    # The key is for ollama.com; a server of one's own has none. Its context window: see `window.py`.
    "ollama": Preset("http://localhost:11434/v1", "OLLAMA_API_KEY", hosts=("ollama.com",), key_needed=False),
}


# How a judge is reached and asked: the section `judge` of `params.yaml`.


Mode = Literal["live", "batch", "batch_files"]


class CheckConfig(Config):
    """The check of the judge before the score stage, and what it must reach. `check: require` alone sets the gate."""

    gate: Literal["off", "warn", "require"] = "off"
    """`warn`: the score stage checks the judge first and says what is wrong; `require`: it stops there. Once for each
    configuration of the judge and its prompts; `longreward judge-check` shows the same report."""

    quick: bool = False
    """About 60 calls in place of about 400: one question, some ratings repeated once, one dimension a probe."""

    min_repeat: float = Field(0.8, ge=0, le=1)
    """Share of verdicts that must stay within 1 point of each other when the same is asked again."""

    min_rank: float = Field(0.75, ge=0, le=1)
    """Share of comparisons, in the worst dimension, in which the right answer must score above the damaged one."""

    margin: float = Field(2.0, ge=0, le=10)
    """Points by which an attack may raise a bad answer's score in any dimension."""

    max_failed_probes: int = Field(0, ge=0)
    """Attacks that may raise it by more."""

    @model_validator(mode="before")
    @classmethod
    def _gate_alone(cls, values: Any) -> Any:
        return {"gate": values} if isinstance(values, str | bool) else values

    @field_validator("gate", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads a bare `off` as false


class JudgeConfig(Config):
    """Which judge answers, how fast it may be asked, and when to give up on a question."""

    kind: Kind = "offline"
    """Who answers. `offline`: the built-in lexical stand-in; `openai`, `zhipu`, `anthropic`, `vllm`, `sglang`,
    `ollama`: that server, with its address, key variable and peculiarities filled in; `http`: any other that speaks
    the OpenAI chat protocol."""

    base_url: str | None = Field(default=None, validate_default=True)
    """Where the server's protocol begins, as `http://localhost:8000/v1`; None: where `kind` is at home (`http`:
    api.openai.com)."""

    model: str | None = Field(default=None, validate_default=True)
    """The model's name as its server knows it; needed unless `kind` is `offline`."""

    revision: str = ""
    """Raise it when the model behind the name has changed: every question is then asked anew."""

    api_key_env: str | None = Field(default=None, validate_default=True)
    """The name of the environment variable that holds the key. None: that of `kind` (`OPENAI_API_KEY`,
    `ZHIPUAI_API_KEY`, `ANTHROPIC_API_KEY`, …), which goes to that provider's own address only; `http` sends
    `OPENAI_API_KEY`, where it is set, to `base_url`."""

    system: str = ""
    """A system prompt put before every question; empty: none."""

    max_concurrency: int = Field(default=32, ge=1, le=1000)
    """Calls in flight at once, at most."""

    adaptive: bool = True
    """Half as many calls at once where the server says that it has too much to do (429, 503), does not answer in time
    or breaks connections off, then step by step more again, up to `max_concurrency`."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    """Calls in any 60 seconds; None: no limit. Retries of failed calls count as calls."""

    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens in any 60 seconds, estimated before a call, corrected after it; None: no limit."""

    timeout_s: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    """Seconds without a byte from the server after which a call has failed."""

    max_retries: int = Field(default=5, ge=0, le=100)
    """Retries of a failed call (no connection, a timeout, 408, 409, 429, 5xx), with backoff or as Retry-After says. A
    question that fails at all of them while the server answers others ends unscored; else the run stops."""

    max_attempts: int = Field(default=5, ge=1, le=100)
    """How often one run asks a question whose answer cannot be read (METHOD: up to 5 tries). What stays unreadable is
    asked again by the next run."""

    max_reply_tokens: int = Field(default=4096, ge=1)
    """A reply that was cut at its token limit (`finish_reason: length`) is asked for again with twice the limit of its
    prompt (512 to 2,048), up to this many; attempts count as above. `thinking_tokens` come on top."""

    truncated_replies: Literal["unscored", "complete_part", "as_complete"] = "unscored"
    """What becomes of a reply that is cut at the largest limit too. `unscored`: nothing, with that reason;
    `complete_part`: its whole statements or points are used, and the score is flagged and counted; `as_complete`: every
    cut reply is read as if it were whole, as the published code does. A verdict before the cut always counts."""

    stop_after_unreadable: int | None = Field(default=5, ge=1)
    """Questions of one template that may end without a readable reply, while none of that template had one, before the
    run stops with an error that shows a reply; null: it never stops for that."""

    first_temperature: float = Field(default=0.01, ge=0, le=2)
    """Temperature of the first attempt (the published code's)."""

    retry_temperature: float = Field(default=0.95, ge=0, le=2)
    """Temperature of the attempts after an unreadable answer (the published code's)."""

    thinking_tokens: int = Field(default=0, ge=0, le=1_000_000)
    """Tokens that the judge may think before it answers, on top of what each prompt allows for its answer (512 to
    2,048). 0 suits a model that does not think."""

    length_field: LengthField | None = None
    """The field that limits an answer's tokens; None: what `kind` takes (`max_completion_tokens` for `openai`,
    `max_tokens` for the others)."""

    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Fields added to every request, as `{"top_p": 0.9}` or a reasoning model's switches. One of ours is replaced by
    its value here and left out where that is null: `{"temperature": null}` suits a model that takes none."""

    mode: Mode = Field(default="live", validate_default=True)
    """How it is asked. `live`: a call a question; `batch`: many at once through the provider's batch interface, at its
    price (OpenAI, Zhipu: half) and within 24 hours a round; `batch_files`: in files of the same format, which another
    program answers (`vllm run-batch`). Batches ask everything: `score.strategy` must be `full`."""

    batch: BatchConfig = BatchConfig()
    """How batches are made."""

    dimensions: dict[Dimension, dict[str, Any]] = Field(default_factory=dict)
    """Another judge for a dimension: the settings that differ, as `{"faithfulness": {"model": "glm-4-plus"}}`. One on
    another server (`kind`, `base_url`) takes over nothing that belongs to the first server: model, revision, key,
    limits, length_field, extra_body."""

    check: CheckConfig = CheckConfig()
    """The check of the judge before it scores, and what it must reach; `check: require` makes it binding."""

    @property
    def endpoint(self) -> str:
        """What a batch names as the address of a question."""
        return self.batch.endpoint or ("/v4" if self.kind == "zhipu" else "/v1") + "/chat/completions"

    def judge_for(self, dimension: Dimension) -> "JudgeConfig":
        """The judge of one dimension, with no dimensions of its own."""
        differs = self.dimensions.get(dimension, {})
        where = f"judge.dimensions.{dimension}"
        if "dimensions" in differs:
            raise ConfigError(f"{where}: a dimension's judge has no dimensions of its own; leave that key out")
        if "check" in differs:
            raise ConfigError(f"{where}: judge.check holds for all dimensions; leave that key out")
        return self.with_overrides(differs, where=where)

    def with_overrides(self, differs: Mapping[str, Any], *, where: str) -> "JudgeConfig":
        """This judge with other settings, and with no dimensions; ConfigError speaks of them as `where`.

        One on another server (`kind`, `base_url`) takes over nothing that is said of this one's server.
        """
        elsewhere = any(name in differs and differs[name] != getattr(self, name) for name in ("kind", "base_url"))
        mine = {name: getattr(self, name) for name in JudgeConfig.model_fields if name != "dimensions"}
        if not differs:
            return JudgeConfig.model_validate(mine)
        kept = {name: value for name, value in mine.items() if not (elsewhere and name in OF_ONE_SERVER)}
        if elsewhere:
            kept["kind"] = self.kind
        found = JudgeConfig.parse(kept | dict(differs), source=where)
        if found.kind == "offline" and ("model" in differs or "base_url" in differs):
            raise ConfigError(f"{where} names a model or an address, but its kind is offline; set its kind too")
        return found

    def judges(self) -> "list[tuple[JudgeConfig, tuple[Dimension, ...]]]":
        """Each distinct judge with the dimensions that are its own, in the order of the dimensions."""
        found: list[tuple[JudgeConfig, tuple[Dimension, ...]]] = []
        for dimension in DIMENSIONS:
            judge = self.judge_for(dimension)
            known = next((n for n, (each, _) in enumerate(found) if each == judge), None)
            if known is None:
                found.append((judge, (dimension,)))
            else:
                found[known] = (judge, (*found[known][1], dimension))
        return found

    @property
    def preset(self) -> Preset:
        """What is known of a judge of this kind."""
        return PRESETS["http" if self.kind == "offline" else self.kind]

    @property
    def address(self) -> str | None:
        """Where it is reached; None: where the `openai` library looks without being told."""
        return self.base_url or self.preset.base_url

    @field_validator("model")
    @classmethod
    def _is_named_for_http(cls, value: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("kind", "offline")
        if kind != "offline" and not value:
            raise ValueError(f"must name the model to ask where judge.kind is {kind}")
        return value

    @field_validator("base_url")
    @classmethod
    def _is_plain_url(cls, value: str | None) -> str | None:
        return validate_url(value, section="judge")

    @field_validator("api_key_env")
    @classmethod
    def _is_variable_name(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:
            return validate_variable_name(value, section="judge")
        preset = PRESETS.get(info.data.get("kind", "offline"))
        if preset is not None and preset.key_needed and not preset.owns(info.data.get("base_url")):
            raise ValueError(
                f"{preset.key_env} is sent to {preset.hosts[0] if preset.hosts else ''} only, and judge.base_url is "
                "elsewhere; name here the variable of the key for that address"
            )
        return value

    @field_validator("first_temperature", "retry_temperature")
    @classmethod
    def _is_taken_there(cls, value: float, info: ValidationInfo) -> float:
        preset = PRESETS.get(info.data.get("kind", "offline"))
        if preset is not None and value > preset.max_temperature:
            raise ValueError(f"{info.data['kind']} takes temperatures up to {preset.max_temperature:g}")
        return value

    @field_validator("mode")
    @classmethod
    def _is_there(cls, value: Mode, info: ValidationInfo) -> Mode:
        kind = info.data.get("kind", "offline")
        if value != "live" and kind == "offline":
            raise ValueError("the offline judge has no batches; set judge.kind, or judge.mode to live")
        if value == "batch" and kind not in WITH_BATCHES:
            raise ValueError(
                f"{kind} has no batch interface of OpenAI's form; {', '.join(WITH_BATCHES)} can be asked so. Set "
                "judge.mode to live, or to batch_files for vllm run-batch"
            )
        return value

    @model_validator(mode="after")
    def _dimensions_are_valid(self) -> Self:
        for dimension in self.dimensions:
            self.judge_for(dimension)
        return self


WITH_BATCHES: tuple[Kind, ...] = ("openai", "zhipu", "http")

# What is said of one server and holds for no other.
OF_ONE_SERVER = frozenset(
    (
        "base_url",
        "model",
        "revision",
        "api_key_env",
        "requests_per_minute",
        "tokens_per_minute",
        "length_field",
        "extra_body",
        "mode",
        "batch",
    )
)
