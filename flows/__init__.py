"""The order of things: one flow a stage, and `flows.pipeline`, which users trigger."""

import tasks as _tasks  # noqa: F401  # settles the surroundings before Prefect reads them
