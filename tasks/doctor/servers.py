"""What answers over a network: judge, embeddings, policy server, Prefect, MLflow."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from longreward.errors import LongRewardError
from longreward.params import Params
from longreward.tasks.doctor.finding import Finding, bad, good, note, shown
from longreward.tasks.doctor.project import default_remote, is_project
from longreward.tasks.dvc_command import RAW, dvc
from longreward.tasks.flow_runs import killed_runs

LIMIT_S = 20.0
PROMPTS_LIMIT_S = 120.0  # a server on a CPU reads long prompts for that long


class _Probed(Protocol):
    @property
    def ok(self) -> bool: ...
    @property
    def message(self) -> str: ...


async def check_servers(params: Params) -> list[Finding]:
    """Asks them all at once and waits for the slowest: one tiny question each, and the judge its real prompts too."""
    asked = (_judge(params), _embeddings(params), _policy(params), _prefect(), _mlflow())
    return [finding for group in await asyncio.gather(*asked) for finding in group]


async def _judge(params: Params) -> list[Finding]:
    from longreward.judge.server_probe import probe

    found = await probe(params.judge, timeout_s=LIMIT_S)
    advice = [note("judge", sentence) for one in found for sentence in one.advice]
    findings = _findings("judge", found, "mend `judge` in params.yaml, or start the server") + advice
    if all(one.ok for one in found):
        findings += await _judge_prompts(params)
    return findings


async def _judge_prompts(params: Params) -> list[Finding]:
    """Whether the judge answers the real prompts in a form that can be read: a server that answers may not."""
    from longreward.judge.prompts import load_prompts
    from longreward.judge_validation.format_check import check_formats

    if any(judge.kind == "offline" or judge.mode == "batch_files" for judge, _ in params.judge.judges()):
        return []  # the one always keeps to the formats, the other has no server to ask
    try:
        prompts = load_prompts(params.score.prompts_dir, params.score.prompts_manifest)
        report = await check_formats(params.judge, prompts, limit_s=PROMPTS_LIMIT_S)
    except LongRewardError:
        return []  # said where settings are looked at
    readable = ", ".join(check.dimension for check in report.checks if check.problem is None)
    cost = f"{report.calls} questions, {report.tokens:,} tokens"
    findings = [good("judge prompts", f"readable: {readable} ({cost})")] if readable else []
    for check in report.unreadable:
        said = f"{check.dimension}, {check.judge}: {check.problem}"
        if check.timed_out:
            todo = "raise judge.timeout_s, lower judge.max_concurrency, or take a faster server"
            findings.append(note("judge prompts", said, todo))
            continue
        todo = (
            f"expected: {check.expected}. Name a model in judge.model that follows the prompts, or change the prompts"
        )
        findings.append(bad("judge prompts", f"{said} ({cost})", todo))
    return findings


async def _embeddings(params: Params) -> list[Finding]:
    from longreward.retrieval.retriever import probe

    if params.score.retriever.kind == "bm25":
        return []
    found = [await probe(params.score.retriever, timeout_s=LIMIT_S)]
    return _findings("embeddings", found, "mend `score.retriever` in params.yaml, or start the server")


async def _policy(params: Params) -> list[Finding]:
    from longreward.models.servers import probe_servers

    advice = "fix `server` in params.yaml, or start the server"
    probes = await probe_servers(params.server, timeout_s=LIMIT_S)
    return [
        good("policy server", probe.message) if probe.ok else bad("policy server", probe.message, advice)
        for probe in probes
    ]


def _findings(subject: str, found: Sequence[_Probed], todo: str) -> list[Finding]:
    return [good(subject, one.message) if one.ok else bad(subject, one.message, todo) for one in found]


async def _prefect() -> list[Finding]:
    """The server that Prefect's own settings name (the environment or a profile), asked for what needs a login."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    from longreward.tasks.prefect_server import PrefectServer, PrefectUnavailable, check_server, prefect_server

    findings = []
    if url := PREFECT_API_URL.value():
        server = PrefectServer(str(url), PREFECT_API_AUTH_STRING.value())
        try:
            await check_server(server)
        except PrefectUnavailable as error:
            told, _, todo = str(error).partition("; ")
            return [bad("prefect", told, todo)]
        findings.append(good("prefect", f"{shown(server.url)} answers"))
    else:
        findings.append(good("prefect", "a server of this project's own, started when a run needs it"))
    if is_project() and killed_runs():
        from longreward.tasks.pipeline_tasks import close_killed_flows

        try:
            server = await asyncio.to_thread(prefect_server)
            with temporary_settings(server.settings):
                closed = await close_killed_flows()
            findings.append(good("prefect", f"runs of killed processes are closed now: {closed}"))
        except LongRewardError as error:
            findings.append(bad("prefect", str(error), "the log that it names has more"))
    return findings


async def _mlflow() -> list[Finding]:
    """The store of runs, where that is a server or a database beyond this project's folder; closes killed runs."""
    return await asyncio.to_thread(_check_mlflow)


def _check_mlflow() -> list[Finding]:
    from longreward.tasks.tracking.store import TrackingUnavailable, is_server, probe_store, store_uri

    findings = []
    try:
        uri = store_uri()
        probe_store(uri)
        if is_server(uri):
            findings.append(good("mlflow", f"{shown(uri)} answers"))
        if is_project() and _may_have_open_runs(uri):
            from longreward.tasks.tracking import close_killed_runs
            from longreward.tasks.tracking.store import has_experiment

            closed = close_killed_runs() if has_experiment() else []
            if closed:
                findings.append(good("mlflow", f"runs of killed processes are closed now: {', '.join(closed)}"))
    except TrackingUnavailable as error:
        told, _, todo = str(error).rpartition("; ")
        return [bad("mlflow", told or todo, todo)]
    except LongRewardError:
        return []  # told with the state folder
    return findings


def _may_have_open_runs(uri: str) -> bool:
    """Looks into a SQLite file by itself, as MLflow takes seconds to import."""
    if not uri.startswith("sqlite:///"):
        return True
    path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)) as opened:
            (running,) = opened.execute("select count(*) from runs where status = 'RUNNING'").fetchone()
    except (sqlite3.Error, ValueError):
        return False  # none yet, or told with the state folder
    return bool(running)


def answers(subject: str, url: str, named: str, todo: str) -> Finding:
    """Whether anything answers to a GET of `url`; `named` is how it is spoken of."""
    try:
        with urlopen(Request(url), timeout=LIMIT_S):
            return good(subject, f"{shown(named)} answers")
    except HTTPError as error:
        if error.code in (401, 403):
            return note(
                subject, f"{shown(named)} answers and asks for a login ({error.code})", "set its key or password"
            )
        return bad(subject, f"{shown(named)} answers with {error.code} to {shown(url)}", todo)
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return bad(subject, f"{shown(named)} cannot be reached: {reason}", todo)


# Whether DVC's default remote can be reached.


async def check_remote() -> list[Finding]:
    """Asks the remote for the raw data, of which it need not have any; nothing where there is no remote."""
    name, url = default_remote()
    note = RAW.with_name(RAW.name + ".dvc")
    if name is None or url is None or not note.exists():
        return []
    if url.startswith("http"):  # of these DVC also says "new" where nobody answers
        return [answers("dvc", url, url, "check its address: `dvc remote list`")]
    ended = await dvc("status", "--cloud", "--json", "--remote", name, str(note))
    if ended.code == 0:
        return [good("dvc", f"the remote {name} answers")]
    errors = [line.removeprefix("ERROR: ") for line in ended.words.splitlines() if line.startswith("ERROR")]
    said = shown(errors[0]) if errors else "no answer"
    todo = "install what it names, or check the address and the login: `dvc remote list`"
    return [bad("dvc", f"the remote {name} cannot be used: {said}", todo)]
