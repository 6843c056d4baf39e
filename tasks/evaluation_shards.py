"""The answers of the evaluated models and their scores, in shards."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

from longreward.evaluation.comparison import decodings
from longreward.evaluation.measures import Decoding
from longreward.judge import Judge
from longreward.models.server_config import ServerConfig
from longreward.records import Example, Response, Role
from longreward.reward import ScoredExample, Scorer
from longreward.tasks.evaluation_records import MODELS
from longreward.tasks.policy_server import open_policy
from longreward.tasks.sample_shards import sample_in_shards
from longreward.tasks.score_shards import ScoringItem, score_in_shards
from longreward.tasks.stage import StageRun
from longreward.utils.lazy_map import LazyMap


async def answer_as_model(
    run: StageRun, server: ServerConfig, role: Role, heldout: Sequence[Example], short: Sequence[Example]
) -> tuple[dict[Decoding, Sequence[list[Response]]], list[Response]]:
    """Return a model's answers to each held-out prompt at each decoding, and its greedy ones to short instructions.

    Those to held-out prompts stay on disk.
    """
    folder = run.state
    if role == "sft":  # its answers are the same for every model that is trained from it
        sections = ("policy", "server", "sample", "evaluate")
        folder = run.shared_state("answers", sections=sections, without=(MODELS["dpo"], Path("data/raw")))
    async with open_policy(run.params.policy, server, MODELS[role], role=role, logs=run.state) as policy:

        async def sample(name: str, prompts: Sequence[Example], *requested: Decoding) -> list[Sequence[list[Response]]]:
            """Return the groups of responses for each decoding."""
            configs = [
                run.params.sample.model_copy(
                    update={
                        "n": decoding.samples,
                        "temperature": decoding.temperature,
                        "seed": run.params.evaluate.seed,
                    }
                )
                for decoding in requested
            ]
            sampled = await sample_in_shards(f"answers-{role}-{name}", policy, prompts, *configs, folder=folder)
            ends = accumulate(config.n for config in configs)
            return [
                LazyMap(partial(_select_responses, part=slice(end - config.n, end)), sampled.groups)
                for config, end in zip(configs, ends, strict=True)
            ]

        heldout_decodings = decodings(run.params.evaluate)
        heldout_answers = dict(
            zip(heldout_decodings, await sample("heldout", heldout, *heldout_decodings), strict=True)
        )
        [short_answers] = await sample("short", short, Decoding(0.0, 1)) if short else [[]]
        return heldout_answers, [response for group in short_answers for response in group]


def _select_responses(group: Sequence[Response], *, part: slice) -> list[Response]:
    # No model is trained on these answers, and their token ids would double the files.
    return [response.model_copy(update={"token_ids": None}) for response in group[part]]


async def score_answers(
    run: StageRun,
    judge: Judge,
    scorer: Scorer,
    name: str,
    examples: Sequence[Example],
    answers: Sequence[Sequence[Response]],
) -> Iterable[ScoredExample]:
    """Score the answers to each held-out prompt with the judge."""

    def pair(example: Example, group: Sequence[Response]) -> ScoringItem:
        return example, group

    items = LazyMap(pair, examples, answers)
    return await score_in_shards(f"verdicts-{name}", judge, items, run.params.score, scorer=scorer, folder=run.state)
