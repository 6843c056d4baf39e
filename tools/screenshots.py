"""Take the screenshots of the documentation from a project with at least two finished runs.

    pip install playwright                     # with Chromium of the system: --browser /usr/bin/chromium
    longreward init example && cd example && longreward run && git add -A && git commit -m "First run"
    longreward run -S train.beta=0.3 --name beta-0.3 && longreward review create --items 12
    cd .. && python tools/screenshots.py --project example --out docs/images

Starts `longreward serve` in the project and ends it. Look at the pictures before you commit them: the interfaces of
Prefect and MLflow change between versions.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from playwright.sync_api import Page, ViewportSize, expect, sync_playwright

SIZE = ViewportSize(width=1280, height=760)
WAIT_MS = 120_000  # both interfaces load megabytes of JavaScript, on a busy machine slowly
SETTLE_MS = 3_000  # charts are drawn with an animation after their data has arrived
GRAPH_MS = 10_000  # Prefect draws its graph on a canvas, of which the DOM shows nothing
EXPERIMENT = "longreward"
TRAINING_MENU = "workflowType=machine_learning"  # MLflow shows the menu of GenAI otherwise
LONGREWARD = str(Path(sys.executable).with_name("longreward"))
# MLflow 3.17 opens the panel of its assistant at the first visit; it remembers that it has been closed.
NO_ASSISTANT = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""


@dataclass(frozen=True)
class Servers:
    """The servers of a project. `login` is `user:password` of Prefect."""

    prefect: str
    mlflow: str
    login: str


@contextmanager
def serve(project: Path) -> Iterator[Servers]:
    """Run `longreward serve` in the project until the end of the context."""
    process = subprocess.Popen([LONGREWARD, "serve"], cwd=project, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        addresses: dict[str, str] = {}
        for line in process.stdout:
            if match := re.match(r" +(Prefect|MLflow) +(http://[^/\s]+)", line):
                addresses[match[1]] = match[2]
            if line.startswith("Ctrl-C"):
                break
        else:
            raise SystemExit("`longreward serve` ended before it printed its addresses")
        login = (project / ".longreward" / "prefect" / "auth-string").read_text(encoding="utf-8").strip()
        wait_for(addresses["MLflow"])
        yield Servers(addresses["Prefect"], addresses["MLflow"], login)
    finally:
        process.terminate()  # not SIGINT, which processes in the background ignore
        process.wait(timeout=60)


def wait_for(address: str) -> None:
    """Wait until a server accepts connections; raises httpx.ConnectError after two minutes."""
    with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=WAIT_MS / 1000) as client:
        client.get(f"{address}/health")


def evaluated_runs(servers: Servers) -> list[Run]:
    """Return the finished pipeline runs with an evaluation, newest first."""
    client = MlflowClient(tracking_uri=servers.mlflow)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'", max_results=1000)
    pipelines = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return [run for run in pipelines if "evaluate/champion" in run.data.metrics]


def prefect_picture(page: Page, servers: Servers, run: Run, out: Path) -> None:
    """Log in, and show a pipeline run with its stages."""
    page.goto(servers.prefect)
    page.get_by_placeholder("admin:pass").fill(servers.login)
    page.get_by_role("button", name="Login").click()
    page.wait_for_url("**/dashboard**")
    page.goto(f"{servers.prefect}/v2/runs/flow-run/{run.data.tags['prefect.flow_run']}?tab=Artifacts")
    expect(page.get_by_text("Completed").first).to_be_visible()
    expect(page.get_by_text("result", exact=True).first).to_be_visible()
    page.wait_for_timeout(GRAPH_MS)
    save(page, out / "prefect.png")


def mlflow_pictures(page: Page, servers: Servers, runs: list[Run], out: Path) -> None:
    """Show the description of the newest pipeline run, and the two newest runs side by side."""
    experiment = runs[0].info.experiment_id
    page.add_init_script(NO_ASSISTANT)
    page.goto(f"{servers.mlflow}/#/experiments/{experiment}/runs/{runs[0].info.run_id}?{TRAINING_MENU}")
    expect(page.get_by_text("About this run").first).to_be_visible()
    save(page, out / "mlflow-run.png")
    ids = ",".join(f'"{run.info.run_id}"' for run in runs[:2])
    page.goto(f'{servers.mlflow}/#/compare-runs?runs=[{ids}]&experiments=["{experiment}"]&{TRAINING_MENU}')
    expect(page.get_by_text("Comparing 2 Runs").first).to_be_visible()
    page.get_by_role("button", name="Visualizations").click()
    for switch in page.get_by_role("switch").all()[:2]:  # "Show diff only" of the parameters and of the metrics
        switch.click()
    page.get_by_role("button", name="Run details").evaluate("heading => heading.scrollIntoView()")
    save(page, out / "mlflow-comparison.png")


def evidence_picture(page: Page, project: Path, out: Path) -> None:
    """Show the evidence page with the passages of a supported statement."""
    file = (project / ".longreward" / "screenshot.html").resolve()
    subprocess.run([LONGREWARD, "view", "--no-open", "--out", str(file)], cwd=project, check=True)
    page.goto(file.as_uri())
    page.locator(".response mark.full").first.click()
    save(page, out / "evidence.png")
    file.unlink()


def review_picture(page: Page, servers: Servers, project: Path, out: Path) -> None:
    """Show an item of the queue of statements, whose address `longreward review create` prints."""
    command = [LONGREWARD, "review", "create", "--items", "12"]
    output = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout
    address = re.search(r"support:.*\n +http://[^/]+(/\S+)", output)
    if address is None:
        raise SystemExit(f"`longreward review create` printed no address of the queue:\n{output}")
    page.goto(servers.mlflow + address[1])
    page.get_by_role("button", name="Start review").click()
    save(page, out / "review-mlflow.png")


def label_picture(page: Page, project: Path, out: Path) -> None:
    """Show a preference on the page on which people label without MLflow."""
    file = (project / ".longreward" / "screenshot.html").resolve()
    subprocess.run([LONGREWARD, "review", "page", "--out", str(file)], cwd=project, check=True)
    page.goto(file.as_uri())
    headings = [page.get_by_role("heading", name=name, exact=True) for name in ("Response A", "Document")]
    while not all(heading.is_visible() for heading in headings):
        page.get_by_role("button", name="Next", exact=True).click()
    save(page, out / "label-page.png")
    file.unlink()


def save(page: Page, path: Path) -> None:
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=path)
    # A palette of 128 colors takes a third of the bytes, and text stays sharp.
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--browser", default="/usr/bin/chromium", help="the program of Chromium")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with serve(options.project) as servers, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.browser)
        runs = evaluated_runs(servers)
        if len(runs) < 2:
            raise SystemExit("the comparison needs two finished pipeline runs with an evaluation")
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.set_default_timeout(WAIT_MS)
        expect.set_options(timeout=WAIT_MS)
        prefect_picture(page, servers, runs[-1], options.out)  # the first run, for which no stage was up to date
        mlflow_pictures(page, servers, runs, options.out)
        review_picture(page, servers, options.project, options.out)
        label_picture(page, options.project, options.out)
        evidence_picture(page, options.project, options.out)
        browser.close()


if __name__ == "__main__":
    main()
