import pytest

from longreward.config import Config
from longreward.errors import ConfigError
from longreward.pairs.methods import PairConfig


class Inner(Config):
    measure: str = "recall"


class Outer(Config):
    inner: Inner = Inner()
    beta: float = 0.15


def test_an_unknown_key_names_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="did you mean min_margin"):
        PairConfig.parse({"min_margn": 1}, source="params.yaml")


def test_an_unknown_nested_key_names_the_nearest_known_one_of_its_section() -> None:
    with pytest.raises(ConfigError, match=r"inner\.mesure: unknown key; did you mean inner\.measure"):
        Outer.parse({"inner": {"mesure": "x"}}, source="params.yaml")


def test_a_key_that_resembles_a_section_more_than_its_own_names_that_section_and_its_first_key() -> None:
    class Whole(Config):
        outer: Outer = Outer()
        inner: Inner = Inner()
        outright: int = 0

    with pytest.raises(
        ConfigError, match=r"inner\.outr: unknown key; did you mean the section outer \(outer\.inner, …"
    ):
        Whole.parse({"inner": {"outr": 1}}, source="params.yaml")
    with pytest.raises(ConfigError, match=r"inner\.outrigt: unknown key; known here: measure$"):
        Whole.parse({"inner": {"outrigt": 1}}, source="params.yaml")


def test_a_key_that_resembles_nothing_lists_what_is_known() -> None:
    with pytest.raises(ConfigError, match="known here: beta, inner"):
        Outer.parse({"zzzz": 1}, source="params.yaml")


def test_a_value_out_of_bounds_is_shown_with_its_key_and_all_mistakes_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        PairConfig.parse({"min_scored": 1, "min_margin": 11}, source="params.yaml")
    assert "min_scored" in str(caught.value)
    assert "(is 1)" in str(caught.value)
    assert "min_margin" in str(caught.value)


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        PairConfig().min_scored = 3  # type: ignore[misc]
