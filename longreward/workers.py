"""Whether shards go to other processes and machines: the section `workers` of `params.yaml`."""

import re
from importlib.util import find_spec
from typing import Literal

from pydantic import Field, field_validator

from longreward.config import Config
from longreward.errors import ConfigError


class WorkersConfig(Config):
    """Who does the shards of `sample` and `score`: the stage's own process, or workers. It changes no record."""

    kind: Literal["none", "dask"] = "none"
    """`none`: the stage's own process; `dask`: workers of a Dask cluster, which needs the extra `longreward[dask]`."""

    address: str | None = None
    """The scheduler of a cluster of yours, as `tcp://10.0.0.2:8786` (or `tls://…`); None: `count` workers on this
    machine, which end with the stage."""

    count: int = Field(default=2, ge=1, le=256)
    """Without an `address`: how many workers are started here, each a process that does one shard at a time."""

    start_limit_s: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    """Seconds for the first worker to come; the stage stops where none does."""

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"(tcp|tls)://[^\s/@?]+:\d{1,5}", value):
            raise ValueError("must be a scheduler's address like tcp://10.0.0.2:8786")
        return value


def check_installed(config: WorkersConfig) -> None:
    """Raises ConfigError where `kind` needs packages that are not there."""
    missing = [name for name in PACKAGES if config.kind == "dask" and find_spec(name.replace("-", "_")) is None]
    if missing:
        raise ConfigError(
            f"workers.kind is dask, and {' and '.join(missing)} cannot be imported: `pip install 'longreward[dask]'`, "
            "here and wherever workers run, or set workers.kind to none"
        )


PACKAGES = ("prefect-dask", "distributed")
