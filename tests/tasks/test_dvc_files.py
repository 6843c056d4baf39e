"""What the files of DVC say about stages."""

from pathlib import Path

from longreward.params import Params, read_params
from longreward.tasks.dvc_files import outdated_stages

GRAPH = """
stages:
  synthesize: {cmd: a, params: [judge], deps: [data/raw], outs: [data/synthesized]}
  prepare: {cmd: b, params: [policy, prepare], deps: [data/raw, data/synthesized], outs: [data/prepared]}
  sft: {cmd: c, params: [policy, sft], deps: [data/prepared/sft.jsonl], outs: [models/sft]}
  sample: {cmd: d, params: [policy, sample], deps: [data/prepared, models/sft], outs: [data/sampled]}
"""
LOCK = """
schema: '2.0'
stages:
  synthesize:
    cmd: a
    params:
      params.yaml:
        judge: {kind: offline}
  prepare:
    cmd: b
    params:
      params.yaml:
        policy: {base_model: m}
        prepare: {preference_share: 0.5}
  sample:
    cmd: d
    params:
      params.yaml:
        policy: {base_model: m}
        sample: {n: 8}
"""
STAGES = ("prepare", "sft", "sample")


def settings(*overrides: str) -> Params:
    return read_params(None, ["policy.base_model=m", "prepare.preference_share=0.5", "sample.n=8", *overrides])


def test_outdated_stages(workspace: Path) -> None:
    Path("dvc.yaml").write_text(GRAPH)
    assert outdated_stages(settings(), STAGES) == set()  # no stage has run
    Path("dvc.lock").write_text(LOCK)
    assert outdated_stages(settings(), STAGES) == set()
    assert outdated_stages(settings("prepare.heldout_share=0.1"), STAGES) == set()  # the default, which the lock lacks
    assert outdated_stages(settings("judge.max_retries=1"), STAGES) == set()
    assert outdated_stages(settings("judge.max_retries=1"), ["synthesize"]) == {"synthesize"}
    assert outdated_stages(settings("sample.n=9"), STAGES) == {"sample"}
    assert outdated_stages(settings("prepare.seed=1"), STAGES) == {"prepare", "sft", "sample"}
    Path("dvc.lock").write_text(LOCK.replace("preference_share", "a_former_name"))
    assert outdated_stages(settings(), STAGES) == {"prepare", "sft", "sample"}
