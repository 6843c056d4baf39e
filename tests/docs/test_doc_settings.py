import pytest
from doc_settings import setting_exists


@pytest.mark.parametrize(
    "key",
    ["train.beta", "judge.check.min_rank", "prices.models.gpt-4o.prompt", "judge.extra_body.a.b", "train.lora.r"],
)
def test_setting_exists(key: str) -> None:
    assert setting_exists(key)


@pytest.mark.parametrize("key", ["train.btea", "trian", "prices.models.gpt-4o.input", "train.beta.x"])
def test_unknown_setting(key: str) -> None:
    assert not setting_exists(key)
