"""Checks before a run: settings, files and keys that stages need, tested before hours are spent on earlier stages.

    check_ready(params, ["prepare", "sft", …])    # raises a ConfigError that lists every problem

Only settings, files and the environment are read; no model is loaded and no request is sent. `longreward doctor` tests
servers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from longreward.benchmarks.suite import judge_config, open_benchmarks
from longreward.data.file_source import find_files
from longreward.data.hub_source import SCHEME, HubConfig
from longreward.data.source import SYNTHESIZED
from longreward.errors import ConfigError, LongRewardError
from longreward.evaluation.config import GOLD_MEASURES
from longreward.judge.server_probe import check_keys
from longreward.models.compatibility import check_device_settings
from longreward.models.config import PolicyConfig, read_chat_template
from longreward.models.model_ref import check_pointer, pretrained_kwargs
from longreward.models.servers import check_server
from longreward.params import Params, check_workers_installed
from longreward.retrieval.config import check_key
from longreward.synthesis.documents import find_documents
from longreward.training.launch.launcher import check_launcher
from longreward.utils.token_spans import HUB_ID, open_tokenizer

# Stages by what they use: the policy's weights (loaded or at a server), a policy server, workers, the model of `sft`.
MODEL_STAGES = frozenset({"sft", "sample", "train", "evaluate", "benchmark"})
SERVED_STAGES = frozenset({"sample", "evaluate", "benchmark"})
SHARDED_STAGES = frozenset({"sample", "score"})
AFTER_SFT_STAGES = MODEL_STAGES - {"sft"}

Check = Callable[[], object]


def check_ready(params: Params, stages: Sequence[str]) -> None:
    """Raise ConfigError, with one line per problem, if one of `stages` would fail for lack of a key, file or setting.

    Paths are relative to the working directory. Only `stages`, which are about to run, are checked.
    """
    problems = []
    for check in _select_checks(params, frozenset(stages)):
        try:
            check()
        except LongRewardError as error:
            problems.append(str(error).replace("\n", "\n    "))
    if problems:
        listed = "\n".join(f"  {problem}" for problem in dict.fromkeys(problems))
        raise ConfigError(f"not ready to run {', '.join(stages)}:\n{listed}")


def _select_checks(params: Params, stages: frozenset[str]) -> list[Check]:
    policy, prepare, score = params.policy, params.prepare, params.score
    synthesizes = "synthesize" in stages and params.synthesize.documents is not None
    trains_sft = "sft" in stages and policy.sft_model is None
    judge_stages = {"evaluate"}
    if score.strategy != "none" and params.pair.method != "given":
        judge_stages.add("score")
    if params.pair.method == "pairwise":
        judge_stages.add("pair")
    judges = synthesizes or stages & judge_stages
    has_own_prompts = score.prompts_dir is not None or score.prompts_manifest is not None
    checks: list[tuple[object, Check]] = [
        (synthesizes, lambda: find_documents(Path(), params.synthesize.documents or "")),
        (synthesizes, lambda: check_keys(params.synthesize.writer_config(params.judge))),
        ("prepare" in stages, lambda: _check_prompt_source(params, synthesizing="synthesize" in stages)),
        ("prepare" in stages, lambda: _check_source("prepare.pairs", prepare.pairs.source, prepare.pairs.hub)),
        (stages & {"prepare", "sft"}, lambda: _check_model(policy)),
        (trains_sft, lambda: _check_sft_split(params)),
        ("sft" not in stages and stages & AFTER_SFT_STAGES, lambda: check_pointer(Path("models/sft"))),
        (stages & (MODEL_STAGES | {"prepare"}), lambda: read_chat_template(policy)),
        (stages & MODEL_STAGES, lambda: check_device_settings(policy)),
        (trains_sft, lambda: _check_training(params, "sft")),
        ("train" in stages, lambda: _check_training(params, "train")),
        (stages & SERVED_STAGES, lambda: check_server(params.server)),
        (judges, lambda: check_keys(params.judge)),
        (judges, lambda: check_key(score.retriever)),
        (judges and has_own_prompts, score.load_prompts),
        (judges, lambda: _check_tokenizer(score.tokenizer)),
        (stages & SHARDED_STAGES, lambda: check_workers_installed(params.workers)),
        ("pair" in stages and params.pair.method == "srm", lambda: _check_reward_model(params)),
        ("evaluate" in stages, lambda: _check_champion(params)),
        ("evaluate" in stages, lambda: _check_gold(params)),
        ("benchmark" in stages, lambda: _check_benchmarks(params)),
    ]
    return [check for condition, check in checks if condition]


@contextmanager
def _error_prefix(key: str) -> Iterator[None]:
    """Put the setting `key` before the message of an error."""
    try:
        yield
    except LongRewardError as error:
        raise ConfigError(f"{key}: {error}") from error


def _check_prompt_source(params: Params, *, synthesizing: bool) -> None:
    source, documents = params.prepare.source, params.synthesize.documents
    if Path(source).is_relative_to(SYNTHESIZED):
        if documents is None:
            raise ConfigError(
                f"prepare.source is {source}, which `synthesize` creates: set synthesize.documents to your files, such "
                "as data/raw/documents"
            )
        if synthesizing:
            return  # the file does not exist yet
    elif documents is not None and synthesizing:
        raise ConfigError(
            f"synthesize.documents is {documents}, and prepare.source is {source}, so the created questions would not "
            f"be read: set prepare.source to {SYNTHESIZED}/questions.jsonl, or synthesize.documents to null"
        )
    _check_source("prepare", source, params.prepare.hub)


def _check_source(section: str, source: str | None, hub: HubConfig) -> None:
    if source is None:
        return
    if not source.startswith(SCHEME):
        with _error_prefix(f"{section}.source"):
            find_files(Path(), source)
    elif not Path(source.removeprefix(SCHEME)).is_dir() and hub.revision is None:
        raise ConfigError(f"{section}.source is {source}: set {section}.hub.revision, the commit of the data set")


def _check_model(policy: PolicyConfig) -> None:
    with _error_prefix("policy.sft_model" if policy.sft_model else "policy.base_model"):
        pretrained_kwargs(policy, policy.sft_model or policy.base_model)


def _check_sft_split(params: Params) -> None:
    if "sft" not in params.prepare.expected_splits:
        raise ConfigError(
            "prepare.preference_share and prepare.heldout_share leave no document to sft: lower them, or name a "
            "fine-tuned model in policy.sft_model"
        )


def _check_training(params: Params, stage: str) -> None:
    training, policy = params.sft if stage == "sft" else params.train, params.policy
    if policy.dtype == "float16" and training.lora is None:
        raise ConfigError(
            "policy.dtype: full training in float16 is impossible, because updates as small as "
            f"{stage}.learning_rate vanish; set it to auto (float32), or set {stage}.lora"
        )
    with _error_prefix(stage):
        check_launcher(training, policy)


def _check_tokenizer(name: str) -> None:
    # A hub id is not checked, because that would need the network.
    if name != "simple" and (Path(name).exists() or not HUB_ID.fullmatch(name)):
        open_tokenizer(name)


def _check_reward_model(params: Params) -> None:
    srm = params.pair.srm
    key, name = ("pair.srm.tiny.base", srm.tiny.base) if srm.model is None else ("pair.srm.model", srm.model)
    with _error_prefix(key):
        pretrained_kwargs(PolicyConfig(base_model=name), name)


def _check_champion(params: Params) -> None:
    evaluate, champion = params.evaluate, params.evaluate.champion
    if champion.temperature not in evaluate.temperatures:
        temperatures = ", ".join(f"{temperature:g}" for temperature in evaluate.temperatures)
        raise ConfigError(
            f"evaluate.champion.temperature ({champion.temperature:g}) is none of evaluate.temperatures "
            f"({temperatures}), at which the models are compared"
        )
    if champion.measure in GOLD_MEASURES and evaluate.gold is None:
        raise ConfigError(
            f"evaluate.champion.measure is {champion.measure}, which needs evaluate.gold; set it to a file, or set the "
            "measure to reward"
        )
    if champion.measure == "short" and (evaluate.short.source is None or champion.temperature > 0):
        raise ConfigError(
            "evaluate.champion.measure is short, which needs evaluate.short.source, and a temperature of 0: short "
            "instructions are answered greedily"
        )


def _check_gold(params: Params) -> None:
    gold = params.evaluate.gold
    if gold is not None and not Path(gold).is_file():
        raise ConfigError(f"evaluate.gold: there is no file {gold}; set it to null if the data has no gold facts")


def _check_benchmarks(params: Params) -> None:
    for benchmark in open_benchmarks(params.benchmark):
        check_keys(judge_config(params.benchmark, params.judge, benchmark.judge_options))
