from pathlib import Path

import pytest

from longreward.errors import ConfigError
from longreward.params import parameters_markdown, read_params, stage_names

ROOT = Path(__file__).parents[2]


def test_params_file_of_repository_is_valid() -> None:
    params = read_params(ROOT / "params.yaml")
    assert params.score.evidence_chunk_tokens < 128
    assert params.sample.n == 10


def test_defaults_are_values_of_paper() -> None:
    params = read_params(None)
    assert (params.score.evidence_chunk_tokens, params.score.evidence_chunks) == (128, 5)
    assert params.score.extraction_chunk_tokens == 4096
    assert (params.sample.n, params.sample.temperature) == (10, 1.0)
    assert (params.train.beta, params.train.learning_rate) == (0.15, 1e-6)
    assert params.pair.min_scored == 5
    assert (params.judge.first_temperature, params.judge.retry_temperature) == (0.01, 0.95)


def test_overrides_applied_and_validated() -> None:
    assert read_params(None, ["train.beta=0.3"]).train.beta == 0.3
    assert read_params(None, ["evaluate.champion.measure=recall"]).evaluate.champion.measure == "recall"
    with pytest.raises(ConfigError, match=r"did you mean train\.beta"):
        read_params(None, ["train.btea=0.3"])


def test_unknown_section_suggests_nearest(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("trian:\n  beta: 1\n")
    with pytest.raises(ConfigError, match="trian: unknown key; did you mean train"):
        read_params(tmp_path / "params.yaml")


def test_missing_file_outside_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^params\.yaml cannot be read: .*; run this in the project's folder$"):
        read_params()
    with pytest.raises(ConfigError, match=r"other\.yaml cannot be read: No such file or directory$"):
        read_params(Path("other.yaml"))


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "is not YAML"), ("just words", "no sections"), ("", "no sections")]
)
def test_file_without_sections_rejected(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_params(tmp_path / "params.yaml")


def test_stage_order_and_parameters_page() -> None:
    assert stage_names() == (
        "synthesize",
        "prepare",
        "sft",
        "sample",
        "score",
        "pair",
        "train",
        "evaluate",
        "benchmark",
    )
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert page == parameters_markdown(), "run `python -m longreward.params > docs/parameters.md`"


def test_pair_method_by_scores_requires_scores() -> None:
    with pytest.raises(ConfigError, match=r"score\.strategy is none, and pair\.method is longreward"):
        read_params(None, ["score.strategy=none"])
    assert read_params(None, ["score.strategy=none", "pair.method=random"]).score.strategy == "none"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sample.n=3"], r"sample\.n \(3\) is less than pair\.min_scored \(5\): no prompt could give a pair"),
        (["pair.responses=3"], r"pair\.responses \(3\) is less than pair\.min_scored \(5\)"),
        (["policy.window=1024"], r"sample\.max_new_tokens \(1,024\) leaves no room for a prompt in policy\.window"),
        (
            ["policy.window=4096", "train.max_length=5000"],
            r"train\.max_length \(5,000\) is more than policy\.window \(4,096\)",
        ),
        (["policy.window=4096", "sft.max_length=5000"], r"sft\.max_length \(5,000\) is more"),
        (["score.strategy=adaptive", "pair.selection=best_second"], r"set it to full, or remove pair\.selection$"),
        (
            ["score.strategy=adaptive", "pair.responses=6", "pair.weights.logicality=0"],
            r"adaptive, .* set it to full, or remove pair\.responses, pair\.weights$",
        ),
    ],
)
def test_contradictory_settings(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_params(None, ["policy.base_model=models/base", *overrides])


@pytest.mark.parametrize(
    "overrides",
    [
        ["sample.n=3", "pair.min_scored=3"],
        ["sample.n=1", "pair.method=contrast"],
        ["sample.n=1", "prepare.responses=data/raw/sampled.jsonl"],
        ["policy.window=4096", "policy.sft_model=models/mine", "sft.max_length=5000"],
        [
            "score.strategy=adaptive",
            "pair.responses=10",
            "pair.weights={helpfulness: 2, logicality: 2, faithfulness: 2, completeness: 2}",
        ],
        ["score.strategy=adaptive", "pair.method=srm", "pair.selection=best_second"],
    ],
)
def test_settings_that_do_not_contradict(overrides: list[str]) -> None:
    read_params(None, ["policy.base_model=models/base", *overrides])
