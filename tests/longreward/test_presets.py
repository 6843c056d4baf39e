from pathlib import Path

import pytest
import yaml

from longreward.checks import check_ready
from longreward.errors import ConfigError
from longreward.flows.cli.main import main
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_tokenizer
from longreward.params import Params, preset_names, preset_path, read_params, stage_names

ROOT = Path(__file__).parents[2]


def test_preset_path_by_name() -> None:
    assert "laptop" in preset_names()
    assert preset_path("laptop").name == "laptop.yaml"


def test_unknown_preset_suggests_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown preset 'lapto'; did you mean laptop\? The presets are .*laptop"):
        preset_path("lapto")


def test_score_command_with_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "doc.txt").write_text("The bridge was built in 1912.")
    one = ["--context", str(tmp_path / "doc.txt"), "--query", "When?", "--response", "In 1912."]
    ledger = ["--ledger", str(tmp_path / "ledger.sqlite")]
    assert main(["score", "--preset", "laptop", *one, *ledger]) == 0
    assert "judge: offline" in capsys.readouterr().out
    assert main(["score", "--preset", "laptp", *one, *ledger]) == 1
    assert "did you mean laptop?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../params", "/etc/passwd", ""])
def test_preset_cannot_be_path(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown preset"):
        preset_path(name)


@pytest.mark.parametrize("name", preset_names())
def test_preset_is_valid_and_has_every_section(name: str) -> None:
    read_params(preset_path(name))
    assert list(yaml.safe_load(preset_path(name).read_text(encoding="utf-8"))) == list(Params.model_fields)


@pytest.mark.parametrize("name", preset_names())
def test_preset_is_ready_if_keys_are_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ZHIPUAI_API_KEY", "for-the-test")
    params = read_params(preset_path(name))
    absent = set() if Path("data/raw/builtin").is_dir() else {"prepare", "evaluate"}  # the corpus is generated
    absent |= {"benchmark"} if params.benchmark.files else set()  # which are fetched
    check_ready(params, [stage for stage in stage_names() if stage not in absent])


@pytest.mark.parametrize("name", ["paper-llama3.1-8b", "paper-glm4-9b"])
def test_paper_presets_have_values_of_paper(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params = read_params(preset_path(name))
    assert (params.sft.learning_rate, params.train.learning_rate) == (1e-5, 1e-6)
    assert (params.train.beta, params.train.ce_weight, params.train.micro_batch) == (0.15, 0.1, 1)
    assert (params.sample.n, params.sample.temperature, params.policy.window) == (10, 1.0, 64 * 1024)
    assert (params.judge.model, params.judge.first_temperature, params.judge.max_attempts) == ("glm-4-0520", 0.01, 5)
    assert (params.score.evidence_chunk_tokens, params.score.evidence_chunks) == (128, 5)
    assert (params.score.extraction_chunk_tokens, params.score.retriever.model) == (4096, "embedding-2")
    monkeypatch.delenv("ZHIPUAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="ZHIPUAI_API_KEY"):
        check_ready(params, ["score"])


def test_chat_template_of_base_model_ends_turns_with_end_token(tiny_policy: Path) -> None:
    template = read_params(preset_path("paper-llama3.1-8b")).policy.chat_template
    encoder = load_tokenizer(PolicyConfig(base_model="x", chat_template=template), tiny_policy)
    assert encoder.prompt_text("the town", "who ?") == (
        "<s><|start_header_id|>user<|end_header_id|>\n\nthe town\n\nwho ?</s>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert encoder.completion_ids("anna .") == [21, 35, 3]


def test_laptop_preset_equals_params_file_of_repository() -> None:
    own, preset = (yaml.safe_load(path.read_text()) for path in (ROOT / "params.yaml", preset_path("laptop")))
    assert own == preset
