import pytest

from longreward.config import Config
from longreward.errors import ConfigError
from longreward.pairs.methods import PairConfig


class Inner(Config):
    measure: str = "recall"


class Outer(Config):
    inner: Inner = Inner()
    beta: float = 0.15


def test_unknown_key_suggests_nearest_one() -> None:
    with pytest.raises(ConfigError, match="did you mean min_margin"):
        PairConfig.parse({"min_margn": 1}, source="params.yaml")


def test_unknown_nested_key_suggests_nearest_one_of_section() -> None:
    with pytest.raises(ConfigError, match=r"inner\.mesure: unknown key; did you mean inner\.measure"):
        Outer.parse({"inner": {"mesure": "x"}}, source="params.yaml")


def test_misplaced_section_suggested_with_first_key() -> None:
    class Root(Config):
        outer: Outer = Outer()
        inner: Inner = Inner()
        outright: int = 0

    with pytest.raises(
        ConfigError, match=r"inner\.outr: unknown key; did you mean the section outer \(outer\.inner, …"
    ):
        Root.parse({"inner": {"outr": 1}}, source="params.yaml")
    with pytest.raises(ConfigError, match=r"inner\.outrigt: unknown key; known here: measure$"):
        Root.parse({"inner": {"outrigt": 1}}, source="params.yaml")


def test_unknown_key_without_similar_one_lists_keys() -> None:
    with pytest.raises(ConfigError, match="known here: beta, inner"):
        Outer.parse({"zzzz": 1}, source="params.yaml")


def test_all_values_out_of_bounds_shown_with_keys() -> None:
    with pytest.raises(ConfigError) as error:
        PairConfig.parse({"min_scored": 1, "min_margin": 11}, source="params.yaml")
    assert "min_scored" in str(error.value)
    assert "(is 1)" in str(error.value)
    assert "min_margin" in str(error.value)


def test_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        PairConfig().min_scored = 3  # type: ignore[misc]
