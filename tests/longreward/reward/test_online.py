"""The reward as TRL calls it, alone and in a real GRPO training of a tiny model."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longreward import LongReward, OnlineReward
from longreward.errors import ConfigError
from longreward.judge import JudgeConfig
from longreward.judge.ledger import Ledger
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_tokenizer
from longreward.params import read_params
from longreward.records import Example
from longreward.reward import ScoreConfig
from longreward.reward.online import completion_text, prompt_rows

ROOT = Path(__file__).resolve().parents[3]
KELD, MOOR = "Keld was founded by Ann Lee in 1905.", "Moor was founded by Tom Ray in 1866."
WHO = "Who founded it, and when?"


async def test_batch_rewards_equal_single_rewards_in_order() -> None:
    rewards = await OnlineReward()(
        prompts=["p", "q", "p", "q"],
        completions=[KELD, KELD, MOOR, MOOR],
        context=[KELD, MOOR, KELD, MOOR],
        query=[WHO] * 4,
        completion_ids=[[1]] * 4,
        trainer_state=object(),
    )
    alone = [
        await LongReward().ascore(context=context, query=WHO, response=response)
        for context, response in [(KELD, KELD), (MOOR, KELD), (KELD, MOOR), (MOOR, MOOR)]
    ]
    assert rewards == [card.reward for card in alone]
    assert rewards[0] > rewards[2]
    assert rewards[3] > rewards[1]


async def test_completions_of_group_share_requests(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    reward = OnlineReward(LongReward(ledger=ledger))
    await reward(prompts=["p"] * 4, completions=[KELD] * 4, context=[KELD] * 4, query=[WHO] * 4)
    templates = [row["template"] for row in exchanges(ledger)]
    assert sorted(templates) == ["completeness", "extraction", "helpfulness", "logicality", "statements", "support"]
    await reward(prompts=["p"], completions=[KELD], context=[KELD], query=[WHO])
    assert len(exchanges(ledger)) == 6


async def test_unscored_is_none_and_dimensions_logged() -> None:
    columns: dict[str, list[Any]] = {}
    metrics: dict[str, float] = {}
    rewards = await OnlineReward()(
        prompts=["p", "p"],
        completions=[[{"role": "assistant", "content": KELD}], [{"role": "assistant", "content": ""}]],
        context=[KELD] * 2,
        query=[WHO] * 2,
        log_extra=columns.__setitem__,
        log_metric=metrics.__setitem__,
    )
    assert rewards[1] is None  # an empty answer has no statements, so no faithfulness
    assert columns["faithfulness"] == [10.0, None]
    assert metrics["longreward/faithfulness"] == 10.0
    assert metrics["longreward/unscored"] == 0.5


async def test_column_names() -> None:
    reward = OnlineReward(context="text", query="question")
    assert (await reward(["p"], [KELD], text=[KELD], question=[WHO]))[0] > 5
    with pytest.raises(ConfigError, match=r"column 'question'.* has: text"):
        await reward(["p"], [KELD], text=[KELD])
    with pytest.raises(ConfigError, match=r"column 'question' of the training data: a text is needed, not None"):
        await reward(["p"], [KELD], text=[KELD], question=[None])
    with pytest.raises(ConfigError, match=r"column 'items'.* has: text, question"):
        await OnlineReward(context="text", query="question", rubric="items")(["p"], [KELD], text=[KELD], question=[WHO])


def test_batch_mode_and_adaptive_strategy_rejected() -> None:
    batch = JudgeConfig(kind="http", base_url="http://127.0.0.1:9/v1", model="m", mode="batch")
    with pytest.raises(ConfigError, match=r"set judge\.mode to live"):
        OnlineReward(LongReward(batch))
    with pytest.raises(ConfigError, match=r"set score\.strategy to full"):
        OnlineReward(LongReward(config=ScoreConfig(strategy="adaptive")))


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("as it is", "as it is"),
        ([{"role": "assistant", "content": "a"}, {"role": "tool", "content": "b"}, {"role": "x", "content": "c"}], "c"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}], "a"),
        ([{"role": "assistant", "content": None}], ""),
        ([], ""),
    ],
)
def test_completion_text_is_last_message(completion: Any, text: str) -> None:
    assert completion_text(completion) == text


def test_prompt_rows_render_like_other_stages(tiny_policy: Path) -> None:
    text = load_tokenizer(PolicyConfig(base_model="unused", prompt_template="{query} . {context}"), tiny_policy)
    example = Example(id="0", document_id="0", context="anna was mayor .", query="who ?")
    [row] = prompt_rows([example], text)
    ids = text.tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]
    assert ids == text.prompt_ids(example.context, example.query)
    assert (row["context"], row["query"]) == ("anna was mayor .", "who ?")


def test_grpo_example_trains_tiny_policy(
    save_tiny_policy: Callable[..., Path], write_lines: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    rows = [
        {"idx": 0, "query": "who was mayor in 1912 ?", "context": "anna was mayor in 1912 . ben built the bridge ."},
        {"idx": 1, "query": "when was the bridge built ?", "context": "the bridge was built in 1930 . it stands ."},
    ]
    model, ledger = save_tiny_policy(tmp_path / "policy"), tmp_path / "ledger.sqlite"
    trainer = example("grpo").train(
        read_params(None, ["policy.base_model=unused", "sample.max_new_tokens=12"]),
        model=model,
        data=write_lines(tmp_path / "preference.jsonl", rows),
        out=tmp_path / "grpo",
        ledger=ledger,
        steps=3,
        learning_rate=1e-3,
    )
    rewards = [logged["reward"] for logged in trainer.state.log_history if "reward" in logged]
    assert len(rewards) == 3
    assert all(0 <= reward <= 10 for reward in rewards)
    before, after = load_file(model / "model.safetensors"), load_file(tmp_path / "grpo" / "model.safetensors")
    assert all(not before[name].equal(after[name]) for name in before)
    templates = {row["template"] for row in exchanges(ledger)}
    assert {"helpfulness", "logicality", "statements", "extraction", "completeness"} <= templates


def exchanges(ledger: Path) -> list[dict[str, Any]]:
    import sqlite3

    Ledger(ledger).close()
    with sqlite3.connect(ledger) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("select * from exchanges")]


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
