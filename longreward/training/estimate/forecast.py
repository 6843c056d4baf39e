"""What a training will need, told before its weights are loaded: memory on each device, and the tokens of a step.

A prediction is no proof. So a training is refused where weights, gradients, optimiser and one layer's share of what is
kept are more than the whole device has; where the full sum is more than what is free now, a warning says so.
"""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

from longreward.errors import PolicyError
from longreward.training.config import LoraSettings, TrainingSettings
from longreward.training.estimate.flops import Pair, StepFlops
from longreward.training.estimate.memory import GB, Device, Memory, reference_memory, step_memory
from longreward.training.estimate.meta_step import ModelSpec, Parts, reason_against_sharing, trace_meta_step


@dataclass(frozen=True)
class TrainingShape:
    """The part of the settings that a forecast looks at."""

    settings: TrainingSettings
    processes: int = 1
    sharded: bool = True  # FSDP or ZeRO-3: each process holds its part of the model
    share: bool = False  # prefix sharing
    reference_batch: int | None = None  # of DPO


@dataclass(frozen=True)
class Forecast:
    """What was found. Time is measured later, by the training itself (time_estimate.py)."""

    asked: TrainingShape
    device: Device
    load: StepFlops
    parts: Parts
    step: Memory
    reference: Memory | None
    steps: int

    @property
    def peak(self) -> float:
        """Bytes on each device, of the step or of the reference's pass before."""
        return max(self.step.total, self.reference.total if self.reference else 0.0)

    def figures(self) -> dict[str, float]:
        """For logs and JSON: bytes, tokens, steps."""
        return {
            "peak_bytes": self.peak,
            "certain_bytes": self.step.certain,
            "tokens_per_row": self.load.tokens(),
            "steps": self.steps,
        }


def forecast(plan: ModelSpec, pairs: tuple[Pair, ...], asked: TrainingShape, device: Device) -> Forecast:
    """Rehearses the longest rows; see `Forecast`. PolicyError for an adapter that does not fit the model."""
    preference = asked.reference_batch is not None
    load = StepFlops(pairs, preference, asked.share and preference, every_position=not device.cuda)
    micro, bf16 = asked.settings.micro_batch, asked.settings.bf16 is True
    rehearsed = trace_meta_step(plan, load.batch(micro))
    processes = asked.processes if asked.sharded else 1
    step = step_memory(rehearsed, scored=load.scored(micro), bf16=bf16, cuda=device.cuda, processes=processes)
    reference = None
    if asked.reference_batch is not None and asked.reference_batch > micro:
        many = asked.reference_batch
        passed = trace_meta_step(replace(plan, lora=None), load.batch(many), gradients=False)
        reference = reference_memory(passed, scored=load.scored(many), bf16=bf16, cuda=device.cuda)
    rows = asked.settings.batch_size
    return Forecast(
        asked=asked,
        device=device,
        load=load,
        parts=rehearsed.parts,
        step=step,
        reference=reference,
        steps=asked.settings.max_steps or math.ceil(asked.settings.epochs * math.ceil(len(pairs) / rows)),
    )


def check_fits(plan: ModelSpec, found: Forecast) -> None:
    """PolicyError where even the certain part is more than the device has, with what would make it fit."""
    if found.step.certain <= found.device.total:
        return
    advice = "\n".join(f"  {line}" for line in _advice(plan, found))
    raise PolicyError(
        f"this training cannot fit: weights, gradients, AdamW and one layer take {_gb(found.step.certain)}, and "
        f"{found.device.name} has {_gb(found.device.total)} (the whole step is predicted at {_gb(found.peak)}). "
        f"Predicted with\n{advice}"
    )


def _advice(plan: ModelSpec, found: Forecast) -> Iterator[str]:
    """Each change alone, then with all before it, with its own figure."""
    settings, every = found.asked.settings, plan
    asked = found.asked

    def line(what: str, memory: float) -> str:
        fits = "fits" if memory <= found.device.total else "does not fit"
        return f"{what}: {_gb(memory)}, {fits}"

    def again(changed: ModelSpec, as_asked: TrainingShape) -> Forecast:
        return forecast(changed, found.load.pairs, as_asked, found.device)

    if settings.lora is None:
        every = replace(every, lora=LoraSettings(), dtype="bfloat16")
        yield line("lora: {r: 16} and policy.dtype: bfloat16", again(every, asked).peak)
    if not settings.gradient_checkpointing:
        yield line("gradient_checkpointing: true", again(replace(plan, checkpointing=True), asked).peak)
        every = replace(every, checkpointing=True)
    if settings.micro_batch > 1:
        asked = replace(asked, settings=settings.model_copy(update={"micro_batch": 1}))
        yield line("micro_batch: 1", again(plan, asked).peak)
    if every != plan:
        together = again(every, asked)
        yield line("all of these", together.peak)
    yield line("weights, gradients and AdamW offloaded to the machine's memory", found.step.offloaded)
    if found.device.cuda:
        for processes in (2, 4, 8):
            if processes > found.asked.processes:
                sharded = replace(found.asked, processes=processes, sharded=True)
                yield line(f"launcher: accelerate, {processes} such devices (fsdp2)", again(plan, sharded).peak)


def lines(found: Forecast) -> Iterator[str]:
    """The forecast as people read it."""
    yield from _lengths(found.load)
    settings = found.asked.settings
    yield f"a step: {settings.batch_size} rows, {found.load.tokens() * settings.batch_size:,.0f} tokens to compute"
    if found.load.preference:
        alone = replace(found.load, share=False).tokens()
        shared = replace(found.load, share=True).tokens()
        state = "on" if found.load.share else "off"
        yield f"  prefix sharing is {state}: {shared:,.0f} tokens a pair with it, {alone:,.0f} without"
    total = f"{found.device.name}, {_gb(found.device.total)}, {_gb(found.device.free)} free"
    each = f" on each of {found.asked.processes}" if found.asked.processes > 1 else ""
    yield f"peak memory: {_gb(found.peak)}{each} ({total})"
    for term in found.step.terms:
        yield f"  {_gb(term.bytes):>10}  {term.name}: {term.formula}"
    if found.reference is not None and found.reference.total > found.step.total:
        yield f"  but the reference's pass, with reference_batch {found.asked.reference_batch}: {_gb(found.peak)}"
        for term in found.reference.terms:
            yield f"  {_gb(term.bytes):>10}  {term.name}: {term.formula}"
    yield f"{found.steps:,} steps; their time is measured when the training starts"


def _lengths(load: StepFlops) -> Iterator[str]:
    yield f"{len(load.pairs):,} {'pairs' if load.preference else 'examples'}"
    columns = ("prompt", "chosen", "rejected") if load.preference else ("prompt", "answer")
    for at, name in enumerate(columns):
        values = sorted(pair[at] for pair in load.pairs)
        p95 = values[math.ceil(0.95 * len(values)) - 1]
        yield f"  {name:<9} median {statistics.median(values):,.0f}, p95 {p95:,}, longest {values[-1]:,}"


def _gb(size: float) -> str:
    return f"{size / GB:,.1f} GB"


__all__ = ["Forecast", "TrainingShape", "check_fits", "forecast", "lines", "reason_against_sharing"]
