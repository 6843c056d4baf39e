"""What is asked of a judge before it may score: the keys `judge.check` of params.yaml."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from longreward.config import Config


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
