"""The answers of the evaluated models and their scores, in shards."""

from collections.abc import Iterable, Sequence
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
from longreward.tasks.score_shards import score_in_shards
from longreward.tasks.stage import StageRun
from longreward.utils.lazy_map import LazyMap, lazy_zip


async def answer_as_model(
    run: StageRun, server: ServerConfig, role: Role, heldout: Sequence[Example], short: Sequence[Example]
) -> tuple[Sequence[list[Response]], list[Response]]:
    """Return a model's answers to each held-out prompt, and its greedy ones to short instructions.

    Those to a held-out prompt are of one decoding after the other. They stay on disk.
    """
    folder = run.state
    if role == "sft":  # its answers are the same for every model that is trained from it
        sections = ("policy", "server", "sample", "evaluate")
        folder = run.shared_state("answers", sections=sections, without=(MODELS["dpo"], Path("data/raw")))
    async with open_policy(run.params.policy, server, MODELS[role], role=role, logs=run.state) as policy:

        async def sample(name: str, prompts: Sequence[Example], *requested: Decoding) -> Sequence[list[Response]]:
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
            return LazyMap(_without_token_ids, sampled.groups)

        heldout_answers = await sample("heldout", heldout, *decodings(run.params.evaluate))
        short_answers = await sample("short", short, Decoding(0.0, 1)) if short else []
        return heldout_answers, [response for group in short_answers for response in group]


def _without_token_ids(group: Sequence[Response]) -> list[Response]:
    # No model is trained on these answers, and their token ids would double the files.
    return [response.model_copy(update={"token_ids": None}) for response in group]


async def score_answers(
    run: StageRun,
    judge: Judge,
    scorer: Scorer,
    role: Role,
    examples: Sequence[Example],
    answers: Sequence[Sequence[Response]],
) -> Iterable[ScoredExample]:
    """Score a model's answers to each held-out prompt with the judge, those of all decodings at once."""
    items = lazy_zip(examples, answers)
    return await score_in_shards(verdict_shards(role), judge, items, run.params.score, scorer=scorer, folder=run.state)


def verdict_shards(role: Role) -> str:
    """Return the name of the shards of `score_answers`."""
    return f"verdicts-{role}"
