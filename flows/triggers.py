"""One deployment for each stage: `triggers.<stage>` is the pipeline with that stage alone, and a form of its settings.

Prefect loads a deployed flow by the name of its module and attribute.
"""

from longreward.flows.pipeline import create_flow
from longreward.params import stage_names

globals().update({name: create_flow(name, module=__name__) for name in stage_names()})
