"""Checks of everything that answers over a network: judge, embeddings, policy server, Prefect, MLflow, DVC's remote."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from longreward.errors import LongRewardError
from longreward.params import Params
from longreward.tasks.doctor.finding import Finding, failure, note, ok, public_url
from longreward.tasks.doctor.project import RAW_DVC_FILE, default_remote, is_project
from longreward.tasks.dvc_command import dvc
from longreward.tasks.flow_runs import killed_runs
from longreward.utils.endpoints import ProbeResult

if TYPE_CHECKING:  # imported where they are used: a doctor without a judge must start quickly
    from longreward.judge.prompts import PromptSet
    from longreward.judge_validation.window_check import PromptLength

TIMEOUT_S = 20.0
PROMPTS_TIMEOUT_S = 120.0  # a server on a CPU takes that long for long prompts


async def check_servers(params: Params) -> list[Finding]:
    """Check all servers at once, each with one small request; the judge also with its real prompts."""
    checks = (check_judge(params), _check_embeddings(params), _check_policy(params), _check_prefect(), _check_mlflow())
    return [finding for findings in await asyncio.gather(*checks) for finding in findings]


async def check_judge(params: Params) -> list[Finding]:
    from longreward.judge.server_probe import probe

    probes = await probe(params.judge, timeout_s=TIMEOUT_S)
    findings = _probe_findings(
        "judge",
        probes,
        "correct `judge` in params.yaml, or start the server",
        "the server and its settings work, but this model does not follow even a simple format: name another one in "
        "judge.model, or check the server's chat template",
    )
    findings += [note("judge", sentence) for result in probes for sentence in result.advice]
    if all(result.replied for result in probes):
        findings += await _check_judge_prompts(params)
    return findings


async def _check_judge_prompts(params: Params) -> list[Finding]:
    """Check that replies to the real prompts can be parsed: a server that answers may run an unsuitable model."""
    from longreward.judge_validation.format_check import STATEMENT_LIST, check_formats
    from longreward.judge_validation.window_check import check_windows

    judges = [judge for judge, _ in params.judge.judges()]
    if all(judge.kind == "offline" for judge in judges) or any(judge.mode == "batch_files" for judge in judges):
        return []  # the offline judge always follows the formats; batch files have no server
    try:
        prompts = params.score.load_prompts()
        report = await check_formats(
            params.judge, prompts, statements_per_call=params.score.statements_per_call, limit_s=PROMPTS_TIMEOUT_S
        )
        windows = await check_windows(params.judge, _prompt_lengths(params, prompts))
    except LongRewardError:
        return []  # reported with the settings
    readable = ", ".join(check.subject for check in report.checks if check.problem is None)
    cost = f"{report.calls} requests, {report.tokens:,} tokens"
    findings = [note("judge", sentence) for sentence in windows]
    findings += [ok("judge prompts", f"readable: {readable} ({cost})")] if readable else []
    if report.reminders:
        message = f"{report.reminders} of {report.calls} replies were unreadable until a reminder of the format"
        findings.append(note("judge prompts", message, "each costs a further request; a larger model needs fewer"))
    for check in report.checks:
        if check.missing_lines:
            message = f"{check.subject}, {check.judge}: {check.missing_lines} statements have no readable line"
            advice = "each costs a further request; a larger model needs fewer, score.statements_per_call: 1 none"
            findings.append(note("judge prompts", message, advice))
    for check in report.unreadable:
        message = f"{check.subject}, {check.judge}: {check.problem}"
        if check.timed_out:
            advice = "lower judge.max_concurrency or use a faster server; otherwise expect a slow run"
            findings.append(note("judge prompts", message, advice))
        elif not check.replied:
            advice = "the server replies to a small request but not to this prompt: correct what the message names"
            findings.append(failure("judge prompts", message, advice))
        else:
            alternative = "set score.statements_per_call to 1" if check.subject == STATEMENT_LIST else "change them"
            advice = (
                f"the server works, the model does not follow the format; expected: {check.expected}. Use a model in "
                f"judge.model that follows the prompts, or {alternative}"
            )
            findings.append(failure("judge prompts", f"{message} ({cost})", advice))
    return findings


def _prompt_lengths(params: Params, prompts: "PromptSet") -> "list[PromptLength]":
    from longreward.judge_validation.window_check import PromptLength, longest_prompts
    from longreward.pairs.pairwise import longest_prompt

    response_tokens = params.sample.max_new_tokens
    lengths = longest_prompts(prompts, params.score, response_tokens=response_tokens)
    if params.pair.method == "pairwise":
        lengths.append(PromptLength("pairwise", longest_prompt(params.pair.pairwise, response_tokens=response_tokens)))
    return lengths


async def _check_embeddings(params: Params) -> list[Finding]:
    from longreward.retrieval.retriever import probe

    if params.score.retriever.embedding_kind is None:
        return []
    result = await probe(params.score.retriever, timeout_s=TIMEOUT_S)
    return _probe_findings("embeddings", [result], "correct `score.retriever` in params.yaml, or start the server")


async def _check_policy(params: Params) -> list[Finding]:
    from longreward.models.servers import probe_servers

    probes = await probe_servers(params.server, timeout_s=TIMEOUT_S)
    return _probe_findings("policy server", probes, "correct `server` in params.yaml, or start the server")


def _probe_findings(
    subject: str, probes: Sequence[ProbeResult], advice: str, advice_if_replied: str | None = None
) -> list[Finding]:
    """Return a finding for each probe; `advice_if_replied` is the advice on a server whose reply is of no use."""
    return [
        ok(subject, result.message)
        if result.ok
        else failure(subject, result.message, advice_if_replied if result.replied and advice_if_replied else advice)
        for result in probes
    ]


async def _check_prefect() -> list[Finding]:
    """Check the server of Prefect's own settings (environment or profile), and close runs of killed processes."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    from longreward.tasks.prefect_server import PrefectServer, PrefectUnavailable, check_server, prefect_server

    findings = []
    if url := PREFECT_API_URL.value():
        server = PrefectServer(str(url), PREFECT_API_AUTH_STRING.value())
        try:
            await check_server(server)
        except PrefectUnavailable as error:
            message, _, advice = str(error).partition("; ")
            return [failure("prefect", message, advice)]
        findings.append(ok("prefect", f"{public_url(server.url)} answers"))
    else:
        findings.append(ok("prefect", "the project's own server, which is started when a run needs it"))
    if is_project() and killed_runs():
        from longreward.tasks.flow_runs import close_killed_flows

        try:
            server = await asyncio.to_thread(prefect_server)
            with temporary_settings(server.settings):
                closed = await close_killed_flows()
            findings.append(ok("prefect", f"runs of killed processes are closed now: {closed}"))
        except LongRewardError as error:
            findings.append(failure("prefect", str(error), "see the log file that it names"))
    return findings


async def _check_mlflow() -> list[Finding]:
    """Check the store of runs if it is a server or database, and close runs of killed processes."""
    return await asyncio.to_thread(_check_mlflow_store)


def _check_mlflow_store() -> list[Finding]:
    from longreward.tasks.tracking.store import TrackingUnavailable, is_server, probe_store, store_uri

    findings = []
    try:
        uri = store_uri()
        probe_store(uri)
        if is_server(uri):
            findings.append(ok("mlflow", f"{public_url(uri)} answers"))
        if is_project():
            from longreward.tasks.tracking.run_hierarchy import close_killed_runs
            from longreward.tasks.tracking.store import has_experiment

            if closed := close_killed_runs() if has_experiment() else []:
                findings.append(ok("mlflow", f"runs of killed processes are closed now: {', '.join(closed)}"))
    except TrackingUnavailable as error:
        message, _, advice = str(error).rpartition("; ")
        return [failure("mlflow", message or advice, advice)]
    except LongRewardError as error:
        return [failure("mlflow", str(error), "correct MLFLOW_TRACKING_URI")]
    return findings


async def check_remote() -> list[Finding]:
    """Check whether DVC's default remote, if there is one, can be reached; it need not have any data."""
    name, url = default_remote()
    # `dvc status` reports "new" for an HTTP remote even if nothing answers.
    if name is None or url is None or url.startswith("http") or not RAW_DVC_FILE.exists():
        return []
    result = await dvc("status", "--cloud", "--json", "--remote", name, str(RAW_DVC_FILE))
    if result.code == 0:
        return [ok("dvc", f"the remote {name} answers")]
    errors = [line.removeprefix("ERROR: ") for line in result.output.splitlines() if line.startswith("ERROR")]
    message = public_url(errors[0]) if errors else "no answer"
    advice = "install what it names, or check the address and the login: `dvc remote list`"
    return [failure("dvc", f"the remote {name} cannot be used: {message}", advice)]
