"""The SFT model's log-probabilities of both answers of each pair: computed once, kept with the training's checkpoints.

    reference.json      {"ref_chosen_logps": [-12.5, …], "ref_rejected_logps": […]}, in the order of the rows

TRL would keep them in a file of the datasets library, which for data in memory does not outlive the process.
"""

import json
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from torch.utils.data import DataLoader

from longreward.errors import StateError
from longreward.utils.progress import show_progress

COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")


def with_reference(trainer: Any, model: Any, rows: Dataset, *, kept: Path, batch_size: int, untrained: bool) -> Dataset:
    """`rows` with COLUMNS, from the file `kept` where it is there, else from `model`, which is not yet trained.

    All processes call it together: each passes its share of the rows through `model`. StateError where there is no
    file and the model is that of a checkpoint (not `untrained`).
    """
    process = trainer.accelerator
    read = json.loads(kept.read_text(encoding="utf-8")) if process.is_main_process and kept.is_file() else None
    [found] = broadcast_object_list([read])
    if found is None:
        if not untrained:
            raise StateError(f"{kept} is missing beside its checkpoints; delete the folder {kept.parent} to start anew")
        found = _computed(trainer, model, rows, batch_size)
        if process.is_main_process:
            _keep(kept, found)
        process.wait_for_everyone()
    for column in COLUMNS:
        rows = rows.add_column(column, found[column])
    return rows


def _computed(trainer: Any, model: Any, rows: Dataset, batch_size: int) -> dict[str, list[float]]:
    process = trainer.accelerator
    by_length = sorted(range(len(rows)), key=rows["length"].__getitem__)
    # A model in parts answers only when all processes ask, so that all must have as many batches.
    evened = by_length + by_length[:1] * (-len(by_length) % process.num_processes)
    own = evened[process.process_index :: process.num_processes]
    loader = DataLoader(rows.select(own), batch_size=batch_size, collate_fn=trainer.data_collator)
    batches = []
    with show_progress("train, batches of the reference", enabled=process.is_main_process) as update:
        for batch in loader:
            batches.append(trainer.compute_ref_log_probs(model, trainer._prepare_inputs(batch)))
            update(len(batches), len(loader))
    chosen, rejected = ([value for batch in batches for value in batch[side].tolist()] for side in (0, 1))
    at = {row: values for row, *values in gather_object(list(zip(own, chosen, rejected, strict=True)))}
    return {column: [at[row][side] for row in range(len(rows))] for side, column in enumerate(COLUMNS)}


def _keep(path: Path, found: dict[str, list[float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found), encoding="utf-8")
    part.replace(path)
