"""Train a policy online with GRPO: it samples groups of responses, the judge scores them, TRL updates the weights.

    python examples/grpo.py --model models/sft --data data/prepared/preference.jsonl --out models/grpo --steps 20

Judge and lengths are those of params.yaml. Replies of the judge are stored in the ledger of the project.
"""

import argparse
from pathlib import Path
from typing import Any

from longreward import LongReward, OnlineReward
from longreward.data.formats import read_examples
from longreward.flows.cli.options import default_ledger
from longreward.judge.budget import Budget
from longreward.models.policy import load_policy
from longreward.params import Params, read_params
from longreward.reward.online import prompt_rows


def train(params: Params, *, model: Path, data: Path, out: Path, ledger: Path, steps: int, **overrides: Any) -> Any:
    """Train the policy and save it to `out`.

    Args:
        model: The folder of the policy to start from.
        data: The examples, one per line.
        overrides: Further arguments of GRPOConfig.

    Returns:
        TRL's trainer. Its `state.log_history` contains the rewards.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    policy = load_policy(params.policy, model, training=True)
    budget = Budget(params.score.budget, params.prices)  # for the whole training
    # Otherwise a response without statements has no reward and is ignored in its group: saying nothing would be free.
    score = params.score.model_copy(update={"no_statements": "zero"})
    reward = LongReward(params.judge, score, ledger=ledger, budget=budget)
    settings = {
        "max_steps": steps,
        "num_generations": 4,  # size of a group: responses to one prompt, whose rewards are compared
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-6,
        "max_completion_length": params.sample.max_new_tokens,
        "temperature": params.sample.temperature,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": False,
        "seed": params.sample.seed,
    }
    trainer = GRPOTrainer(
        model=policy.model,
        processing_class=policy.tokenizer,
        reward_funcs=OnlineReward(reward),
        args=GRPOConfig(output_dir=str(out), **(settings | overrides)),
        train_dataset=Dataset.from_list(list(prompt_rows(read_examples(data), policy.encoder))),
    )
    trainer.train()
    trainer.save_model(str(out))
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/sft"))
    parser.add_argument("--data", type=Path, default=Path("data/prepared/preference.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("models/grpo"))
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    trainer = train(
        read_params(),
        model=options.model,
        data=options.data,
        out=options.out,
        ledger=default_ledger(),
        steps=options.steps,
    )
    for entry in trainer.state.log_history:
        if "reward" in entry:
            print(f"step {entry['step']:>4}  reward {entry['reward']:.3f}")


if __name__ == "__main__":
    main()
