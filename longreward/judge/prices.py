"""What a judge's tokens cost: the section `prices` of params.yaml.

    prices:
      currency: USD
      models:
        gpt-4o-2024-05-13: {prompt: 5.0, cached_prompt: 2.5, completion: 15.0}

No stage depends on it, so that a price can be put right without any stage being run again.
"""

from pydantic import Field

from longreward.config import Config


class Price(Config):
    """What a million tokens of one model cost."""

    prompt: float = Field(ge=0, allow_inf_nan=False)
    """For a million prompt tokens."""

    cached_prompt: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """For a million prompt tokens that the provider took from its cache; None: as any other."""

    completion: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """For a million tokens of answers, thoughts among them."""

    batch_share: float = Field(default=0.5, ge=0, le=1)
    """What a call in the provider's batch interface costs, as a share of the price of a live one."""

    def cost(self, prompt: float, completion: float, *, cached: float = 0, batch: bool = False) -> float:
        """What so many tokens cost; `cached` are among those of the prompt."""
        of_cached = self.prompt if self.cached_prompt is None else self.cached_prompt
        full = ((prompt - cached) * self.prompt + cached * of_cached + completion * self.completion) / MILLION
        return full * (self.batch_share if batch else 1)

    def most(self, prompt: float, completion: float, *, batch: bool = False) -> float:
        """The most that so many tokens may cost, however many of them prove to be cached."""
        dearer = max(self.prompt, self.cached_prompt or 0)
        share = self.batch_share if batch else 1
        return (prompt * dearer + completion * self.completion) / MILLION * share


class PricesConfig(Config):
    """What judges cost, for `longreward plan` and for budgets in money."""

    currency: str = "USD"
    """What the prices are in; a label."""

    models: dict[str, Price] = Field(default_factory=dict)
    """For each `judge.model` what a million tokens cost, as `{"gpt-4o-2024-05-13": {"prompt": 5.0, "cached_prompt":
    2.5, "completion": 15.0}}` (`batch_share`, 0.5, is what a call in batch mode costs of that). A model without a price
    costs an unknown amount; the offline judge costs nothing."""

    def of(self, model: str | None, *, offline: bool = False) -> Price | None:
        """The price of this model; None where it is not known."""
        return Price(prompt=0.0) if offline else self.models.get(model or "")


MILLION = 1_000_000
