"""Peak memory of the stages `pair`, `evaluate` and `benchmark` as the number of prompts grows.

    python benchmarks/stage_memory.py [--stages pair evaluate benchmark] [--prompts 200 2000]

Runs each stage in a new project, in a process of its own, with documents of 20,000 characters. `pair` reads five
scored responses (`--responses`) to each prompt with five statements and their evidence. `evaluate` has one answer of
each model at temperature 1 and a greedy one. `benchmark` is factscore, and infinitebench with documents of five times
the length; both have one case per prompt. A judge in the same process replies at once, and the tiny model's answers are
random words instead of its own, so that generation takes no time. Prints the memory after the imports, the peak and the
time.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from common import argument_parser, peak_rss_mb
from judge_client_memory import SENTENCE, InstantModel

ROOT = Path(__file__).resolve().parents[1]
ANSWER_TOKENS = 60
CHILD = "LONGREWARD_BENCHMARK_STAGE"
SETTINGS: dict[str, dict[str, Any]] = {
    "sample": {"over_window": "keep_ends"},
    "score": {"evidence_chunk_tokens": 128, "extraction_chunk_tokens": 4096},
    "evaluate": {"temperatures": [1.0, 0.0], "samples": 1},
    "benchmark": {
        "facts": "data/facts.jsonl",
        "files": "data/benchmarks",
        "infinitebench": {"tasks": ["longbook_qa_eng"]},
    },
}


def main() -> int:
    """Print a line per stage and number of prompts; return 1 if a stage failed."""
    if stage := os.environ.get(CHILD):
        run_stage(stage)
        return 0
    parser = argument_parser(__doc__)
    parser.add_argument("--stages", nargs="+", default=["pair", "evaluate", "benchmark"])
    parser.add_argument("--prompts", nargs="+", type=int, default=[200, 2000])
    parser.add_argument("--characters", type=int, default=20_000, help="length of a document")
    parser.add_argument("--benchmarks", nargs="+", default=["factscore", "infinitebench"], help="of `benchmark`")
    parser.add_argument("--responses", type=int, default=5, help="responses to each prompt, of `pair`")
    options = parser.parse_args()
    SETTINGS["benchmark"]["run"] = options.benchmarks
    failed = 0
    for stage in options.stages:
        for prompts in options.prompts:
            with tempfile.TemporaryDirectory() as folder:
                project = Path(folder) / "project"
                create_project(project, stage, prompts, options.characters, options.responses)
                print(f"{stage:10} {prompts:>7,} prompts  ", end="", flush=True)
                command = [sys.executable, __file__]
                child = subprocess.run(command, cwd=project, env={**os.environ, CHILD: stage}, stderr=subprocess.PIPE)
                if child.returncode:
                    failed = 1
                    print(child.stderr.decode()[-2000:])
    return failed


def create_project(folder: Path, stage: str, prompts: int, characters: int, responses: int) -> None:
    """Create a project with the inputs of a stage."""
    from longreward.data.formats import write_examples

    init = [sys.executable, "-m", "longreward.flows.cli.main", "init", str(folder)]
    subprocess.run(init, check=True, stdout=subprocess.DEVNULL)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    for section, settings in SETTINGS.items():
        params.setdefault(section, {}).update(settings)
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for role in ("sft", "dpo"):
        shutil.copytree(ROOT / "models/tiny-base", folder / "models" / role)
    prepared = folder / "data/prepared"
    for name in ("heldout", "preference"):
        write_examples(prepared / f"{name}.jsonl", make_examples(prompts, characters))
    write_examples(prepared / "sft.jsonl", make_examples(1, characters))
    for name in ("sampled/sampled_responses", "scored/scored_responses", "scored/unscored_responses"):
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "data" / f"{name}.jsonl").touch()
    if stage == "pair":
        scored_file = folder / "data/scored/scored_responses.jsonl"
        write_scored_responses(scored_file, prompts, characters, responses)
    if stage == "benchmark":
        # Not the documents of the training data: an overlap takes memory.
        write_examples(folder / "data/facts.jsonl", make_examples(prompts, characters, first=prompts))
        write_infinitebench(folder / "data/benchmarks/infinitebench", prompts, 5 * characters)


def make_examples(prompts: int, characters: int, *, first: int = 0) -> Iterator[Any]:
    from longreward.records import Example

    for number in range(first, first + prompts):
        lines = (SENTENCE.format(number * 10**6 + line) for line in range(characters // 78 + 1))
        query = f"Who built mill {number}?"
        yield Example(id=str(number), document_id=str(number), context="".join(lines)[:characters], query=query)


def write_infinitebench(folder: Path, cases: int, characters: int) -> None:
    from longreward.utils.jsonl import write_rows

    rows = (
        {"id": example.id, "context": example.context, "input": example.query, "answer": ["Ann Lee"], "options": []}
        for example in make_examples(cases, characters, first=2 * cases)
    )
    write_rows(folder / "data/longbook_qa_eng.jsonl", rows)
    templates = {"longbook_qa_eng": "{context}\n\n{question}"}
    (folder / "prompt.py").write_text(f"gpt4_templates = {json.dumps(templates)}\n", encoding="utf-8")
    code = 'def create_prompt(row):\n    prefix = f"{target_number}"\n'
    (folder / "eval_utils.py").write_text(code, encoding="utf-8")


def write_scored_responses(path: Path, prompts: int, characters: int, responses: int) -> None:
    from longreward.data.formats import write_scored
    from longreward.records import DIMENSIONS, Evidence, Response, ScoredResponse, Statement, Verdict

    def make_scored() -> Iterator[ScoredResponse]:
        draws = random.Random(0)
        for example in make_examples(prompts, characters):
            for number in range(responses):
                starts = range(0, min(5 * 500, characters), 500)
                evidence = tuple(Evidence(start=s, end=s + 500, text=example.context[s : s + 500]) for s in starts)
                statements = tuple(
                    Statement(text=f"Statement {n}.", support=1.0, analysis="In passage 1.", evidence=evidence)
                    for n in range(5)
                )
                yield ScoredResponse(
                    response=Response(
                        id=f"{example.id}-{number}",
                        example_id=example.id,
                        query=example.query,
                        text=f"Ann Lee built mill {example.id}, as response {number} says. " * 20,
                        tokens=300,
                        finish_reason="stop",
                        token_ids=tuple(draws.randrange(1000) for _ in range(300)),
                        prompt_tokens=5000,
                        prompt_hash="0123456789abcdef",
                    ),
                    verdicts={
                        dimension: Verdict(
                            score=draws.randrange(11),
                            analysis="On the point.",
                            statements=statements if dimension == "faithfulness" else (),
                        )
                        for dimension in DIMENSIONS
                    },
                )

    write_scored(path, make_scored())


class InstantJudge(InstantModel):
    """A judge of the reward and of factscore that replies at once."""

    async def complete(self, request: Any, *, temperature: float) -> Any:
        reply = await super().complete(request, temperature=temperature)
        texts = {"factscore/facts": "- Ann Lee built the mill.", "factscore/check": "True"}
        return replace(reply, text=texts.get(request.template, reply.text))


def run_stage(name: str) -> None:
    """Run the stage in this process and in this folder."""
    import importlib

    from longreward.benchmarks import chat_clients
    from longreward.flows import evaluate
    from longreward.judge import Judge
    from longreward.judge.ledger import Ledger
    from longreward.models import sampling
    from longreward.tasks import benchmark_shards, stage

    def open_judge(config: Any, *, ledger: Path, budget: object = None) -> Judge:
        return Judge.from_model(InstantJudge(), config, ledger=Ledger(ledger))

    def generate(policy: Any, prompts: Sequence[Any], streams: Sequence[Any], params: Any, **_: Any) -> Any:
        vocabulary = policy.model.config.vocab_size
        answers = [(stream[:ANSWER_TOKENS] * vocabulary).long().tolist() for stream in streams]
        return [answers[start : start + params.n] for start in range(0, len(answers), params.n)]

    for module in (evaluate, benchmark_shards):
        module.open_judge = open_judge  # type: ignore[attr-defined]
    for module in (sampling, chat_clients):
        module.generate = generate  # type: ignore[attr-defined]
    flow = getattr(importlib.import_module(f"longreward.flows.{name}"), name)
    baseline, started = peak_rss_mb(), time.monotonic()
    try:
        stage.main(flow)
    finally:
        print(
            f"{baseline:6.0f} MB before, {peak_rss_mb():6.0f} MB peak, {time.monotonic() - started:5.0f} s", flush=True
        )


if __name__ == "__main__":
    sys.exit(main())
