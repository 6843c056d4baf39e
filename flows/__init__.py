"""The order of things: one flow a stage, and `longreward.flows.pipeline`, which users trigger."""

import longreward.tasks as _tasks  # noqa: F401  # settles the surroundings before Prefect reads them
