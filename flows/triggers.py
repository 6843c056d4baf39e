"""One deployment a stage: the pipeline with that stage alone, and a form of its settings alone."""

from longreward.flows.pipeline import trigger

synthesize = trigger("synthesize", module=__name__)
prepare = trigger("prepare", module=__name__)
sft = trigger("sft", module=__name__)
sample = trigger("sample", module=__name__)
score = trigger("score", module=__name__)
pair = trigger("pair", module=__name__)
train = trigger("train", module=__name__)
evaluate = trigger("evaluate", module=__name__)
benchmark = trigger("benchmark", module=__name__)
