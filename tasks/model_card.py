"""The model card of a trained policy: README.md in the format of the Hugging Face hub.

The stage `train` writes it next to the saved model, with what is known then. The stage `evaluate` adds the measures
with their intervals, for the registered model version and as data/evaluation/model_card.md. Neither card has times or
ids of runs: the same data and settings give the same card.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from longreward.params import Params
from longreward.tasks.dvc_files import data_hashes
from longreward.tasks.tracking.run import flatten_params
from longreward.utils.jsonl import open_atomic
from longreward.utils.markdown import markdown_table
from longreward.utils.plurals import pluralize

if TYPE_CHECKING:
    from longreward.evaluation.report import Evaluation

PAIRS = Path("data/pairs")
TITLE = "A long-context policy trained with LongReward"
# Settings that do not decide what a training learns.
OMITTED = {
    *("launcher", "processes", "save_steps", "log_steps", "micro_batch", "reference_batch", "group_by_length"),
    *("gradient_checkpointing", "bf16", "prefix_sharing", "over_window", "token_mismatch", "short"),
}
TRAINING_METRICS = ("steps", "loss", "rewards/accuracies", "rewards/margins")
FRONT_MATTER = "---\n"


def model_card(
    params: Params,
    *,
    training: Mapping[str, float] | None = None,
    evaluation: "Evaluation | None" = None,
    judge: str | None = None,
) -> str:
    """Return the card in Markdown, with the metadata of the hub as front matter.

    Args:
        training: metrics at the end of the training.
        evaluation: the comparison with the SFT model; None: it has not been evaluated.
        judge: the name of the judge of the evaluation.
    """
    lines = [f"# {TITLE}", "", *_description(params)]
    if evaluation is None:
        lines += [
            "",
            "## Evaluation",
            "",
            "`data/evaluation/model_card.md` is this card with the evaluation: publish that",
        ]
        lines += ["one. The stage `evaluate` writes it."]
    else:
        lines += _evaluation(evaluation)
    lines += [*_training(params, training or {}), *_data(params), *_limits(params, evaluation, judge)]
    metadata = yaml.safe_dump(_metadata(params, evaluation), sort_keys=False, allow_unicode=True)
    return f"{FRONT_MATTER}{metadata}{FRONT_MATTER}" + "\n".join(lines) + "\n"


def write_card(file: Path, card: str) -> None:
    """Write the card."""
    with open_atomic(file) as content:
        content.write(card)


def without_metadata(card: str) -> str:
    """Return the card without its front matter, for pages that would show it as text."""
    return card.removeprefix(FRONT_MATTER).partition(FRONT_MATTER)[2]


def _metadata(params: Params, evaluation: "Evaluation | None") -> dict[str, Any]:
    base = _start(params)
    metadata: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if not Path(base).exists():  # the hub accepts only names of its models there
        metadata["base_model"] = base
    metadata["tags"] = ["longreward", "dpo", "trl", "long-context"]
    if evaluation is not None:
        metrics = [
            {"type": name, "value": round(value, 4), "name": name} for name, value in evaluation.metrics("dpo").items()
        ]
        dataset = {"type": "heldout", "name": "held-out documents of the project"}
        result = {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics}
        metadata["model-index"] = [{"name": TITLE, "results": [result]}]
    return metadata


def _start(params: Params) -> str:
    """Return the model that the project starts from."""
    return str(params.policy.sft_model or params.policy.base_model)


def _description(params: Params) -> Iterator[str]:
    kind = "SFT model" if params.policy.sft_model else "base model"
    yield "It answers questions about long documents. An SFT model was trained further with DPO on preference pairs of"
    yield "responses ([LongReward](https://arxiv.org/abs/2410.21252), section 3)."
    yield ""
    yield f"- {kind}: `{_start(params)}`"
    yield f"- pair method: `{params.pair.method}`"


def _training(params: Params, metrics: Mapping[str, float]) -> Iterator[str]:
    yield from ("", "## Training")
    sections = {"train": params.train} if params.policy.sft_model else {"sft": params.sft, "train": params.train}
    for name, settings in sections.items():
        values = {key: value for key, value in settings.model_dump(mode="json").items() if key not in OMITTED}
        rows = ((key, f"`{value}`") for key, value in flatten_params(values) if value not in ("None", ""))
        yield from ("", f"Settings of `{name}`:", "", *markdown_table(("setting", "value"), rows))
    if figures := [f"{name} {metrics[name]:.4g}" for name in TRAINING_METRICS if name in metrics]:
        yield from ("", f"At the end of the training: {', '.join(figures)}.")


def _data(params: Params) -> Iterator[str]:
    hashes = data_hashes([PAIRS, Path("data/prepared")])
    yield from ("", "## Data", "")
    rows = ((f"`{path}`", f"`{hash_}`") for path, hash_ in hashes.items())
    yield from markdown_table(("data", "DVC hash"), rows)
    yield from ("", f"The pairs were scored by a judge of the kind `{params.judge.kind}`.")


def _evaluation(evaluation: "Evaluation") -> Iterator[str]:
    from longreward.evaluation.report import CHANGE_HEADER, change_cells

    yield from ("", "## Evaluation", "", f"Against its SFT model, on held-out documents. {evaluation.sentence}", "")
    rows = [change_cells(row) for row in evaluation.rows if " against " not in row.comparison]
    yield from markdown_table(("decoding", "measure", "SFT", "DPO", *CHANGE_HEADER, ""), rows)


def _limits(params: Params, evaluation: "Evaluation | None", judge: str | None) -> Iterator[str]:
    yield from ("", "## Limits", "")
    yield f"- The licence and the limits of `{_start(params)}` apply to this model as well."
    if params.judge.kind == "offline":
        yield "- A rule-based judge, which compares words and numbers, scored its pairs: use it for tests alone."
    if evaluation is not None:
        documents = max((row.difference.documents for row in evaluation.rows), default=0)
        yield f"- The measures are of {pluralize(documents, 'held-out document')} from the source of the training data."
        name = judge or params.judge.display_name
        yield f"- Reward and dimensions are scores of `{name}`, as those that made the pairs: a gain in them alone does"
        yield "  not show better answers. Gold measures and lengths do not depend on a judge."
    yield "- The reward was designed for questions about one long document in English or Chinese."
