"""The answers of the evaluated models and their scores, in shards."""

from collections.abc import Iterable, Sequence
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
from longreward.tasks.score_shards import AnsweredExamples, score_in_shards
from longreward.tasks.stage import StageRun


async def answer_as_model(
    run: StageRun, server: ServerConfig, role: Role, heldout: Sequence[Example], short: Sequence[Example]
) -> tuple[dict[Decoding, list[list[Response]]], list[Response]]:
    """Return a model's answers to each held-out prompt at each decoding, and its greedy ones to short instructions."""
    folder = run.state
    if role == "sft":  # its answers are the same for every model that is trained from it
        sections = ("policy", "server", "sample", "evaluate")
        folder = run.shared_state("answers", sections=sections, without=(MODELS["dpo"], Path("data/raw")))
    async with open_policy(run.params.policy, server, MODELS[role], role=role, logs=run.state) as policy:

        async def sample(name: str, prompts: Sequence[Example], *requested: Decoding) -> list[list[list[Response]]]:
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
            # No model is trained on these answers, and their token ids would double the files.
            groups = [
                [response.model_copy(update={"token_ids": None}) for response in group] for group in sampled.groups
            ]
            ends = accumulate(config.n for config in configs)
            return [
                [group[end - config.n : end] for group in groups] for config, end in zip(configs, ends, strict=True)
            ]

        heldout_decodings = decodings(run.params.evaluate)
        heldout_answers = dict(
            zip(heldout_decodings, await sample("heldout", heldout, *heldout_decodings), strict=True)
        )
        [short_answers] = await sample("short", short, Decoding(0.0, 1)) if short else [[]]
        return heldout_answers, [response for group in short_answers for response in group]


async def score_answers(
    run: StageRun,
    judge: Judge,
    scorer: Scorer,
    name: str,
    examples: Sequence[Example],
    answers: Sequence[Sequence[Response]],
) -> Iterable[ScoredExample]:
    """Score the answers to each held-out prompt with the judge."""
    items = AnsweredExamples(examples, answers)
    return await score_in_shards(f"verdicts-{name}", judge, items, run.params.score, scorer=scorer, folder=run.state)
