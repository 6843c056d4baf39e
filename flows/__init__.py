"""One Prefect flow for each stage, and `longreward.flows.pipeline`, which users trigger."""

import longreward.tasks as _tasks  # noqa: F401  # sets the environment before Prefect reads it
