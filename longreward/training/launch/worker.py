"""What each process of a training on several runs: the same training, of which it is one part.

accelerate launch … -m longreward.training.launch.worker <folder of the job>
"""

import logging
import os
import sys
import threading
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from longreward.errors import LongRewardError
from longreward.training.dpo import TrainConfig, train_dpo
from longreward.training.launch.job import Job, append_metrics, write_error, write_report
from longreward.training.report import Log, TrainingReport
from longreward.training.sft import SftConfig, train_sft

LOOK_EVERY_S = 0.5
PATIENCE = timedelta(hours=6)  # while the first process writes a large model; one that dies is noticed at once


def main(folder: Path) -> None:
    """Ends the process with 1 after an error of ours, which is left in the folder; others show their traceback."""
    job = Job.read(folder)
    _end_with(job.starter, os.getppid())
    import torch
    from accelerate import PartialState

    # First of all, so that weights go to the GPU that is this process's own.
    process = PartialState(cpu=job.policy.device == "cpu" or not torch.cuda.is_available(), timeout=PATIENCE)
    log = partial(append_metrics, folder) if process.is_main_process else None
    if process.is_main_process:  # no handler comes with the launcher, and its starter shows what this prints
        logging.basicConfig(format="%(message)s")
        logging.getLogger("longreward").setLevel(logging.INFO)
    try:
        report = _train(job, log)
    except LongRewardError as error:
        write_error(folder, process.process_index, error)
        sys.exit(1)
    if process.is_main_process:
        write_report(folder, report)
    process.wait_for_everyone()
    process.destroy_process_group()


def _train(job: Job, log: Log | None) -> TrainingReport:
    here: dict[str, Any] = {"out": job.out, "state": job.state, "log": log}
    alone = {"launcher": "none"}  # with the number of processes kept: this one does its part
    if job.stage == "sft":
        sft = SftConfig.model_validate(job.settings).model_copy(update=alone)
        return train_sft(sft, job.policy, base=job.model, data=job.data, **here)
    dpo = TrainConfig.model_validate(job.settings).model_copy(update=alone)
    return train_dpo(dpo, job.policy, sft_model=job.model, pairs=job.data, **here)


def _end_with(*others: int) -> None:
    """Ends this process, however the starter or the launcher came to their end; both look after it while they can."""
    alive = [psutil.Process(pid) for pid in others]

    def look() -> None:
        while all(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in alive):
            time.sleep(LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
