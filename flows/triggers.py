"""One flow for each stage, which the deployments name: the pipeline with that stage alone."""

from longreward.flows.pipeline import create_flow

synthesize = create_flow("synthesize", module=__name__)
prepare = create_flow("prepare", module=__name__)
sft = create_flow("sft", module=__name__)
sample = create_flow("sample", module=__name__)
score = create_flow("score", module=__name__)
pair = create_flow("pair", module=__name__)
train = create_flow("train", module=__name__)
evaluate = create_flow("evaluate", module=__name__)
benchmark = create_flow("benchmark", module=__name__)
