import json
from pathlib import Path

import pytest

from longreward.checks import check_ready
from longreward.errors import ConfigError
from longreward.params import read_params, stage_names

KEYS = ("OPENAI_API_KEY", "ZHIPUAI_API_KEY", "POLICY_KEY", "EMBEDDING_KEY")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch) -> Path:
    """A folder with data and a model's folder, and an environment without keys."""
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "mine.jsonl").touch()
    (tmp_path / "models" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find_problems(*overrides: str, stages: tuple[str, ...] = stage_names()) -> list[str]:
    """Return the lines of the error; empty if the project is ready."""
    params = read_params(None, ["policy.base_model=models/base", "prepare.source=data/raw/mine.jsonl", *overrides])
    try:
        check_ready(params, stages)
    except ConfigError as error:
        return str(error).splitlines()[1:]
    return []


def test_complete_project_is_ready() -> None:
    assert find_problems() == []


def test_all_problems_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        check_ready(read_params(None, ["prepare.source=data/raw/x.jsonl", "evaluate.gold=gold.jsonl"]), stage_names())
    first_line, *lines = str(caught.value).splitlines()
    assert first_line == "not ready to run synthesize, prepare, sft, sample, score, pair, train, evaluate, benchmark:"
    assert [line.split(":")[0].strip() for line in lines] == ["prepare.source", "policy.base_model", "evaluate.gold"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prepare.source=hub:org/name"], "set prepare.hub.revision"),
        (["policy.base_model=models/absent"], "policy.base_model: models/absent: no such folder"),
        (["policy.sft_model=models/absent"], "policy.sft_model: models/absent: no such folder"),
        (["prepare.preference_share=0.9"], "leave no document to sft"),
        (["policy.chat_template=own.jinja"], "policy.chat_template: own.jinja cannot be read"),
        (["policy.device=cpu", "policy.device_map=auto"], "leave device at auto"),
        (["policy.attention=flash_attention_2", "policy.dtype=float32"], "16-bit numbers"),
        (["policy.dtype=float16", "sft.lora={}"], "train.learning_rate vanish"),
        (["train.launcher=accelerate", "train.launcher_config=own.yaml"], "train: launcher_config: own.yaml cannot"),
        (["sft.launcher=accelerate", "policy.device_map=auto"], "sft: policy.device_map (auto) puts one model"),
        (["score.prompts_dir=prompts"], "prompts"),
        (["score.tokenizer=./tokenizer.json"], "score.tokenizer: there is no tokenizer.json at ./tokenizer.json"),
        (["evaluate.champion.temperature=0.7"], "(0.7) is none of evaluate.temperatures (1, 0.5, 0)"),
        (["evaluate.champion.measure=recall"], "is recall, which needs evaluate.gold"),
        (["evaluate.champion.measure=short", "evaluate.champion.temperature=0"], "needs evaluate.short.source"),
        (["evaluate.champion.measure=short", "evaluate.short.source=builtin"], "a temperature of 0"),
        (["evaluate.gold=data/raw/gold.jsonl"], "there is no file data/raw/gold.jsonl"),
        (["benchmark.files=files", "benchmark.run=[mt_bench]"], "mt_bench: 3 missing files"),
        (["benchmark.judge={kind: openai, model: m}"], "OPENAI_API_KEY"),
    ],
)
def test_each_check_names_setting(overrides: list[str], message: str) -> None:
    line, *more = find_problems(*overrides)
    assert message in line
    assert all(continuation.startswith("   ") for continuation in more)  # of the same problem


ZHIPU = ("judge.kind=zhipu", "judge.model=glm-4-0520")
EMBEDDINGS = tuple(
    f"score.retriever.{setting}"
    for setting in ("kind=http", "model=e", "base_url=http://localhost:1/v1", "api_key_env=EMBEDDING_KEY")
)
SERVED = (
    "server.kind=external",
    "server.base_url=http://localhost:1/v1",
    "server.api_key_env=POLICY_KEY",
)


@pytest.mark.parametrize(
    ("overrides", "key", "stages"),
    [
        (ZHIPU, "ZHIPUAI_API_KEY", {"score", "evaluate", "benchmark"}),
        (EMBEDDINGS, "EMBEDDING_KEY", {"score", "evaluate"}),
        (SERVED, "POLICY_KEY", {"sample", "evaluate", "benchmark"}),
    ],
)
def test_keys_required_by_stages_only(overrides, key, stages, monkeypatch) -> None:
    problems = {stage: find_problems(*overrides, stages=(stage,)) for stage in stage_names()}
    assert {stage for stage, lines in problems.items() if lines} == stages
    assert all(key in line for lines in problems.values() for line in lines)
    monkeypatch.setenv(key, "sk-secret")
    assert find_problems(*overrides) == []


def test_stale_model_pointer_is_problem_unless_sft_runs(project) -> None:
    model = project / "mine"
    model.mkdir()
    (project / "models" / "sft").mkdir()
    target = {"model": str(model), "revision": None, "fingerprint": "of other files"}
    (project / "models" / "sft" / "model.json").write_text(json.dumps(target))
    [line] = find_problems(stages=("train", "evaluate"))
    assert "has changed since; run `dvc repro --force sft`" in line
    assert find_problems() == []
    assert find_problems(stages=("score",)) == []


def test_fine_tuned_model_needs_no_sft_settings(project) -> None:
    (project / "models" / "mine").mkdir()
    overrides = ["policy.base_model=absent/absent/absent", "policy.sft_model=models/mine", "policy.window=4096"]
    assert find_problems(*overrides, "sft.max_length=9000", "prepare.preference_share=0.9") == []
