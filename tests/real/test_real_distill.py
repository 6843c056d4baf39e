"""A reward model distilled from a few scores with SmolLM2-135M-Instruct and LoRA."""

from collections.abc import Callable
from pathlib import Path

import pytest

from longreward.models.config import PolicyConfig
from longreward.records import Example, Response
from longreward.reward.reward_model import RewardModelConfig, load_reward_model
from longreward.training.config import LoraSettings
from longreward.training.distill import DistillConfig, train_reward_model
from longreward.training.score_pairs import ScoredPrompt

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

FACTS = (
    ("Keld", "Ada Lund", "1905"),
    ("Moor", "Tom Ray", "1866"),
    ("Tarn", "Ivo Lang", "1912"),
    ("Solby", "Mara Voss", "1874"),
)


def make_prompt(number: int) -> ScoredPrompt:
    town, founder, year = FACTS[number % 4]
    document = (
        " ".join(f"{name} was founded by {who} in {when}." for name, who, when in FACTS) + " It rained a lot." * 40
    )
    example = Example(id=str(number), document_id=str(number), context=document, query=f"Who founded {town}, and when?")
    texts = (f"{founder} founded {town} in {year}.", "I do not know.", "The weather is nice today, and so is lunch.")
    responses = tuple(
        Response(id=f"{number}-{n}", example_id=example.id, query=example.query, text=text)
        for n, text in enumerate(texts)
    )
    return ScoredPrompt(example, responses, ((9.0, 9.0), (2.0, 2.0), (1.0, 1.0)))


def test_distilled_model_prefers_answers(model_path: Callable[[str], Path], tmp_path: Path) -> None:
    config = DistillConfig(
        learning_rate=1e-3,
        lora=LoraSettings(r=8, alpha=16),
        max_steps=10,
        batch_size=4,
        micro_batch=4,
        max_length=160,
        min_margin=2.0,
        gradient_checkpointing=False,
        bf16=False,
    )
    report = train_reward_model(
        config,
        PolicyConfig(base_model="x", dtype="float32", device="cpu"),
        [make_prompt(number) for number in range(3)],
        base=str(model_path("smollm2-135m")),
        out=tmp_path / "reward",
        state=tmp_path / "state",
        key="k1",
    )
    assert report.metrics()["examples"] == report.metrics()["cut_prompts"] == 6
    model = load_reward_model(RewardModelConfig(model=str(tmp_path / "reward"), device="cpu"))
    unseen = make_prompt(3)
    ids, cut = model.encoder.encode(
        context=unseen.example.context, query=unseen.example.query, response=unseen.responses[0].text
    )
    assert cut
    assert "Solby was founded by Mara Voss" in model.encoder.chat.tokenizer.decode(ids)
    [ranked] = model.rank([(unseen.example, unseen.responses)])
    answer, *others = (reward.reward or 0.0 for reward in ranked.rewards)
    assert answer > max(others)
