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


def problems_of(*overrides: str, stages: tuple[str, ...] = stage_names()) -> list[str]:
    """The lines of the error; none where the project is ready."""
    params = read_params(None, ["policy.base_model=models/base", "prepare.source=data/raw/mine.jsonl", *overrides])
    try:
        check_ready(params, stages)
    except ConfigError as error:
        return str(error).splitlines()[1:]
    return []


def test_a_project_with_its_data_and_model_is_ready() -> None:
    assert problems_of() == []


def test_everything_that_is_missing_is_told_at_once_a_line_each() -> None:
    with pytest.raises(ConfigError) as caught:
        check_ready(read_params(None, ["prepare.source=data/raw/x.jsonl", "evaluate.gold=gold.jsonl"]), stage_names())
    told, *lines = str(caught.value).splitlines()
    assert told == "not ready to run synthesize, prepare, sft, sample, score, pair, train, evaluate, benchmark:"
    assert [line.split(":")[0].strip() for line in lines] == ["prepare.source", "policy.base_model", "evaluate.gold"]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["prepare.source=hub:org/name"], "set prepare.hub.revision"),
        (["policy.base_model=models/absent"], "policy.base_model: models/absent: no such folder"),
        (["policy.sft_model=models/absent"], "policy.sft_model: models/absent: no such folder"),
        (["prepare.preference_share=0.9"], "leave no document to sft"),
        (["policy.chat_template=own.jinja"], "policy.chat_template: own.jinja cannot be read"),
        (["policy.device=cpu", "policy.device_map=auto"], "leave device at auto"),
        (["policy.attention=flash_attention_2", "policy.dtype=float32"], "16-bit numbers"),
        (
            ["policy.window=4096", "train.max_length=5000"],
            "train.max_length (5,000) is more than policy.window (4,096)",
        ),
        (["policy.window=1024"], "sample.max_new_tokens (1,024) leaves no room"),
        (["policy.dtype=float16", "sft.lora={}"], "updates as small as train.learning_rate vanish"),
        (["train.launcher=accelerate", "train.launcher_config=own.yaml"], "train: launcher_config: own.yaml cannot"),
        (["sft.launcher=accelerate", "policy.device_map=auto"], "sft: policy.device_map (auto) puts one model"),
        (["score.prompts_dir=prompts"], "prompts"),
        (["score.tokenizer=./tokenizer.json"], "score.tokenizer: there is no ./tokenizer.json"),
        (["sample.n=4"], "sample.n (4) is less than pair.min_scored (5)"),
        (["evaluate.champion.temperature=0.7"], "(0.7) is none of evaluate.temperatures (1, 0.5, 0)"),
        (["evaluate.champion.measure=recall"], "is recall, which needs evaluate.gold"),
        (["evaluate.champion.measure=short", "evaluate.champion.temperature=0"], "needs evaluate.short.source"),
        (["evaluate.champion.measure=short", "evaluate.short.source=builtin"], "a temperature of 0"),
        (["evaluate.gold=data/raw/gold.jsonl"], "there is no file data/raw/gold.jsonl"),
        (["benchmark.files=files", "benchmark.run=[mt_bench]"], "mt_bench lacks 3 file(s)"),
        (["benchmark.judge={kind: openai, model: m}"], "OPENAI_API_KEY"),
    ],
)
def test_what_would_fail_hours_later_is_told_first(overrides: list[str], told: str) -> None:
    line, *more = problems_of(*overrides)
    assert told in line
    assert all(each.startswith("   ") for each in more)  # of the same problem


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
    ("overrides", "key", "needed_by"),
    [
        (ZHIPU, "ZHIPUAI_API_KEY", {"score", "evaluate", "benchmark"}),
        (EMBEDDINGS, "EMBEDDING_KEY", {"score", "evaluate"}),
        (SERVED, "POLICY_KEY", {"sample", "evaluate", "benchmark"}),
    ],
)
def test_a_key_is_missed_by_the_stages_that_need_it_alone(overrides, key, needed_by, monkeypatch) -> None:
    missed = {stage: problems_of(*overrides, stages=(stage,)) for stage in stage_names()}
    assert {stage for stage, lines in missed.items() if lines} == needed_by
    assert all(key in line for lines in missed.values() for line in lines)
    monkeypatch.setenv(key, "sk-secret")
    assert problems_of(*overrides) == []


def test_a_model_that_changed_behind_its_pointer_is_told_unless_sft_runs_again(project) -> None:
    model = project / "mine"
    model.mkdir()
    (project / "models" / "sft").mkdir()
    target = {"model": str(model), "revision": None, "fingerprint": "of other files"}
    (project / "models" / "sft" / "model.json").write_text(json.dumps(target))
    [line] = problems_of(stages=("train", "evaluate"))
    assert "has changed since; run `dvc repro --force sft`" in line
    assert problems_of() == []
    assert problems_of(stages=("score",)) == []


def test_a_fine_tuned_model_needs_no_base_and_no_settings_of_sft(project) -> None:
    (project / "models" / "mine").mkdir()
    overrides = ["policy.base_model=absent/absent/absent", "policy.sft_model=models/mine", "policy.window=4096"]
    assert problems_of(*overrides, "sft.max_length=9000", "prepare.preference_share=0.9") == []
