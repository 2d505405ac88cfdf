"""JupyterLab in a real browser: a training is watched, stopped, resumed, opened. Pages on a phone.

    python tests/browser_check.py [FOLDER]

starts JupyterLab on copies of two notebooks, opens them in headless Chromium (Debian's, or the one
that CHROMIUM names), executes all cells at `smoke`, and uses what is there to be used. Then it
opens the gallery of the committed notebooks and the site of `make docs`, each as wide as a phone
and as a laptop. Screenshots and the executed notebooks are left in FOLDER. Exit status 1 names what
did not happen.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import nbformat
from playwright.sync_api import Browser, Page, expect, sync_playwright

from intuitor_lib import Run, RunStore
from intuitor_lib.cli.notebooks import find_notebooks
from intuitor_lib.lab import LiveRun
from intuitor_lib.paper.gallery import build_gallery

STEPS = 20
PARAMETERS = {
    "00_quickstart": {"profile": "smoke"},
    "10_your_own_task": {"profile": "smoke", "max_steps": STEPS, "num_held_out": 8},
}
LAST = {"10_your_own_task": "browse_rollouts"}  # what comes later needs nobody to click
LEFT_OUT = "control"  # a second training
WIDTHS = {"phone": 390, "laptop": 1440}  # pixels
SITE = Path(__file__).resolve().parents[1] / "build" / "docs"
PAGES = ("index.html", "docs/lab.html", "notebooks/02_main_results.html")


def copy_notebook(name: str, folder: Path) -> None:
    """Copy a notebook without outputs, with other values in its parameters cell."""
    (path,) = find_notebooks([name])
    notebook = nbformat.read(path, as_version=4)
    if name in LAST:
        end = 1 + next(i for i, c in enumerate(notebook.cells) if LAST[name] in c.source)
        notebook.cells = [c for c in notebook.cells[:end] if LEFT_OUT not in c.source]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            given = PARAMETERS[name].items()
            cell.source += "".join(f"\n{key} = {json.dumps(value)}" for key, value in given)
    nbformat.write(notebook, folder / path.name)


@contextmanager
def jupyterlab(folder: Path, store: Path) -> Iterator[str]:
    """A JupyterLab server on a folder; its address with the token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.root_dir={folder}", f"--ServerApp.port={port}"]
    command += [f"--IdentityProvider.token={token}", "--ServerApp.port_retries=0"]
    settings = {"INTUITOR_RUNS": str(store), "JUPYTER_PREFER_ENV_PATH": "1"}
    # Without news and without a cache of earlier workspaces.
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTERLAB_SETTINGS_DIR"):
        settings[name] = str(folder / ".jupyter" / name)
    with (store.parent / "jupyterlab.log").open("w") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | settings
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urlopen(f"{address}/api?token={token}", timeout=1).close()
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise TimeoutError("JupyterLab did not start: see jupyterlab.log")
        yield f"{address}/lab/tree/{{name}}?token={token}&reset"
    finally:
        server.terminate()
        server.wait()


class Lab:
    """A notebook open in JupyterLab."""

    def __init__(self, page: Page, address: str, name: str, shots: Path) -> None:
        self.page, self.name, self.shots = page, name, shots
        page.goto(address.format(name=f"{name}.ipynb"))
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
        news = page.get_by_role("button", name="No", exact=True)
        if news.is_visible():
            news.click()

    def run_all(self) -> None:
        """Execute all cells, as the menu does."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()
        prompts = self.page.locator(".jp-CodeCell .jp-InputPrompt")
        until(lambda: "[*]:" in prompts.all_text_contents(), 30, "a running cell")

    def shot(self, what: str) -> None:
        """Keep a screenshot."""
        self.page.screenshot(path=self.shots / f"{self.name}_{what}.png")

    def until_idle(self, seconds: int) -> None:
        """Wait until every cell has run; fail if one failed."""
        counts = self.page.locator(".jp-CodeCell .jp-InputPrompt")
        done = re.compile(r"\[\d+\]:")
        until(
            lambda: all(map(done.fullmatch, counts.all_text_contents())), seconds, "the last cell"
        )
        failed = self.page.locator('[data-mime-type="application/vnd.jupyter.stderr"]')
        errors = [text for text in failed.all_text_contents() if "Traceback" in text]
        assert not errors, errors[0]

    def save(self) -> None:
        self.page.keyboard.press("Control+s")
        time.sleep(1)


def follow_a_training(lab: Lab, store: Path) -> None:
    """Stop the training of notebook 10 and resume it, while its cells wait; then look inside."""
    page = lab.page
    lab.run_all()
    panel = page.locator(".jp-OutputArea-output", has=page.get_by_role("button", name="Stop")).first
    panel.wait_for(timeout=120_000)
    panel.scroll_into_view_if_needed()
    run = the_run(store)
    expect(panel).to_contain_text("running", timeout=60_000)
    until(lambda: run.steps >= 2, 120, "two steps")
    lab.shot("running")
    panel.get_by_role("button", name="Stop").click()
    expect(panel).to_contain_text("interrupted", timeout=60_000)
    assert run.status["state"] == "interrupted", run.status
    assert 2 <= run.steps < STEPS, run.steps
    assert list(run.path.glob(f"checkpoints/checkpoint-{run.steps}/SHA256SUMS")), "nothing saved"
    lab.shot("stopped")
    panel.get_by_role("button", name="Resume").click()
    expect(panel).to_contain_text("running", timeout=60_000)
    until(lambda: run.finished, 240, "the end of the training")
    assert [row["step"] for row in run.metrics] == [*range(1, STEPS + 1)]
    lab.shot("finished")


def until(condition, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.2)


def the_run(store: Path) -> Run:
    """The first run of the store, as soon as it is there."""
    until(lambda: list(RunStore(store)), 60, "a run in the store")
    return next(iter(RunStore(store)))


def move_a_step(lab: Lab) -> None:
    """Move the slider of the rollout browser by a step; the completions change."""
    page = lab.page
    slider = page.locator(".widget-hslider").first
    slider.scroll_into_view_if_needed()
    output = page.locator(".jp-OutputArea-output", has=page.locator(".widget-hslider")).first
    expect(output).to_contain_text(f"step {STEPS}, problem")
    slider.locator(".noUi-handle").focus()
    page.keyboard.press("ArrowLeft")
    expect(output).to_contain_text(f"step {STEPS - 1}, problem", timeout=20_000)
    lab.shot("rollouts")


def open_pages(browser: Browser, scratch: Path, shots: Path) -> None:
    """Gallery and site: pages as wide as the screen, with all their images."""
    committed = scratch / "gallery" / "notebooks" / "cpu"
    committed.mkdir(parents=True)
    for path in find_notebooks():
        shutil.copy(path, committed)
    pages = [build_gallery("cpu", scratch / "gallery")]
    if SITE.is_dir() or "CI" in os.environ:
        pages += [SITE / name for name in PAGES]
    else:
        print("no site here: `make docs` builds it", file=sys.stderr)
    for device, width in WIDTHS.items():
        page = browser.new_page(viewport={"width": width, "height": 900})
        for path in pages:
            page.goto(path.as_uri(), wait_until="networkidle")
            name = f"{path.parent.name}_{path.stem}, {device}"
            page.screenshot(path=shots / f"{name}.png")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name}: {wide} pixels wide, {width} fit"
            broken = page.evaluate(
                "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
            )
            assert not broken, f"{name}: no image at {broken[0][:100]}"


def main() -> int:
    """Run both notebooks, open the pages; 1 if something did not happen."""
    shots = Path(sys.argv[1] if len(sys.argv) > 1 else "build/browser").resolve()
    shots.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chrome")
    if chromium is None:
        print("no Chromium here: apt install chromium, or set CHROMIUM", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        folder, store = Path(scratch) / "notebooks", Path(scratch) / "runs"
        folder.mkdir()
        for name in PARAMETERS:
            copy_notebook(name, folder)
        with jupyterlab(folder, store) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            try:
                lab = Lab(page, address, "10_your_own_task", shots)
                follow_a_training(lab, store)
                lab.run_all()  # the cell that waited was told of the stop; now the run is found
                lab.until_idle(300)
                move_a_step(lab)
                lab.save()
                other = Lab(page, address, "00_quickstart", shots)
                other.run_all()
                other.until_idle(300)
                other.shot("executed")
                other.save()
                open_pages(browser, Path(scratch), shots)
            except BaseException:
                page.screenshot(path=shots / "failed.png")
                raise
            finally:
                browser.close()
                for run in RunStore(store):
                    LiveRun(run).stop()
                for path in (*folder.glob("*.ipynb"), Path(scratch) / "jupyterlab.log"):
                    shutil.copy(path, shots)
    print(f"JupyterLab: panel, Stop, Resume, rollouts; pages; screenshots in {shots}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
