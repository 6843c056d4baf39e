"""Create a Prefect automation that runs the benchmarks whenever a model becomes the champion.

Start `longreward serve`, then, in the project's folder,

    export PREFECT_API_URL=http://127.0.0.1:4200/api
    export PREFECT_API_AUTH_STRING="$(cat .longreward/prefect/auth-string)"
    python champion_automation.py

An evaluation emits the event `longreward.champion.changed` when it moves the alias `champion` of the registered model.
Replace the action to call a webhook or send a message instead: https://docs.prefect.io/v3/concepts/automations
"""

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import EventTrigger, Posture

NAME = "Benchmark each new champion"


def create_automation() -> None:
    """Create the automation on the server that PREFECT_API_URL names, or update the one of the same name."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("pipeline/benchmark")
        for earlier in client.read_automations_by_name(NAME):
            client.delete_automation(earlier.id)
    Automation(
        name=NAME,
        description="Runs the stage benchmark after the event longreward.champion.changed",
        trigger=EventTrigger(
            expect={"longreward.champion.changed"},
            match={"prefect.resource.id": "longreward.model.*"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            RunDeployment(
                deployment_id=deployment.id,
                parameters={
                    "name": {
                        "__prefect_kind": "jinja",
                        "template": "benchmark-champion-{{ event.payload.version }}",
                    }
                },
            )
        ],
    ).create()


if __name__ == "__main__":
    create_automation()
    print(f"created: {NAME}")
