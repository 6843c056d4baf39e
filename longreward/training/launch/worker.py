"""The main module of each process of a launched training; runs the same training as its part.

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
from longreward.training.launch.job import Job, append_metrics, write_error, write_progress, write_report
from longreward.training.sft import SftConfig, train_sft
from longreward.utils.progress import observe_progress

POLL_INTERVAL_S = 0.5
TIMEOUT = timedelta(hours=6)  # for the first process to write a large model; a process that dies is noticed at once


def main(folder: Path) -> None:
    """Run the job. An error of ours is written to the folder and ends the process with 1; others raise."""
    job = Job.model_validate_json((folder / "job.json").read_text(encoding="utf-8"))
    _exit_with(job.launcher_pid, os.getppid())
    import torch
    from accelerate import PartialState

    # Before anything else, so that weights are loaded to this process's own GPU.
    process = PartialState(cpu=job.policy.device == "cpu" or not torch.cuda.is_available(), timeout=TIMEOUT)
    log = partial(append_metrics, folder) if process.is_main_process else None
    if process.is_main_process:  # accelerate configures no handler, and the launcher forwards what is printed
        logging.basicConfig(format="%(message)s")
        logging.getLogger("longreward").setLevel(logging.INFO)
    paths: dict[str, Any] = {"out": job.out, "state": job.state, "log": log}
    update = {"launcher": "none"}  # trains in this process; `processes` stays, as it determines the accumulation
    try:
        with observe_progress(partial(write_progress, folder)):  # only the first process has any
            if job.stage == "sft":
                sft = SftConfig.model_validate(job.settings).model_copy(update=update)
                report = train_sft(sft, job.policy, base=job.model, data=job.data, **paths)
            else:
                dpo = TrainConfig.model_validate(job.settings).model_copy(update=update)
                report = train_dpo(dpo, job.policy, sft_model=job.model, pairs=job.data, **paths)
    except LongRewardError as error:
        write_error(folder, error)
        sys.exit(1)
    if process.is_main_process:
        write_report(folder, report)
    process.wait_for_everyone()
    process.destroy_process_group()


def _exit_with(*pids: int) -> None:
    """End this process when one of these ends, even if it was killed and could not terminate its children."""
    processes = [psutil.Process(pid) for pid in pids]

    def watch() -> None:
        while all(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
            time.sleep(POLL_INTERVAL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
