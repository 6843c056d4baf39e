"""What later stages need, looked at before hours are spent on the earlier ones.

    check_ready(params, ["prepare", "sft", …])    # ConfigError: all that is missing, one line each

No model is loaded and nobody is called: settings, files and the environment only. What needs the network is asked by
`longreward doctor`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from longreward.data.hub_source import HubConfig
from longreward.errors import ConfigError, DataError, LongRewardError, PolicyError
from longreward.evaluation.config import GOLD_MEASURES
from longreward.models.config import PolicyConfig
from longreward.params import Params, check_workers_installed

MODEL_STAGES = frozenset({"sft", "sample", "train", "evaluate", "benchmark"})  # that load or serve the policy's weights
JUDGE_STAGES = frozenset({"score", "evaluate"})
SERVED_STAGES = frozenset({"sample", "evaluate", "benchmark"})
SHARDED_STAGES = frozenset({"sample", "score"})  # that workers can do
TRAINED_STAGES = frozenset({"sample", "train", "evaluate", "benchmark"})  # that start from what `sft` left


def check_ready(params: Params, stages: Sequence[str]) -> None:
    """Raises ConfigError where one of `stages` would fail for want of a key, a file or a setting that fits.

    Paths are relative to the working directory, as everywhere. `stages` are those that are going to run: what only
    others need is not looked at.
    """
    problems = []
    for check in _checks(params, frozenset(stages)):
        try:
            check()
        except LongRewardError as error:
            problems.append(str(error).replace("\n", "\n    "))
    if problems:
        listed = "\n".join(f"  {problem}" for problem in dict.fromkeys(problems))
        raise ConfigError(f"not ready to run {', '.join(stages)}:\n{listed}")


def _checks(params: Params, stages: frozenset[str]) -> Iterator[Callable[[], None]]:
    """What `stages` need, in their order; each check raises for one matter."""
    synthesizes = "synthesize" in stages and params.synthesize.documents is not None
    if synthesizes:
        yield partial(_check_documents, params)
    if "prepare" in stages:
        yield partial(_check_source, params, made="synthesize" in stages)
        yield partial(_check_pairs_source, params)
    if stages & {"prepare", "sft"}:
        yield partial(_check_model, params)
    if "sft" in stages:
        yield partial(_check_sft_split, params)
    elif stages & TRAINED_STAGES:
        yield _check_pointer
    if stages & (MODEL_STAGES | {"prepare"}):
        yield partial(_check_template, params.policy)
    if stages & MODEL_STAGES:
        yield partial(_check_placing, params.policy)
    for name in ("sft", "train"):
        if name in stages and not (name == "sft" and params.policy.sft_model):
            yield partial(_check_training, params, name)
            yield partial(_check_launcher, params, name)
    if stages & SERVED_STAGES:
        yield partial(_check_server, params)
        yield partial(_check_room, params)
    if stages & _judged(params) or synthesizes:
        yield partial(_check_judge, params)
        yield partial(_check_retriever, params)
        yield partial(_check_prompts, params)
        yield partial(_check_tokenizer, params)
    if stages & SHARDED_STAGES:
        yield partial(check_workers_installed, params.workers)
    if "pair" in stages:
        yield partial(_check_pairing, params)
        yield partial(_check_reward_model, params)
    if "evaluate" in stages:
        yield partial(_check_champion, params)
        yield partial(_check_gold, params)
    if "benchmark" in stages:
        yield partial(_check_benchmarks, params)


def _check_documents(params: Params) -> None:
    """The files are there and can be read, and their writer has a key."""
    from longreward.judge.server_probe import check_keys
    from longreward.synthesis.documents import find_documents

    find_documents(Path(), params.synthesize.documents or "")
    check_keys(params.synthesize.writer_of(params.judge))


def _judged(params: Params) -> frozenset[str]:
    """The stages that ask the judge."""
    without = {"score"} if params.score.strategy == "none" or params.pair.method == "given" else frozenset()
    return JUDGE_STAGES - without | ({"pair"} if params.pair.method == "pairwise" else frozenset())


def _check_source(params: Params, *, made: bool) -> None:
    """The raw records are there, or will be: `made` says whether `synthesize` is going to run."""
    from longreward.data.source import SYNTHESIZED

    source, hub = params.prepare.source, params.prepare.hub
    documents = params.synthesize.documents
    if Path(source).is_relative_to(SYNTHESIZED):
        if documents is None:
            raise ConfigError(
                f"prepare.source is {source}, which `synthesize` makes: set synthesize.documents to your files, such "
                "as data/raw/documents"
            )
        if made:
            return
    elif documents is not None and made:
        raise ConfigError(
            f"synthesize.documents is {documents}, and prepare.source is {source}, so that nothing would read what is "
            f"made: set prepare.source to {SYNTHESIZED}/questions.jsonl, or synthesize.documents to null"
        )
    _check_found("prepare", source, hub)


def _check_pairs_source(params: Params) -> None:
    pairs = params.prepare.pairs
    if pairs.source is not None:
        _check_found("prepare.pairs", pairs.source, pairs.hub)


def _check_found(section: str, source: str, hub: HubConfig) -> None:
    """The files of a source are there, or its commit on the hub is named."""
    from longreward.data.file_source import find_files
    from longreward.data.hub_source import SCHEME

    if not source.startswith(SCHEME):
        try:
            find_files(Path(), source)
        except DataError as error:
            raise ConfigError(f"{section}.source: {error}") from error
    elif not Path(source.removeprefix(SCHEME)).is_dir() and hub.revision is None:
        raise ConfigError(f"{section}.source is {source}: set {section}.hub.revision, the commit of the data set")


def _check_model(params: Params) -> None:
    from longreward.models.model_ref import pretrained_kwargs

    policy = params.policy
    key = "sft_model" if policy.sft_model else "base_model"
    try:
        pretrained_kwargs(policy, policy.sft_model or policy.base_model)
    except PolicyError as error:
        raise ConfigError(f"policy.{key}: {error}") from error


def _check_sft_split(params: Params) -> None:
    prepare = params.prepare
    if params.policy.sft_model is None and prepare.preference_share + prepare.heldout_share >= 1:
        raise ConfigError(
            "prepare.preference_share and prepare.heldout_share leave no document to sft: lower them, or name a "
            "fine-tuned model in policy.sft_model"
        )


def _check_pointer() -> None:
    from longreward.models.model_ref import check_pointer

    check_pointer(Path("models/sft"))


def _check_template(policy: PolicyConfig) -> None:
    from longreward.models.config import read_chat_template

    read_chat_template(policy)


def _check_placing(policy: PolicyConfig) -> None:
    from longreward.models.compatibility import check_attention

    if policy.device_map is not None and policy.device != "auto":
        raise ConfigError(
            f"policy.device ({policy.device}) and policy.device_map both say where the model goes: leave device at auto"
        )
    if policy.attention == "flash_attention_2" and (policy.dtype == "float32" or policy.device == "cpu"):
        raise ConfigError(
            "policy.attention: flash_attention_2 works on GPUs and on 16-bit numbers; set policy.dtype to bfloat16 and "
            "policy.device to cuda, or attention to sdpa"
        )
    check_attention(policy)


def _check_training(params: Params, stage: str) -> None:
    settings, policy = params.sft if stage == "sft" else params.train, params.policy
    if policy.window and settings.max_length and settings.max_length > policy.window:
        raise ConfigError(
            f"{stage}.max_length ({settings.max_length:,}) is more than policy.window ({policy.window:,})"
        )
    if policy.dtype == "float16" and settings.lora is None:
        raise ConfigError(
            f"policy.dtype: float16 weights cannot all be trained, updates as small as {stage}.learning_rate vanish; "
            f"set it to auto (float32), or set {stage}.lora"
        )


def _check_launcher(params: Params, stage: str) -> None:
    from longreward.training.launch.launcher import check_launcher

    try:
        check_launcher(params.sft if stage == "sft" else params.train, params.policy)
    except ConfigError as error:
        raise ConfigError(f"{stage}: {error}") from error


def _check_server(params: Params) -> None:
    from longreward.models.servers import check_server

    check_server(params.server)


def _check_room(params: Params) -> None:
    window, answer = params.policy.window, params.sample.max_new_tokens
    if window and answer >= window:
        raise ConfigError(
            f"sample.max_new_tokens ({answer:,}) leaves no room for a prompt in policy.window ({window:,})"
        )


def _check_judge(params: Params) -> None:
    from longreward.judge.server_probe import check_keys

    check_keys(params.judge)


def _check_benchmarks(params: Params) -> None:
    """Every benchmark's files can be read, and its judge has a key."""
    from longreward.benchmarks.config import judge_config
    from longreward.benchmarks.registry import open_benchmarks
    from longreward.judge.server_probe import check_keys

    for one in open_benchmarks(params.benchmark):
        check_keys(judge_config(params.benchmark, params.judge, one.judging))


def _check_retriever(params: Params) -> None:
    from longreward.retrieval.config import check_key

    check_key(params.score.retriever)


def _check_prompts(params: Params) -> None:
    from longreward.judge.prompts import load_prompts

    score = params.score
    if score.prompts_dir is not None or score.prompts_manifest is not None:
        load_prompts(score.prompts_dir, score.prompts_manifest)


def _check_tokenizer(params: Params) -> None:
    from longreward.utils.token_spans import HUB_ID, open_tokenizer

    name = params.score.tokenizer
    if name != "simple" and (Path(name).exists() or not HUB_ID.fullmatch(name)):
        open_tokenizer(name)


def _check_pairing(params: Params) -> None:
    if params.pair.method in ("contrast", "given"):  # one response will do, or none
        return
    if params.prepare.responses is None and params.sample.n < params.pair.min_scored:
        raise ConfigError(
            f"sample.n ({params.sample.n}) is less than pair.min_scored ({params.pair.min_scored}): no prompt could "
            "give a pair"
        )


def _check_reward_model(params: Params) -> None:
    from longreward.models.model_ref import pretrained_kwargs

    srm = params.pair.srm
    if params.pair.method != "srm":
        return
    key, name = ("pair.srm.tiny.base", srm.tiny.base) if srm.model is None else ("pair.srm.model", srm.model)
    try:
        pretrained_kwargs(PolicyConfig(base_model=name), name)
    except PolicyError as error:
        raise ConfigError(f"{key}: {error}") from error


def _check_champion(params: Params) -> None:
    evaluate = params.evaluate
    if evaluate.champion.temperature not in evaluate.temperatures:
        raise ConfigError(
            f"evaluate.champion.temperature ({evaluate.champion.temperature:g}) is none of evaluate.temperatures "
            f"({', '.join(f'{one:g}' for one in evaluate.temperatures)}): the two models are not compared there"
        )
    if evaluate.champion.measure in GOLD_MEASURES and evaluate.gold is None:
        raise ConfigError(
            f"evaluate.champion.measure is {evaluate.champion.measure}, which needs evaluate.gold; name the file, or "
            "let the reward decide"
        )
    if evaluate.champion.measure == "short" and (evaluate.short.source is None or evaluate.champion.temperature > 0):
        raise ConfigError(
            "evaluate.champion.measure is short, which needs evaluate.short.source, and a temperature of 0: short "
            "instructions are answered greedily"
        )


def _check_gold(params: Params) -> None:
    gold = params.evaluate.gold
    if gold is not None and not Path(gold).is_file():
        raise ConfigError(f"evaluate.gold: there is no file {gold}; set it to null where the data has no gold facts")
