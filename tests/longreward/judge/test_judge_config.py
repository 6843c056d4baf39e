"""The section `judge` of params.yaml: presets, keys, judges of single dimensions."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from longreward.errors import ConfigError
from longreward.judge import JudgeConfig
from longreward.judge.http_client import read_api_key
from longreward.judge.providers import PROVIDERS, Kind

PAGE = Path(__file__).parents[3] / "docs" / "judges.md"
DOCUMENTED = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(judge:.*?)```", PAGE.read_text(), re.S)]

pytestmark = pytest.mark.usefixtures("no_keys")


def config(**settings: Any) -> JudgeConfig:
    return JudgeConfig.parse(settings, source="params.yaml")


@pytest.mark.parametrize("settings", DOCUMENTED, ids=lambda settings: settings["judge"]["kind"])
def test_documented_config_is_valid(settings: dict[str, Any]) -> None:
    assert list(settings) == ["judge"]
    assert JudgeConfig.parse(settings["judge"], source="docs/judges.md").judges()


def test_every_kind_documented() -> None:
    kinds = {settings["judge"]["kind"] for settings in DOCUMENTED}
    assert kinds == set(get_args(Kind)) - {"offline"}
    assert set(PROVIDERS) == set(get_args(Kind))


@pytest.mark.parametrize(
    ("kind", "address", "variable"),
    [
        ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("zhipu", "https://open.bigmodel.cn/api/paas/v4", "ZHIPUAI_API_KEY"),
        ("anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    ],
)
def test_key_of_provider_required_and_sent_only_to_own_address(
    kind: str, address: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = JudgeConfig.parse({"kind": kind, "model": "m"}, source="p")
    assert config.address == address
    with pytest.raises(ConfigError, match=f"{variable} holds no key for judge 'm'"):
        read_api_key(config)
    monkeypatch.setenv(variable, "k-1")
    assert read_api_key(config) == "k-1"
    assert read_api_key(JudgeConfig.parse({"kind": kind, "model": "m", "base_url": address}, source="p")) == "k-1"
    for other in ("http://localhost:8000/v1", "https://" + address.split("/")[2] + ".evil.example/v1"):
        with pytest.raises(ConfigError, match=f"{variable} is sent to .* only"):
            JudgeConfig.parse({"kind": kind, "model": "m", "base_url": other}, source="p")
        named = JudgeConfig.parse({"kind": kind, "model": "m", "base_url": other, "api_key_env": "MINE"}, source="p")
        with pytest.raises(ConfigError, match="MINE holds no key"):
            read_api_key(named)


def test_temperature_above_providers_maximum_rejected() -> None:
    for kind in ("zhipu", "anthropic"):
        with pytest.raises(ConfigError, match=rf"retry_temperature: .*{kind} takes temperatures up to 1 \(is 1.2\)"):
            JudgeConfig.parse({"kind": kind, "model": "m", "retry_temperature": 1.2}, source="p")


def test_judge_of_dimension_inherits_settings() -> None:
    judge = config(kind="zhipu", model="glm-4-plus", system="Be strict.", extra_body={"top_p": 0.7}, max_concurrency=8)
    judge = judge.model_copy(update={"dimensions": {"completeness": {"model": "glm-4-long"}}})
    own = judge.judge_for("completeness")
    assert (own.kind, own.model, own.system, own.max_concurrency) == ("zhipu", "glm-4-long", "Be strict.", 8)
    assert own.extra_body == {"top_p": 0.7}
    assert judge.judge_for("logicality").model == "glm-4-plus"


def test_judge_on_another_server_inherits_no_server_settings() -> None:
    judge = config(
        kind="http",
        base_url="https://a.example/v1",
        model="a",
        api_key_env="A_KEY",
        revision="2",
        requests_per_minute=10,
        tokens_per_minute=1000,
        extra_body={"top_p": 0.7},
        length_field="max_completion_tokens",
        system="Be strict.",
        max_attempts=3,
        dimensions={
            "faithfulness": {"kind": "vllm", "model": "b"},
            "logicality": {"base_url": "https://c.example/v1", "model": "c"},
        },
    )
    for dimension, kind, address in (
        ("faithfulness", "vllm", "http://localhost:8000/v1"),
        ("logicality", "http", "https://c.example/v1"),
    ):
        own = judge.judge_for(dimension)  # type: ignore[arg-type]
        assert (own.kind, own.address, own.api_key_env, own.revision) == (kind, address, None, "")
        assert (own.requests_per_minute, own.tokens_per_minute, own.length_field) == (None, None, None)
        assert own.extra_body == {}
        assert (own.system, own.max_attempts) == ("Be strict.", 3)


def test_equal_judges_merged() -> None:
    judge = config(
        kind="vllm",
        model="a",
        dimensions={"faithfulness": {"model": "b"}, "completeness": {"model": "b"}, "logicality": {"model": "a"}},
    )
    assert [(config.model, dimensions) for config, dimensions in judge.judges()] == [
        ("a", ("helpfulness", "logicality", "rubric", "citations")),
        ("b", ("faithfulness", "completeness")),
    ]
    assert len(config().judges()) == 1


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ({"faithfulnes": {}}, "dimensions.faithfulnes"),
        (
            {"faithfulness": {"modle": "b"}},
            r"judge\.dimensions\.faithfulness: not valid\n  modle: .*did you mean model",
        ),
        ({"faithfulness": {"kind": "openai"}}, "must name the model"),
        ({"faithfulness": {"kind": "openai", "model": "b", "base_url": "http://x/v1"}}, "OPENAI_API_KEY is sent to"),
        ({"faithfulness": {"max_attempts": 0}}, "max_attempts"),
        ({"faithfulness": {"dimensions": {}}}, "dimensions: .*holds for all judges"),
        ({"faithfulness": {"model": "b"}}, "its kind is offline"),
    ],
)
def test_error_in_dimension_names_dimension(dimensions: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(dimensions=dimensions)


def test_secrets_in_wrong_place_not_shown() -> None:
    for settings in ({"api_key_env": "sk-very-secret"}, {"base_url": "https://me:sk-very-secret@host/v1"}):
        for values in (settings, {"kind": "vllm", "model": "m", "dimensions": {"logicality": settings}}):
            with pytest.raises(ConfigError) as error:
                config(**values)
            assert "very-secret" not in str(error.value)


def test_http_judge_needs_model_and_url() -> None:
    with pytest.raises(ConfigError, match=r"model: .*must name the model"):
        config(kind="http")
    with pytest.raises(ConfigError, match="http://localhost:8000/v1"):
        config(base_url="localhost:8000")


def models(judge: JudgeConfig) -> dict[str, list[str]]:
    return {
        dimension: [one.display_name for one in judge.panel_for(dimension)]  # type: ignore[arg-type]
        for dimension in ("helpfulness", "faithfulness", "completeness")
    }


def test_panel_inherits_from_the_judge_and_rates_every_dimension() -> None:
    other_server = {"kind": "vllm", "base_url": "http://localhost:8000/v1", "model": "q"}
    judge = config(
        kind="zhipu",
        model="glm-4-plus",
        requests_per_minute=60,
        timeout_s=30,
        panel=[{"model": "glm-4-air"}, other_server, {"kind": "offline"}],
        dimensions={"faithfulness": {"model": "glm-4-long"}, "completeness": {"panel": [{"model": "glm-4-flash"}]}},
    )
    assert models(judge) == {
        "helpfulness": ["glm-4-plus", "glm-4-air", "q", "offline"],
        "faithfulness": ["glm-4-long", "glm-4-air", "q", "offline"],
        "completeness": ["glm-4-plus", "glm-4-flash"],
    }
    _, same_server, elsewhere, _ = judge.panel_for("helpfulness")
    assert (same_server.kind, same_server.requests_per_minute, same_server.timeout_s) == ("zhipu", 60, 30)
    assert (elsewhere.api_key_env, elsewhere.requests_per_minute, elsewhere.timeout_s) == (None, None, 30)
    assert [(one.display_name, len(dimensions)) for one, dimensions in judge.judges()] == [
        ("glm-4-plus", 5),  # with the optional dimensions
        ("glm-4-air", 3),
        ("q", 3),
        ("offline", 3),
        ("glm-4-long", 1),
        ("glm-4-flash", 1),
    ]
    # The first judge of a panel alone gets requests for lists: glm-4-long the statements, glm-4-plus the extracts.
    by_template = judge.judges_by_template()
    assert (by_template["statements"], by_template["support"]) == ([4], [4, 1, 2, 3])
    assert (by_template["extraction"], by_template["completeness"]) == ([0], [0, 5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"panel": [{"model": "a"}]}, "helpfulness is rated by a twice"),
        ({"panel": [{"model": "b"}], "dimensions": {"completeness": {"model": "b"}}}, r"dimensions.completeness.panel"),
        ({"panel": [{"model": "b", "reducer": "median"}]}, r"judge.panel.0.reducer: judge.reducer holds for all"),
        ({"panel": [{"model": "b"}, {"modle": "c"}]}, r"judge.panel.1: not valid\s+modle: unknown key"),
        ({"panel": [{"model": "b", "panel": []}]}, r"judge.panel.0.panel: judge.panel holds for all"),
        ({"panel": [{"model": "b"}], "reducer": "majority"}, "reducer: Input should be 'mean' or 'median'"),
    ],
    ids=["same-model", "same-model-in-dimension", "reducer-of-member", "unknown-key", "nested", "unknown-reducer"],
)
def test_invalid_panel_is_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(kind="vllm", base_url="http://localhost:8000/v1", **{"model": "a", **settings})


def test_settings_of_all_judges_are_changed_with_those_of_dimensions_and_panels() -> None:
    judge = config(
        kind="vllm",
        model="a",
        max_concurrency=8,
        panel=[{"model": "b", "max_concurrency": 4}],
        dimensions={"faithfulness": {"model": "c", "panel": [{"model": "d", "max_concurrency": 2}]}},
    )
    halved = judge.map_judges(lambda one: {"max_concurrency": one.max_concurrency // 2})
    assert {one.model: one.max_concurrency for one, _ in halved.judges()} == {"a": 4, "b": 2, "c": 4, "d": 1}
    assert models(halved) == models(judge)
