"""Opens what asks in batches: one folder and one series of rounds for each model on each server."""

from pathlib import Path

from longreward.errors import ConfigError
from longreward.judge.batch.api import BatchServer
from longreward.judge.batch.client import BatchAsker, BatchJudge
from longreward.judge.batch.config import BatchConfig
from longreward.judge.batch.folder import BatchFolder
from longreward.judge.batch.runner import BatchRunner
from longreward.judge.batch.scheduler import BatchScheduler
from longreward.judge.budget import Account
from longreward.judge.config import JudgeConfig
from longreward.judge.ledger import Ledger


class Batches:
    """The rounds of one process; `path` is that of the ledger, beside which their files lie."""

    def __init__(self, ledger: Ledger, path: Path | None) -> None:
        if path is None:
            raise ConfigError(
                "judge.mode batch needs a ledger, since its answers come hours later: name a file for it, or set "
                "judge.mode to live"
            )
        self._ledger = ledger
        self._path = path
        self._rounds: dict[tuple[str, str, str], BatchScheduler] = {}

    def asker(self, config: JudgeConfig, account: Account) -> BatchAsker:
        """One that asks as `config` says. Raises ConfigError where a key is missing, StateError for the disk."""
        judge = BatchJudge(config)
        server = (str(judge.client.base_url), judge.name, config.mode)
        if server not in self._rounds:
            folder = BatchFolder(self._path, address=server[0], model=judge.name)
            courier = None
            if config.mode == "batch":
                sent_to = BatchServer(judge, endpoint=config.endpoint, max_retries=config.max_retries)
                courier = BatchRunner(folder, sent_to, config.batch)
            self._rounds[server] = BatchScheduler(folder, courier, _limited(config))
        return BatchAsker(judge, config, self._ledger, self._rounds[server], account)


def _limited(config: JudgeConfig) -> BatchConfig:
    """The settings, with the provider's own limit of a file where none is set."""
    if config.batch.megabytes_per_file is not None or config.kind != "zhipu":
        return config.batch
    return config.batch.model_copy(update={"megabytes_per_file": ZHIPU_MB})


ZHIPU_MB = 100.0  # a file, by its documentation
