"""Configure the judge: the section `judge` of params.yaml."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from longreward.config import Config
from longreward.errors import ConfigError
from longreward.judge.prompt_manifest import DIMENSION_TEMPLATES, LIST_TEMPLATES
from longreward.judge.providers import PROVIDERS, Kind, LengthField, Mode, Provider
from longreward.records import DIMENSIONS, OPTIONAL_DIMENSIONS, Dimension
from longreward.utils.endpoints import BaseUrl, KeyVariable

# Settings of one server, which a judge on another server does not inherit.
SERVER_SETTINGS = frozenset(
    (
        *("base_url", "model", "revision", "api_key_env", "requests_per_minute", "tokens_per_minute"),
        *("length_field", "extra_body", "mode", "batch"),
    )
)


ReplyFormatSetting = Literal["text", "json_schema", "auto"]
Reducer = Literal["mean", "median"]
# Settings that hold for all judges, so that the overrides of a dimension or of a panel member cannot change them.
COMMON_SETTINGS = ("dimensions", "check", "reducer")


class CheckConfig(Config):
    """Thresholds of the judge validation before the score stage. `check: require` alone sets the gate."""

    gate: Literal["off", "warn", "require"] = "off"
    """`warn`: the score stage checks the judge first and logs failures; `require`: it stops at a failure. Once for each
    configuration of the judge and its prompts; `longreward judge-check` shows the same report."""

    quick: bool = False
    """About 60 calls in place of about 400: one question, some ratings repeated once, one dimension per attack."""

    min_repeat: float = Field(0.8, ge=0, le=1)
    """Share of verdicts that must stay within 1 point of each other when the same is asked again."""

    min_rank: float = Field(0.75, ge=0, le=1)
    """Share of comparisons, in the worst dimension, in which the right answer must score above the damaged one."""

    margin: float = Field(2.0, ge=0, le=10)
    """Points by which an attack may raise a bad answer's score in any dimension."""

    max_successful_attacks: int = Field(0, ge=0)
    """Attacks that may raise a bad answer by more than the margin before the judge fails."""

    labels: Path | None = None
    """A folder of human labels (`longreward review`), as `data/labels`: the check also judges the labelled items, once
    for each judge, and compares."""

    min_kappa: float = Field(0.4, ge=-1, le=1)
    """Quadratic-weighted kappa with the labels that the judge must reach for each kind of question (support,
    preference, score), and for each dimension with at least `min_labels` labels."""

    min_labels: int = Field(20, ge=2)
    """Labels of each kind below which the judge fails, as kappa would be too uncertain."""

    @model_validator(mode="before")
    @classmethod
    def _expand_gate(cls, values: Any) -> Any:
        return {"gate": values} if isinstance(values, str | bool) else values

    @field_validator("gate", mode="before")
    @classmethod
    def _parse_off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML 1.1 reads a bare `off` as false


class BatchConfig(Config):
    """How requests are collected and sent if `judge.mode` is not `live`."""

    prompts: int = Field(default=200, ge=1)
    """Prompts per shard, all processed at once; replaces `score.prompts_in_flight` and `score.shard_size`. The pipeline
    processes two shards at a time and sends their requests together. Their documents and open requests are held in
    memory: about 4 MB per prompt with ten responses."""

    requests_per_file: int = Field(default=50_000, ge=1)
    """Largest number of requests per file, and so per batch (OpenAI and Zhipu accept 50,000,
    Anthropic 100,000)."""

    megabytes_per_file: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Largest size of a file, in 1,000,000 bytes; None: the limit of `judge.kind` (`zhipu`: 100, the others: 200)."""

    settle_s: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    """A batch is sent when no new request has arrived for this many seconds. Must be longer than an embedding model
    takes for one document, if one is used: later requests wait for the next batch."""

    poll_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    """Seconds between two status requests for a batch."""

    endpoint: str | None = Field(default=None, pattern="^/")
    """The URL path that files and batches name for each request; None: the path of `judge.kind`
    (`/v4/chat/completions` for `zhipu`, `/v1/chat/completions` for the others)."""


class JudgeConfig(Config):
    """Which judge replies, how fast it may be called, and when to give up on a request."""

    kind: Kind = "offline"
    """Who replies. `offline`: the built-in lexical judge; `openai`, `zhipu`, `anthropic`, `gemini`, `vllm`, `sglang`,
    `ollama`: that server, with its address, key variable and peculiarities filled in; `http`: any other that speaks the
    OpenAI chat protocol."""

    base_url: BaseUrl | None = None
    """Root of the server's API, as `http://localhost:8000/v1`; None: the address of `kind` (`http`: api.openai.com)."""

    model: str | None = Field(default=None, validate_default=True)
    """The model's name as its server knows it; needed unless `kind` is `offline`."""

    revision: str = ""
    """Change it when the model behind the name has changed: every request is then sent anew."""

    api_key_env: KeyVariable | None = Field(default=None, validate_default=True)
    """The name of the environment variable that holds the key. None: that of `kind` (`OPENAI_API_KEY`,
    `ZHIPUAI_API_KEY`, `ANTHROPIC_API_KEY`, …), which goes to that provider's own address only; `http` sends
    `OPENAI_API_KEY`, where it is set, to `base_url`."""

    system: str = ""
    """A system prompt for every request; empty: none."""

    max_concurrency: int = Field(default=32, ge=1, le=1000)
    """Calls in flight at once, at most."""

    adaptive: bool = True
    """Halve the calls in flight where the server reports overload (429, 503), does not reply in time or closes
    connections, then raise them step by step up to `max_concurrency`."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    """Calls in any 60 seconds; None: no limit. Retries of failed calls count as calls."""

    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens in any 60 seconds, estimated before a call, corrected after it; None: no limit."""

    timeout_s: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    """Seconds without a byte from the server after which a call has failed."""

    max_retries: int = Field(default=5, ge=0, le=100)
    """Retries of a failed call (no connection, a timeout, 408, 409, 429, 5xx), with backoff or as Retry-After says. A
    request that fails at all of them while the server replies to others ends unscored; else the run stops."""

    max_attempts: int = Field(default=5, ge=1, le=100)
    """How often one run sends a request whose reply cannot be parsed (METHOD: up to 5 tries); every second time it
    continues the conversation with a reminder of the format. What stays unreadable is sent again by the next run."""

    max_reply_tokens: int = Field(default=4096, ge=1)
    """A reply that was cut off at its token limit (`finish_reason: length`) is requested again with twice the limit of
    its prompt (512 to 2,048), up to this many; attempts count as above. `thinking_tokens` come on top."""

    truncated_replies: Literal["unscored", "complete_part", "as_complete"] = "unscored"
    """What happens to a reply that is cut off at the largest limit too. `unscored`: no score, with that reason;
    `complete_part`: its complete statements or points are used, and the score is flagged and counted; `as_complete`:
    every truncated reply is parsed as if it were complete, as the published code does. A verdict before the cut always
    counts."""

    stop_after_unreadable: int | None = Field(default=5, ge=1)
    """Requests of one template that may end without a readable reply, while none of that template had one, before the
    run stops with an error that shows a reply; null: it never stops for that."""

    first_temperature: float = Field(default=0.01, ge=0, le=2)
    """Temperature of the first attempt (the published code's), and of reminders of the format."""

    retry_temperature: float = Field(default=0.95, ge=0, le=2)
    """Temperature of repeated requests after an unreadable reply (the published code's)."""

    thinking_tokens: int = Field(default=0, ge=0, le=1_000_000)
    """Tokens that the judge may think before it replies, on top of what each prompt allows for its reply (512 to
    2,048). 0 suits a model that does not think."""

    reply_format: ReplyFormatSetting = Field(default="text", validate_default=True)
    """The form of ratings, levels of support, lists of statements and pairwise verdicts. `text`: as the examples in the
    prompts; `json_schema`: JSON with the analysis before the verdict, in a schema that the server enforces; `auto`: the
    same if the server supports schemas, which a request detects once. Published prompts and benchmarks use text."""

    length_field: LengthField | None = None
    """The field that limits the tokens of a reply; None: that of `kind` (`max_completion_tokens` for `openai`,
    `max_tokens` for the others)."""

    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Fields added to every request, as `{"top_p": 0.9}` or a reasoning model's switches. They replace our fields of
    the same name; null omits a field: `{"temperature": null}` suits a model that accepts none."""

    mode: Mode = Field(default="live", validate_default=True)
    """How requests are sent. `live`: one call a request; `batch`: many at once through the provider's batch interface,
    at its price (OpenAI, Anthropic, Zhipu: half) and within 24 hours a round; `batch_files`: in files of OpenAI's
    format, which another program answers (`vllm run-batch`). Batches send everything: `score.strategy` must be
    `full`."""

    batch: BatchConfig = BatchConfig()
    """How batches are made."""

    dimensions: dict[Dimension, dict[str, Any]] = Field(default_factory=dict)
    """Another judge for a dimension: the settings that differ, as `{"faithfulness": {"model": "glm-4-plus"}}`. One on
    another server (`kind`, `base_url`) inherits nothing that belongs to the first server: model, revision, key,
    limits, length_field, extra_body."""

    panel: list[dict[str, Any]] = Field(default_factory=list)
    """Further judges that rate the same responses: of each the settings that differ from this judge's, as `[{"model":
    "glm-4-air"}]`; inherited as by `dimensions`. The first judge alone lists statements and extracts; all rate. Empty:
    one judge. A dimension may have a panel of its own (`{"faithfulness": {"panel": []}}`: none)."""

    reducer: Reducer = "mean"
    """How the ratings of a panel become one. The support of a statement is the majority's, and with a tie the middle
    one of the tied levels, or the lower one of two."""

    check: CheckConfig = CheckConfig()
    """The validation of the judge before it scores, and its thresholds; `check: require` makes it binding."""

    @property
    def display_name(self) -> str:
        """The name in messages and tables: the model's, or `offline` for the built-in judge."""
        return self.model or self.kind

    @property
    def provider(self) -> Provider:
        """Defaults of this kind of judge."""
        return PROVIDERS[self.kind]

    @property
    def uses_schemas(self) -> bool | None:
        """Whether requests have a JSON schema where their template has one; None: if the server supports it."""
        # The offline judge is no server, a field of the user replaces ours, and files are written before any reply.
        cannot_detect = self.kind == "offline" or self.mode == "batch_files" or "response_format" in self.extra_body
        if self.reply_format == "auto":
            return False if cannot_detect else None
        return self.reply_format == "json_schema"

    @property
    def address(self) -> str | None:
        """The root of the server's API; None: the default of the `openai` library."""
        return self.base_url or self.provider.base_url

    @property
    def sent_length_field(self) -> LengthField:
        """The field that limits the tokens of a reply."""
        return self.length_field or self.provider.length_field

    @property
    def endpoint(self) -> str:
        """The path that batch files contain for each request."""
        return self.batch.endpoint or self.provider.batch_endpoint

    def judges(self) -> "list[tuple[JudgeConfig, tuple[Dimension, ...]]]":
        """Return each distinct judge with its dimensions, in the order of the dimensions and of their panels."""
        panels = self._panels()
        distinct: list[JudgeConfig] = []
        for judge in (judge for panel in panels.values() for judge in panel):
            if judge not in distinct:  # a config with dicts has no hash
                distinct.append(judge)
        return [(judge, tuple(name for name, panel in panels.items() if judge in panel)) for judge in distinct]

    def _panels(self) -> "dict[Dimension, tuple[JudgeConfig, ...]]":
        """Return the judges of each dimension. One judges an optional dimension, the first of a panel."""
        panels: dict[Dimension, tuple[JudgeConfig, ...]] = {name: self.panel_for(name) for name in DIMENSIONS}
        used = [judge for panel in panels.values() for judge in panel]
        for optional in OPTIONAL_DIMENSIONS:
            judge = self.judge_for(optional)
            # No judge is opened only for a dimension without settings of its own, which is probably not in use.
            panels[optional] = (judge if optional in self.dimensions or judge in used else used[0],)
        return panels

    def judges_by_template(self) -> dict[str, list[int]]:
        """Return who gets the requests of each prompt template, as indices of `judges()`: one judge, or a panel."""
        distinct = [judge for judge, _ in self.judges()]
        indices = {dimension: [distinct.index(judge) for judge in panel] for dimension, panel in self._panels().items()}
        # The members of a panel can only agree or disagree on the same statements and extracts.
        return {
            template: indices[dimension][:1] if template in LIST_TEMPLATES else indices[dimension]
            for dimension, templates in DIMENSION_TEMPLATES.items()
            for template in templates
        }

    @property
    def has_panel(self) -> bool:
        """Whether several judges rate a dimension."""
        return any(len(positions) > 1 for positions in self.judges_by_template().values())

    def judge_for(self, dimension: Dimension) -> "JudgeConfig":
        """Return the first judge of one dimension, mostly the only one; its own `dimensions` and `panel` are empty."""
        overrides = self.dimensions.get(dimension, {})
        own = {name: value for name, value in overrides.items() if name != "panel"}
        return self._other_judge(own, f"judge.dimensions.{dimension}")

    def panel_for(self, dimension: Dimension) -> "tuple[JudgeConfig, ...]":
        """Return all judges of one dimension, the first one first. Raises ConfigError if two have the same model."""
        first, section = self.judge_for(dimension), f"judge.dimensions.{dimension}.panel"
        panel = self.dimensions.get(dimension, {}).get("panel")
        if panel is None:  # these inherit from the judge of all dimensions, not from that of this one
            others = [self._other_judge(member, f"judge.panel.{n}") for n, member in enumerate(self.panel)]
        else:
            others = [first._other_judge(member, f"{section}.{n}") for n, member in enumerate(panel)]
        models = [judge.display_name for judge in (first, *others)]
        # The ledger and all records tell judges apart by their models.
        if twice := next((model for model in models if models.count(model) > 1), None):
            raise ConfigError(
                f"{dimension} is rated by {twice} twice: name different models in judge.panel, or the panel of this "
                f"dimension in {section}"
            )
        return first, *others

    def _other_judge(self, overrides: Mapping[str, Any], section: str) -> "JudgeConfig":
        for key in (*COMMON_SETTINGS, "panel"):
            if key in overrides:
                raise ConfigError(f"{section}.{key}: judge.{key} holds for all judges; leave that key out")
        return self.with_overrides(overrides, section=section)

    def map_judges(self, change: "Callable[[JudgeConfig], Mapping[str, Any]]") -> "JudgeConfig":
        """Return the configuration with changed settings of each judge, also of those of dimensions and panels.

        `change` gets a judge with all of its settings and returns those that differ.
        """

        def changed_panel(first: JudgeConfig, panel: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [{**member, **change(first._other_judge(member, "judge.panel"))} for member in panel]

        dimensions = {}
        for dimension, overrides in self.dimensions.items():
            first = self.judge_for(dimension)
            dimensions[dimension] = {**overrides, **change(first)}
            if "panel" in overrides:
                dimensions[dimension]["panel"] = changed_panel(first, overrides["panel"])
        panel = changed_panel(self, self.panel)
        return self.model_copy(update={**change(self), "dimensions": dimensions, "panel": panel})

    def with_overrides(self, overrides: Mapping[str, Any], *, section: str) -> "JudgeConfig":
        """Return this judge with other settings, alone in all dimensions; `section` names them in ConfigErrors.

        If the overrides name another server (`kind`, `base_url`), SERVER_SETTINGS of this one are not inherited.
        """
        several = ("dimensions", "panel")
        values = {name: getattr(self, name) for name in JudgeConfig.model_fields if name not in several}
        # An API key or a model name of one server must never be sent to another one.
        if any(name in overrides and overrides[name] != values[name] for name in ("kind", "base_url")):
            values = {name: value for name, value in values.items() if name not in SERVER_SETTINGS}
        if overrides.get("kind") == "offline":
            values.pop("reply_format")  # it replies in text only
        judge = JudgeConfig.parse(values | dict(overrides), source=section)
        if judge.kind == "offline" and ("model" in overrides or "base_url" in overrides):
            raise ConfigError(f"{section} names a model or an address, but its kind is offline; set its kind too")
        return judge

    @field_validator("model")
    @classmethod
    def _require_model(cls, value: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("kind", "offline")
        if kind != "offline" and not value:
            raise ValueError(f"must name the model to ask where judge.kind is {kind}")
        return value

    @field_validator("api_key_env")
    @classmethod
    def _require_key_variable(cls, value: str | None, info: ValidationInfo) -> str | None:
        provider = PROVIDERS[info.data.get("kind", "offline")]
        if value is None and provider.needs_key and not provider.trusts(info.data.get("base_url")):
            raise ValueError(
                f"{provider.key_env} is sent to {', '.join(provider.hosts or ())} only, and judge.base_url is "
                "elsewhere; name here the variable of the key for that address"
            )
        return value

    @field_validator("first_temperature", "retry_temperature")
    @classmethod
    def _validate_temperature(cls, value: float, info: ValidationInfo) -> float:
        kind: Kind = info.data.get("kind", "offline")
        if value > PROVIDERS[kind].max_temperature:
            raise ValueError(f"{kind} takes temperatures up to {PROVIDERS[kind].max_temperature:g}")
        return value

    @field_validator("reply_format")
    @classmethod
    def _validate_reply_format(cls, value: ReplyFormatSetting, info: ValidationInfo) -> ReplyFormatSetting:
        if value == "json_schema" and info.data.get("kind", "offline") == "offline":
            raise ValueError("the offline judge replies in text only; set judge.reply_format to text or auto")
        return value

    @field_validator("mode")
    @classmethod
    def _validate_mode(cls, value: Mode, info: ValidationInfo) -> Mode:
        kind: Kind = info.data.get("kind", "offline")
        if value not in PROVIDERS[kind].modes:
            kinds = ", ".join(name for name, provider in PROVIDERS.items() if value in provider.modes)
            modes = " or ".join(PROVIDERS[kind].modes)
            feature = "batch interface" if value == "batch" else "request files of OpenAI's form"
            raise ValueError(f"{kind} has no {feature}; {kinds} have it. Set judge.mode to {modes}")
        return value

    @model_validator(mode="after")
    def _validate_dimensions(self) -> Self:
        if self.dimensions or self.panel:
            for dimension in DIMENSIONS:
                self.panel_for(dimension)
        return self
