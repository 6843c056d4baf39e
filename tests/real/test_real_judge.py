"""A real, small judge over llama.cpp: it often departs from the requested formats, which no test double does as well.

The judge is Qwen2.5-Coder-0.5B. What it decides is often wrong; these tests check that it is measured correctly.
"""

from collections.abc import Iterator

import pytest

from longreward.judge import JudgeConfig
from longreward.judge.server_probe import probe

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
MODEL = "qwen-0.5b"


@pytest.fixture(scope="module")
def judge_url(serve_gguf) -> Iterator[str]:
    with serve_gguf(f"{MODEL}.gguf", context=4096, slots=2) as url:
        yield url


def judge_config(url: str, **settings: object) -> JudgeConfig:
    return JudgeConfig(kind="http", model=MODEL, base_url=url, max_concurrency=2, **settings)


async def test_running_judge_answers_probe(judge_url: str) -> None:
    (result,) = await probe(judge_config(judge_url))
    assert result.ok, result.message
    assert MODEL in result.message
