"""Run two steps of DPO on a small Llama and print their peak memory above the start, measured and estimated."""

import os
import sys

if "MALLOC_MMAP_THRESHOLD_" not in os.environ:  # glibc keeps freed blocks below it
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"})

import copy
import json
import tempfile
from pathlib import Path

import psutil
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from longreward.models.config import PolicyConfig
from longreward.models.policy import Policy, PolicyTokenizer
from longreward.training import run, trainers
from longreward.training.dpo import TrainConfig, loss_arguments
from longreward.training.estimate.memory import estimate_memory, measure_shape
from longreward.training.lora import build_lora_config
from longreward.training.prefix.row_prefixes import RowPrefixes

PROMPT, CHOSEN, REJECTED = 1200, 200, 160
LLAMA = LlamaConfig(
    hidden_size=256,
    intermediate_size=688,
    num_hidden_layers=6,
    num_attention_heads=8,
    num_key_value_heads=4,
    vocab_size=32_000,
)
config = TrainConfig.model_validate(
    {"batch_size": 1, "max_steps": 2, "warmup": 0, "ce_weight": 0, **json.loads(sys.argv[1])}
)
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>")),
    eos_token="</s>",
    pad_token="<s>",
)
model = LlamaForCausalLM(LLAMA)
text = PolicyTokenizer(tokenizer, "{context}{query}", (1,))
policy = Policy(PolicyConfig(base_model=""), "", model, text, 4096, torch.device("cpu"))
row = {"id": "1", "prompt_ids": [5] * PROMPT, "chosen_ids": [6] * CHOSEN, "rejected_ids": [7] * REJECTED}
row["length"] = PROMPT + CHOSEN
share = config.prefix_sharing != "off"
shape = measure_shape(copy.deepcopy(model), config.lora)
rows = Dataset.from_list([row] * 2)
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    arguments = run.trainer_arguments(config, policy, state=folder, max_length=4096, bf16=config.bf16)
    (folder / "reference.json").write_text(json.dumps({"ref_chosen_logps": [0] * 2, "ref_rejected_logps": [0] * 2}))
    trainer = trainers.dpo_trainer(
        policy,
        rows,
        build_lora_config(config.lora, model),
        arguments | loss_arguments(config),
        ce_weight=config.ce_weight,
        reference_file=folder / "reference.json",
        prefixes=RowPrefixes.of_rows(rows) if share else None,
    )
    start = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak of the resident memory
    trainer.train()
status = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
tokens = PROMPT + CHOSEN + REJECTED if share else 2 * (PROMPT + CHOSEN)
memory = estimate_memory(
    shape,
    tokens=tokens,
    scored=CHOSEN + REJECTED,
    bf16=config.bf16,
    cuda=False,
    checkpointing=config.gradient_checkpointing,
)
print(json.dumps({"measured": peak - start, "estimated": memory.total - memory.weights - memory.libraries}))
