"""A real, small policy: SmolLM2-135M-Instruct through every stage, with LoRA and with all weights trained.

It shows what no random model does: a byte-level tokenizer of 49,152 tokens, a chat template with a system turn, and
responses of realistic lengths.
"""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from longreward.data.formats import read_pairs, response_from_row
from longreward.models.config import PolicyConfig
from longreward.models.policy import Policy, load_policy, load_tokenizer
from longreward.models.sampling import SampleConfig, sample
from longreward.models.served_policy import sample_served, served_policy
from longreward.models.server_config import ServerConfig
from longreward.models.servers import connect_external
from longreward.params import read_params
from longreward.records import Example
from longreward.utils.jsonl import read_records

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

RESPONSES = "data/sampled/sampled_responses.jsonl"
CONFIG = PolicyConfig(base_model="x", dtype="float32")
SHORT_RUN = {  # of the preset smollm2-135m: 4 + 2 documents, 4 responses of up to 24 tokens, 2 updates
    "prepare": {"preference_share": 0.6, "heldout_share": 0.4, "max_preference": 4, "max_heldout": 2},
    "sample": {"n": 4, "max_new_tokens": 24},
    "pair": {"min_scored": 2, "min_margin": 0.0, "choose_truncated": True},
    "train": {"max_steps": 2, "batch_size": 2},
    "evaluate": {"temperatures": [0.0], "samples": 1, "champion": {"measure": "reward", "temperature": 0.0}},
}
EXAMPLE = Example(
    id="rainfall",
    document_id="1",
    context="The harbour of Keld was built in 1874. Its first master was Ada Lund, who came from Riverton.",
    query="Who was the first master of the harbour?",
)


class Project:
    """A project of the preset smollm2-135m, as `longreward init` creates it, with the example data."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("LONGREWARD_", "MLFLOW_", "DVC_"))}
        self.environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        self.call("init", str(folder), "--preset", "smollm2-135m", cwd=folder.parent)
        self.configure({**SHORT_RUN, "policy": {"sft_model": str(model)}})

    def configure(self, sections: dict[str, dict[str, Any]]) -> None:
        file = self.folder / "params.yaml"
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        for name, values in sections.items():
            settings[name] |= values
        file.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def call(self, *arguments: str, cwd: Path | None = None) -> str:
        command = [sys.executable, "-m", "longreward.flows.cli.main", *arguments]
        ended = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout[-5000:]
        return ended.stdout

    def metrics(self, stage: str) -> dict[str, Any]:
        metrics: dict[str, Any] = json.loads((self.folder / "reports" / f"{stage}.json").read_text())["metrics"]
        return metrics


@pytest.fixture(scope="module")
def model(model_path: Callable[[str], Path]) -> Path:
    return model_path("smollm2-135m")


@pytest.fixture(scope="module")
def policy(model: Path) -> Policy:
    return load_policy(CONFIG, model)


@pytest.fixture(scope="module")
def lora_run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """A project after its first run, which trains an adapter, and the output of that run."""
    project = Project(tmp_path_factory.mktemp("real") / "project", model)
    return project, project.call("run")


def weights_of(path: Path) -> dict[str, Any]:
    weights: dict[str, Any] = load_policy(CONFIG, path).model.state_dict()
    return weights


def test_pipeline_of_preset_trains_adapter_and_compares_models(lora_run) -> None:
    project, output = lora_run
    assert project.metrics("sample")["responses"] == 16
    assert project.metrics("sample")["without_token_ids"] == 0
    assert project.metrics("score")["complete"] == 16
    assert project.metrics("pair")["pairs"] >= 2
    trained = project.metrics("train")
    assert trained["steps"] == 2
    assert trained["answers/sampled"] == 2 * project.metrics("pair")["pairs"]
    assert trained["answers/rendered"] == trained["answers/mismatched"] == 0
    assert trained["logps/chosen"] < 0
    assert "is empty" not in output
    assert "learning rate of 0" not in output


def test_trained_ids_are_sampled_ids(lora_run, model: Path) -> None:
    from longreward.training.training_data import tokenize_pairs

    project, _ = lora_run
    encoder = load_tokenizer(read_params(project.folder / "params.yaml").policy, model)
    sampled = {r.id: r for r in read_records(project.folder / RESPONSES, response_from_row)}
    pairs = list(read_pairs(project.folder / "data/pairs/preference_pairs.jsonl"))
    rows = tokenize_pairs(encoder, pairs, max_length=8192).rows
    assert len(rows) == len(pairs) > 0
    for row, pair in zip(rows, pairs, strict=True):
        assert tuple(row["chosen_ids"]) == sampled[pair.chosen.id].token_ids
        assert tuple(row["rejected_ids"]) == sampled[pair.rejected.id].token_ids
        assert row["prompt_ids"] == encoder.prompt_ids(pair.context, pair.query)


def test_saved_adapter_on_sft_model_equals_merged_model(lora_run, model: Path) -> None:
    import torch
    from peft import PeftModel

    project, _ = lora_run
    trained = load_policy(CONFIG, project.folder / "models/dpo")
    ids = torch.tensor([trained.encoder.prompt_ids(EXAMPLE.context, EXAMPLE.query)])
    adapted = PeftModel.from_pretrained(load_policy(CONFIG, model).model, project.folder / "models/dpo/adapter")
    with torch.inference_mode():
        merged, unmerged = trained.model(ids).logits, adapted(ids).logits
        base = load_policy(CONFIG, model).model(ids).logits
    assert (merged - unmerged).abs().max() < 1e-3
    assert (merged - base).abs().max() > 1e-2  # two updates change the model


def test_second_run_trains_all_weights_on_same_pairs(lora_run, model: Path) -> None:
    import torch

    project, _ = lora_run
    sampled = (project.folder / RESPONSES).read_bytes()
    project.configure({"train": {"lora": None, "learning_rate": 1e-6}})
    output = project.call("run", "--stages", "sample", "train", "evaluate")
    assert "sample is up to date" in output
    assert (project.folder / RESPONSES).read_bytes() == sampled
    assert not (project.folder / "models/dpo/adapter").exists()
    before, after = weights_of(model), weights_of(project.folder / "models/dpo")
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert {name for name in before if "layernorm" in name} <= changed
    assert "model.embed_tokens.weight" in changed


def test_prefix_sharing_equals_unmodified_trl(policy: Policy, tmp_path: Path) -> None:
    """In float32 on one pair: the loss, every logged metric and the gradient of every weight."""
    shared, stock = (_loss_and_gradients(policy, tmp_path, share=share) for share in (True, False))
    assert shared["loss"] == pytest.approx(stock["loss"], rel=1e-5)
    assert shared["logged"] == pytest.approx(stock["logged"], rel=1e-4, abs=1e-4)
    assert stock["logged"]["rewards/margins"] != 0
    for name, gradient in stock["gradients"].items():
        assert gradient.abs().max() > 0, name
        assert (shared["gradients"][name] - gradient).abs().max() < 1e-3 * gradient.abs().max(), name


def _loss_and_gradients(policy: Policy, folder: Path, *, share: bool) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from longreward.training.prefix.sharing import PairCollator, share_prefix

    model, reference = copy.deepcopy(policy.model), copy.deepcopy(policy.model)
    with torch.no_grad():
        reference.model.norm.weight.mul_(0.9)  # another model, so that the terms of the reference do not cancel
    if share:
        share_prefix(model)
        share_prefix(reference)
    config = DPOConfig(
        output_dir=str(folder / f"share-{share}"),
        per_device_train_batch_size=1,
        max_length=None,
        beta=0.15,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, 0.1],
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
    )
    pair = {
        "prompt": policy.encoder.prompt_text(EXAMPLE.context, EXAMPLE.query),
        "chosen": "The first master of the harbour was Ada Lund.",
        "rejected": "It was built in 1874 by Keld.",
    }
    trainer = DPOTrainer(
        model,
        reference,
        config,
        data_collator=PairCollator(policy.encoder.end_ids[0]) if share else None,
        train_dataset=Dataset.from_list([pair]),
        processing_class=policy.tokenizer,
    )
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[0]]))
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return {
        "loss": loss.item(),
        "logged": {name: values[-1] for name, values in trainer._metrics["train"].items()},
        "gradients": {name: weight.grad for name, weight in trainer.model.named_parameters()},
    }


def test_half_precision_shares_prompt_cache(model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from longreward.models.shared_cache import unsupported_reason

    assert unsupported_reason(AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()) is None


def test_gguf_file_as_fine_tuned_model(model_path: Callable[[str], Path], model: Path, tmp_path: Path) -> None:
    import torch

    from longreward.training.sft import SftConfig, train_sft

    pytest.importorskip("gguf", reason="needs the package gguf")
    config = CONFIG.model_copy(update={"sft_model": str(model_path("smollm2-135m.gguf"))})
    out = tmp_path / "sft"
    train_sft(SftConfig(), config, base="x", data=tmp_path / "none", out=out, state=tmp_path / "state")
    converted, expected = load_policy(CONFIG, out), load_policy(CONFIG, model)
    weights = expected.model.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in converted.model.state_dict().items())
    prompt = ("The <|im_end|> of Keld.", "Who?")
    assert converted.encoder.prompt_ids(*prompt) == expected.encoder.prompt_ids(*prompt)
    assert (converted.window, converted.encoder.end_ids) == (expected.window, expected.encoder.end_ids) == (8192, (2,))


GREEDY = SampleConfig(n=1, temperature=0.0, max_new_tokens=12)


async def test_llama_cpp_reads_same_prompt_ids(serve_gguf: Any, policy: Policy, model: Path) -> None:
    """The served weights are the same up to llama.cpp's 8-bit activations, so greedy responses begin alike."""
    with serve_gguf("smollm2-135m.gguf", context=512, slots=1, threads=1) as url:
        settings = {"base_url": url, "model": "smollm2-135m", "max_concurrency": 1, "max_retries": 0}
        config = ServerConfig(kind="external", extra_body={"top_k": 0, "min_p": 0}, **settings)
        client = await connect_external(config, base_url=url, model=config.model)
        served = served_policy(CONFIG, model, client)
        assert served.window == 512  # of the slot, not the model's 8,192
        [[response]] = await sample_served(served, [EXAMPLE], GREEDY)
        varied = await sample_served(served, [EXAMPLE], GREEDY.model_copy(update={"n": 2, "temperature": 1.0}))
        await client.close()
    [[expected]] = sample(policy, [EXAMPLE], GREEDY)
    assert response.text.split()[:3] == expected.text.split()[:3]
    assert response.prompt_hash == expected.prompt_hash
    assert len({r.text for r in varied[0]}) == 2


async def test_trained_model_served_by_transformers(lora_run, tmp_path: Path) -> None:
    """The stage starts `transformers serve` on the merged model; it gives the response of the same weights here."""
    from longreward.tasks.policy_server import open_policy

    project, _ = lora_run
    folder = project.folder / "models/dpo"
    command = ["transformers", "serve", "{model}", "--host", "127.0.0.1", "--port", "{port}", "--dtype", "float32"]
    server = ServerConfig(kind="vllm", command=command, prompt="chat", max_concurrency=1, choices_per_request=1)
    async with open_policy(CONFIG, server, folder, logs=tmp_path) as served:
        [[response]] = await sample_served(served, [EXAMPLE], GREEDY)
    [[expected]] = sample(load_policy(CONFIG, folder), [EXAMPLE], GREEDY)
    assert response.text == expected.text
