"""The event by which Prefect automations notice a new champion; examples/champion_automation.py has one."""

from prefect.events import emit_event

EVENT = "longreward.champion.changed"
RESOURCE = "longreward.model"


def emit_champion_changed(model: str, version: str, *, evaluation: str, previous: str | None) -> None:
    """Emit the event; Prefect sends it in the background.

    Args:
        model: the registered model whose alias `champion` has moved.
        version: the version that it names now.
        evaluation: the MLflow run of its evaluation.
        previous: that of the version before; None for the first champion.
    """
    emit_event(
        EVENT,
        resource={
            "prefect.resource.id": f"{RESOURCE}.{model}",
            "prefect.resource.name": model,
            "longreward.version": version,
        },
        payload={"version": version, "evaluation": evaluation, "previous_evaluation": previous},
    )
