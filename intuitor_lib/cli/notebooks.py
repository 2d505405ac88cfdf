"""Execute notebooks in batch with papermill, under a profile, and render them to HTML."""

import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from ..grading.cores import cores
from ..recipe import InputError
from ..recipe.files import folder_digest, read_text
from ..report.progress import VARIABLE, watch
from ..store import RunStore, project_root
from ..store.files import digest, redact, write_text
from ..store.locks import hold
from .stopping import Kernel, interruptible, outlive_signals, stop_workers


@dataclass(frozen=True)
class Execution:
    """One executed notebook. `error` names the cell that failed and why, or is empty.

    `kept` is one that had been executed before and was not again.
    """

    notebook: Path
    seconds: float
    error: str = ""
    kept: bool = False

    @property
    def html(self) -> Path:
        """The rendered copy."""
        return self.notebook.with_suffix(".html")


def find_notebooks(names: Sequence[str] = ()) -> list[Path]:
    """The project's notebooks, or those named by stem, number or path."""
    root = project_root()
    known = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")) if root else []
    if not names and not known:
        raise InputError(f"no notebooks found around {Path.cwd()}: run this in the project")
    found = []
    for name in names:
        named = [path for path in known if name in (path.stem, path.stem[:2])] or [Path(name)]
        if named[0].suffix != ".ipynb" or not named[0].is_file():
            stems = ", ".join(path.stem for path in known)
            choices = f"choose from {stems}" if known else "run this in the project"
            raise InputError(f"no notebook {name!r}: {choices}, or give a path")
        found += named
    found = [*dict.fromkeys(found)]
    for name, number in Counter(path.name for path in found).items():
        if number > 1:
            raise InputError(f"{number} notebooks are named {name}: execute one after the other")
    return found or known


def read_notebook(path: Path) -> Any:
    """A notebook, to be executed by the kernel `python3` whatever its own metadata say."""
    import nbformat
    from nbformat.validator import normalize

    try:
        # Some tools leave the cells' ids out.
        _, notebook = normalize(nbformat.reads(read_text(path), as_version=4))
        nbformat.validate(notebook)
    except InputError:
        raise
    except Exception as error:  # nbformat raises errors of unrelated classes
        reason = f"{type(error).__name__}, {str(error).partition(chr(10))[0][:100]}"
        raise InputError(f"{path} is no notebook: {reason}") from error
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["kernelspec"] = nbformat.from_dict(spec)
    return notebook


def check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    """Refuse parameters the notebook's cell tagged `parameters` does not set."""
    import papermill

    known = papermill.inspect_notebook(read_notebook(notebook))
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise InputError(
            f"{notebook.stem} has no parameter {', '.join(map(repr, unknown))}: its parameters "
            f"are {', '.join(known) or 'none'}"
        )


def reproduce(
    notebooks: Sequence[Path],
    profile: str,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    runs: str | Path | None = None,
    force: bool = False,
    jobs: int = 1,
    note: Callable[[], str] | None = None,
) -> Iterator[Execution]:
    """Execute notebooks, `jobs` at a time; those that are done and unchanged are kept.

    `parameters` are those of each notebook, by its name; `note` as in `watch`.

    A notebook is done if all its cells ran with this source, these parameters and this version of
    the package's code; with `force` it is executed all the same. One that fails ends nothing but
    itself. While another process executes the same notebook this one waits, and takes what it left.
    Several at a time share the cores, come back in the order in which they end, and show no
    progress on the way.
    """

    def arguments(notebook: Path) -> dict[str, Any]:
        own = (parameters or {}).get(notebook.stem)
        return {"profile": profile, "parameters": own, "runs": runs, "keep": not force}

    if jobs == 1:
        for notebook in notebooks:
            yield execute(notebook, **arguments(notebook), note=note)
        return
    threads = str(max(1, cores() // jobs))
    with (
        interruptible(),
        mock.patch.dict(os.environ, OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", threads)),
        ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), outlive_signals) as pool,
    ):

        def begin(notebook: Path) -> Future[Execution]:
            try:
                return pool.submit(execute, notebook, **arguments(notebook), show=False)
            except BrokenProcessPool as error:  # another one's process was killed
                failed: Future[Execution] = Future()
                failed.set_exception(error)
                return failed

        waiting, started = [*notebooks], dict[Future[Execution], Path]()
        try:
            while waiting or started:
                while waiting and len(started) < jobs:  # a pool begins what it has been given
                    notebook = waiting.pop(0)
                    started[begin(notebook)] = notebook
                for done in wait(started, return_when=FIRST_COMPLETED).done:
                    notebook = started.pop(done)
                    try:
                        yield done.result()
                    except BrokenProcessPool as error:
                        text = f"{notebook.stem} failed: a process that executes notebooks"
                        text += f" was killed ({error})"
                        yield Execution(_target(notebook, profile, runs), 0.0, text)
        except BaseException:
            stop_workers(pool)
            raise


@interruptible()
def execute(
    notebook: Path,
    profile: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    runs: str | Path | None = None,
    show: bool = True,
    keep: bool = False,
    note: Callable[[], str] | None = None,
) -> Execution:
    """Run a notebook from top to bottom; the original is left as it was.

    The executed copy and its HTML lie in `notebooks/<profile>/` of the run store. A cell that fails
    raises nothing: see `error`. With `show`, the stages of its work show their progress on standard
    error, with `note` as in `watch`. With `keep`, one that is done is not executed again.
    """
    started = time.monotonic()
    values = {"profile": profile, **(parameters or {})}
    check_parameters(notebook, values)
    source = read_notebook(notebook)
    source.metadata["question"] = _question(source, values, notebook.parent)
    target = _target(notebook, profile, runs)
    if target == notebook.resolve():
        raise InputError(f"{notebook} is an executed copy in the run store: name its original")
    done = Execution(target, 0.0, kept=True)
    folder = target.parent / f".{notebook.stem}"
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder, f"executing {notebook.stem} ({profile})"):
        if keep and _is_done(done, source.metadata["question"]):
            return done
        done.html.unlink(missing_ok=True)
        progress = functools.partial(watch, note=note) if show else None
        try:
            error = _run(source, target, values, notebook.parent, progress)
        finally:
            if target.is_file():  # and perhaps torn, by an interrupt
                write_text(target, redact(target.read_text(encoding="utf-8", errors="replace")))
        if target.is_file():
            import nbconvert

            write_text(done.html, nbconvert.HTMLExporter().from_filename(str(target))[0])
    return Execution(target, time.monotonic() - started, redact(error).rstrip())


def _target(notebook: Path, profile: str, runs: str | Path | None) -> Path:
    return RunStore(runs).root.resolve() / "notebooks" / profile / notebook.name


def _question(source: Any, values: Mapping[str, Any], folder: Path) -> str:
    """SHA-256 over what an execution depends on.

    That is cells, parameters, the files that these name, the package's code and data.
    """
    import papermill

    files = sorted(Path(__file__).parents[1].rglob("*.*"))
    code = [f.read_text(encoding="utf-8") for f in files if f.suffix in (".py", ".yaml")]
    cells = [[cell["cell_type"], cell["source"]] for cell in source.cells]
    defaults = [one["default"].strip("'\"") for one in papermill.inspect_notebook(source).values()]
    named = [_contents(folder, str(value)) for value in [*defaults, *values.values()]]
    text = json.dumps([cells, values, named, code], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _contents(folder: Path, name: str) -> str | None:
    """A digest of the file or folder that a notebook in `folder` knows by this name, if any."""
    path = os.path.join(folder, os.path.expanduser(name))
    if os.path.isfile(path):
        return digest(Path(path))
    return folder_digest(path) if name and os.path.isdir(path) else None


def _is_done(done: Execution, question: str) -> bool:
    if not (done.notebook.is_file() and done.html.is_file()):  # the HTML is written last
        return False
    asked = read_notebook(done.notebook).metadata.get("question")
    return asked == question and not _unfinished(done.notebook)


def _run(source: Any, target: Path, values: Mapping[str, Any], folder: Path, progress: Any) -> str:
    """Execute a notebook with papermill; what went wrong, or empty."""
    import papermill
    import zmq
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    encryption = "auto" if zmq.has("curve") else "disabled"  # a kernel without it warns
    with (
        tempfile.TemporaryDirectory() as scratch,
        mock.patch.dict(
            os.environ,
            INTUITOR_RUNS=str(target.parents[2]),
            # A kernel specification of the user's must not lead to another environment.
            JUPYTER_PREFER_ENV_PATH="1",
            **{VARIABLE: f"{scratch}/progress.txt"},
        ),
        progress(Path(scratch) / "progress.txt") if progress else contextlib.nullcontext(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            papermill.execute_notebook(
                source,
                str(target),
                parameters=values,
                kernel_name="python3",
                cwd=str(folder),
                progress_bar=False,
                kernel_manager_class=Kernel,
                config=Config(KernelManager={"transport_encryption": encryption}),
            )
        except papermill.PapermillExecutionError as failure:
            trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(failure.traceback or []))
            return (
                f"cell [{failure.exec_count}] of {target.stem} failed: "
                f"{failure.ename}: {failure.evalue}\n{trace}"
            )
        except DeadKernelError:
            return _unfinished(target, "died with its kernel (out of memory?)")
        except Exception as failure:  # of papermill, nbclient, jupyter_client and zmq
            return f"{target.stem} failed: {type(failure).__name__}: {failure}"
    return _unfinished(target)


def _unfinished(executed: Path, how: str = "") -> str:
    """Which cell ended an executed notebook, and how; empty if all its cells ran to their end."""
    cells = [
        cell.metadata.get("papermill", {})
        for cell in read_notebook(executed).cells
        if cell.cell_type == "code"
        and cell.source.strip()
        and "skip-execution" not in cell.metadata.get("tags", [])
    ]
    ran = sum(cell.get("start_time") is not None for cell in cells)
    if not how and ran == len(cells) and all(cell["status"] == "completed" for cell in cells):
        return ""
    how = how or "ended the notebook"
    return f"cell [{ran}] of {executed.stem} {how}; cells not run: {len(cells) - ran}"
