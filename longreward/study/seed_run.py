"""One seed of a study with a real policy, as library calls without Prefect, MLflow and DVC.

All arms share documents, responses, scores and the SFT model's answers. Every step writes files to the folder of the
seed and is skipped where they exist, so that a run that was killed loses at most its present step:

    train.jsonl, heldout.jsonl     examples, which share no document
    sample/, score/                responses to the training prompts, their scores by the judge; in shards
    sft/                           the SFT model's answers to held-out prompts (`answers-….jsonl`) and `measures.json`
    <arm>/                         pairs.jsonl, pairs.json (their statistics), train.jsonl (metrics by step),
                                   the trained model's answers and `measures.json`
"""

import asyncio
import gc
import hashlib
import json
import logging
import multiprocessing
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from longreward.data.formats import (
    read_examples,
    read_pairs,
    read_responses,
    read_scored,
    write_examples,
    write_pairs,
    write_responses,
    write_scored,
)
from longreward.errors import ConfigError, DataError
from longreward.evaluation.comparison import decodings
from longreward.evaluation.config import GOLD_MEASURES
from longreward.evaluation.example_metrics import measures_table, prompt_hash, read_measures
from longreward.evaluation.measures import AnswerMeasures, GoldMeasures, gold_reward, measure_answers
from longreward.evaluation.short_instructions import load_short_instructions, measure_short, short_answer_rows
from longreward.judge import open_judge
from longreward.models.policy import Policy, load_policy
from longreward.models.sampling import SampleConfig, sample
from longreward.pairs.methods import SIMPLE_METHODS, pair_metrics
from longreward.pairs.outcomes import Outcome, sampling_order
from longreward.pairs.selection import make_pairs, select_by_reward
from longreward.params import Params
from longreward.records import Example, PreferencePair, Response, Role, ScoredResponse
from longreward.reward import Scorer, score_examples
from longreward.study.arms import GOLD, LONGREWARD, SFT, Arm
from longreward.study.results import RunResult
from longreward.training.dpo import train_dpo
from longreward.utils.jsonl import open_atomic, write_rows

log = logging.getLogger(__name__)

Sampled = tuple[Example, list[Response]]
HELD_OUT_PREFIX = "heldout-"


@dataclass(frozen=True)
class SeedRun:
    """A seed with its settings (`params`, without those of an arm), its folder and the facts of its documents."""

    params: Params
    seed: int
    folder: Path
    gold: GoldMeasures
    processes: int = 1
    """Processes in which the offline judge scores. Other judges are asked by this process."""
    keep_models: bool = False
    loaded: dict[str, Policy] = field(default_factory=dict)
    """The model that responded last, by its name, so that it is not loaded for each kind of answers."""

    @property
    def model(self) -> str:
        """The model that responds and that all arms start from."""
        return self.params.policy.sft_model or self.params.policy.base_model

    def run_arm(self, arm: Arm, params: Params) -> RunResult:
        """Run what is missing of one arm, whose settings are `params`; return what was measured."""
        folder, sft = self.folder / arm.name, self.measure_sft()
        if not (folder / "measures.json").is_file():
            self._train(arm, params, folder)
        measured = self._measure("dpo", str(folder / "model"), folder)
        if not self.keep_models:
            shutil.rmtree(folder / "model", ignore_errors=True)
        examples = read_measures(sft, source=str(self.folder / SFT)) + read_measures(measured, source=str(folder))
        return RunResult(arm.name, self.seed, examples)

    def measure_sft(self) -> dict[str, Any]:
        """Return the measures of the SFT model's answers to the held-out prompts, as a table."""
        return self._measure("sft", self.model, self.folder / SFT)

    def read_result(self, arm: Arm) -> RunResult | None:
        """Return what was measured before; None where the arm is not finished."""
        examples = []
        for name in (SFT, arm.name):
            file = self.folder / name / "measures.json"
            if not file.is_file():
                return None
            examples += read_measures(json.loads(file.read_text(encoding="utf-8")), source=str(file))
        return RunResult(arm.name, self.seed, examples)

    def sampled(self) -> list[Sampled]:
        """Return the training prompts with their responses, sampled where they are missing."""
        examples = list(read_examples(self.folder / "train.jsonl"))
        return self._sample(self.model, examples, self.params.sample, self.folder / "sample")

    def scored(self, sampled: Sequence[Sampled]) -> list[ScoredResponse]:
        """Return the scores of all responses, by the judge where they are missing."""
        params, folder = self.params, self.folder / "score"
        shards = _shards(sampled, params.score.shard_size)
        missing = [n for n in range(len(shards)) if not _shard_file(folder, n).is_file()]
        if missing:
            self._log(f"{LONGREWARD}: scoring the responses to {len(sampled)} prompts")
        # The judge's replies are worth keeping where they cost money or time.
        ledger = None if params.judge.kind == "offline" else self.folder / "ledger.sqlite"
        if params.judge.kind == "offline" and params.score.retriever.kind == "bm25" and self.processes > 1:
            # Not forked: this process may hold a CUDA context, which a fork cannot use.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(self.processes, mp_context=context) as pool:
                futures = {n: pool.submit(score_shard, params, shards[n], ledger) for n in missing}
                for n, future in futures.items():
                    write_scored(_shard_file(folder, n), future.result())
        else:
            for n in missing:
                write_scored(_shard_file(folder, n), score_shard(params, shards[n], ledger))
        return [scored for n in range(len(shards)) for scored in read_scored(_shard_file(folder, n))]

    def _train(self, arm: Arm, params: Params, folder: Path) -> None:
        """Make the pairs of an arm and train on them, if its model does not exist."""
        pairs_file = folder / "pairs.jsonl"
        if not pairs_file.is_file():
            outcomes = self._make_pairs(arm, params)
            pairs = [outcome for outcome in outcomes if isinstance(outcome, PreferencePair)]
            if not pairs:
                raise DataError(
                    f"{folder}: no prompt gives a pair ({pair_metrics(outcomes)}); sample more responses or prompts, "
                    "or lower pair.min_scored or pair.min_margin"
                )
            with open_atomic(folder / "pairs.json") as file:
                json.dump(pair_metrics(outcomes) | self._gold_of_pairs(pairs), file, indent=1)
            write_pairs(pairs_file, pairs)
        if (folder / "model").is_dir():
            return
        count = sum(1 for _ in read_pairs(pairs_file))
        self._log(f"{arm.name}: training on {count} pairs")
        steps: list[dict[str, float]] = []
        self._unload()
        started = time.monotonic()
        report = train_dpo(
            params.train,
            params.policy,
            sft_model=self.model,
            pairs=pairs_file,
            out=folder / "model",
            state=folder / "state",
            log=lambda step, metrics: steps.append({"step": step, **metrics}),
        )
        write_rows(folder / "train.jsonl", steps)
        self._unload()
        seconds = time.monotonic() - started
        self._log(f"{arm.name}: {report.steps} updates in {seconds:.0f} s; {_summarize_training(report.last)}")

    def _make_pairs(self, arm: Arm, params: Params) -> list[Outcome]:
        sampled, config = self.sampled(), params.pair
        if arm.name == GOLD:
            return [self._gold_pair(params, *item) for item in sampled]
        if config.method == "longreward":
            return list(make_pairs(config, (example for example, _ in sampled), self.scored(sampled)))
        if (make_pair := SIMPLE_METHODS.get(config.method)) is None:
            raise ConfigError(f"the arm {arm.name} has pair.method {config.method}: use `longreward study` for it")
        return [make_pair(config, *item) for item in sampled]

    def _gold_pair(self, params: Params, example: Example, responses: Sequence[Response]) -> Outcome:
        """Pair the best with the worst response by the facts, which no judge sees."""
        ordered = sampling_order(params.pair, responses)
        rewards = [(self.gold_reward(response),) * 2 for response in ordered]
        return select_by_reward(params.pair, example, ordered, rewards, method=GOLD, min_margin=params.pair.min_margin)

    def gold_reward(self, response: Response) -> float:
        """Return the reward of a response by the gold facts, from 0 to 10."""
        return gold_reward(self._gold_measures(response))

    def _gold_measures(self, response: Response) -> Mapping[Any, float]:
        measures = self.gold(response.example_id, response.text)
        if measures is None:
            raise ConfigError(f"the gold facts have no row for the example {response.example_id}")
        return measures

    def _gold_of_pairs(self, pairs: Sequence[PreferencePair]) -> dict[str, float]:
        """Return the mean gold measures of both sides, and how often the chosen one is better by the facts."""
        means: dict[str, float] = {}
        for side in ("chosen", "rejected"):
            measures = [self._gold_measures(getattr(pair, side)) for pair in pairs]
            means |= {f"{side}/{name}": fmean(measure[name] for measure in measures) for name in GOLD_MEASURES}
            means[f"{side}/tokens"] = fmean(getattr(pair, side).tokens or 0 for pair in pairs)
        margins = [self.gold_reward(pair.chosen) - self.gold_reward(pair.rejected) for pair in pairs]
        means["gold_agrees"] = fmean(margin > 0 for margin in margins)
        means["gold_disagrees"] = fmean(margin < 0 for margin in margins)
        return means

    def _measure(self, role: Role, model: str, folder: Path) -> dict[str, Any]:
        """Return the table of measures of a model's answers to the held-out prompts, sampled where missing."""
        file = folder / "measures.json"
        if file.is_file():
            table: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return table
        heldout = list(read_examples(self.folder / "heldout.jsonl"))
        documents = {example.id: example.document_id for example in heldout}
        config = self.params.evaluate
        measures: list[AnswerMeasures] = []
        self._log(f"{folder.name}: answering {len(heldout)} held-out prompts")
        for decoding in decodings(config):
            update = {"n": decoding.samples, "temperature": decoding.temperature, "seed": config.seed}
            sampling = self.params.sample.model_copy(update=update)
            answers = self._sample(model, heldout, sampling, folder / f"answers-{decoding.name}")
            scored = [
                ScoredResponse(response=response, verdicts={}) for _, responses in answers for response in responses
            ]
            measures += measure_answers(role, decoding, documents, scored, self.gold)
        if (short := load_short_instructions(config.short)) is not None:
            sampling = self.params.sample.model_copy(update={"n": 1, "temperature": 0.0})
            answers = self._sample(model, short.examples, sampling, folder / "answers-short")
            short_measures = list(
                measure_short(short, role, (response for _, responses in answers for response in responses))
            )
            write_rows(folder / "short.jsonl", short_answer_rows(short, short_measures))
            measures += short_measures
            heldout += short.examples
        table = measures_table(measures, {example.id: prompt_hash(example) for example in heldout})
        with open_atomic(file) as text:
            json.dump(table, text)
        self._log(f"{folder.name}: {_summarize_measures(measures)}")
        return table

    def _sample(self, model: str, examples: Sequence[Example], config: SampleConfig, folder: Path) -> list[Sampled]:
        """Return the examples with `config.n` responses each; finished shards are read from `folder`."""
        shards = _shards(examples, config.shard_size)
        missing = [n for n in range(len(shards)) if not _shard_file(folder, n).is_file()]
        for n in missing:
            policy = self._load(model)
            started = time.monotonic()
            groups = list(sample(policy, shards[n], config))
            write_responses(_shard_file(folder, n), (response for group in groups for response in group))
            seconds = time.monotonic() - started
            done = len(shards) - len(missing) + missing.index(n) + 1
            self._log(
                f"{folder.parent.name}/{folder.name}: {config.n} responses to each of {len(groups)} prompts in "
                f"{seconds:.1f} s (shard {done} of {len(shards)})"
            )
        responses: dict[str, list[Response]] = {}
        for n in range(len(shards)):
            for response in read_responses(_shard_file(folder, n)):
                responses.setdefault(response.example_id, []).append(response)
        return [(example, responses[example.id]) for example in examples]

    def _load(self, model: str) -> Policy:
        if model not in self.loaded:
            self._unload()
            self.loaded[model] = load_policy(self.params.policy, model)
        return self.loaded[model]

    def _unload(self) -> None:
        """Return the memory of models that are no longer used, also to the GPU."""
        import torch

        self.loaded.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _log(self, message: str) -> None:
        log.info("seed %d, %s", self.seed, message)


def split_examples(
    examples: Iterable[Example], *, seed: int, train: int, heldout: int, per_document: int
) -> tuple[list[Example], list[Example]]:
    """Return examples to train on and held-out ones: of `train` and `heldout` documents in an order by `seed`.

    Of a document, its first `per_document` examples are used. If documents are named `heldout-…`, as those of the
    natural corpus, only these are held out. ConfigError where there are fewer documents.
    """
    by_document: dict[str, list[Example]] = {}
    for example in examples:
        by_document.setdefault(example.document_id, []).append(example)
    order = sorted(by_document, key=lambda document: hashlib.sha256(f"{seed}\0{document}".encode()).digest())
    # The held-out documents come first, so that they stay the same where another number is trained on.
    reserved = [document for document in order if document.startswith(HELD_OUT_PREFIX)]
    for_heldout = (reserved or order)[:heldout]
    for_training = [document for document in order if document not in {*reserved, *for_heldout}][:train]
    if len(for_heldout) < heldout or len(for_training) < train:
        raise ConfigError(
            f"the data has {len(by_document)} documents, {len(reserved)} of them reserved as held out; {train} to "
            f"train on and {heldout} held out are needed: lower these numbers"
        )

    def questions(documents: Iterable[str]) -> list[Example]:
        return [example for document in documents for example in by_document[document][:per_document]]

    return questions(for_training), questions(for_heldout)


def write_split(folder: Path, train: Sequence[Example], heldout: Sequence[Example]) -> None:
    """Write the examples of a seed to its folder."""
    write_examples(folder / "train.jsonl", train)
    write_examples(folder / "heldout.jsonl", heldout)


def score_shard(params: Params, items: Sequence[Sampled], ledger: Path | None) -> list[ScoredResponse]:
    """Score all responses to some prompts; a function of the module, so that other processes can run it."""

    async def score() -> list[ScoredResponse]:
        async with open_judge(params.judge, ledger=ledger) as judge, Scorer(params.score, ledger=ledger) as scorer:
            scored = score_examples(judge, scorer, items)
            return [response async for example in scored for response in example.responses]

    return asyncio.run(score())


def _shards(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _shard_file(folder: Path, number: int) -> Path:
    return folder / f"{number:04}.jsonl"


def _summarize_training(metrics: Mapping[str, float]) -> str:
    names = ("loss", "rewards/accuracies", "rewards/margins")
    return ", ".join(f"{name} {metrics[name]:.3g}" for name in names if name in metrics)


def _summarize_measures(measures: Sequence[AnswerMeasures]) -> str:
    means: dict[tuple[str, str], list[float]] = {}
    for answer in measures:
        for name, value in answer.values.items():
            means.setdefault((name, answer.decoding), []).append(value)
    return ", ".join(f"{name}/{decoding} {fmean(values):.3f}" for (name, decoding), values in means.items())
