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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..recipe import InputError
from ..recipe.files import read_text
from ..report.progress import VARIABLE, watch
from ..store import RunStore, project_root
from ..store.files import redact, write_text
from ..store.locks import hold

_DONE = "done.json"


@dataclass(frozen=True)
class Execution:
    """One executed notebook. `error` names the cell that failed and why, or is empty.

    `kept` is one that had been executed before and was not again.
    """

    name: str
    profile: str
    notebook: Path
    html: Path | None
    seconds: float
    error: str = ""
    kept: bool = False


def find_notebooks(names: Sequence[str] = ()) -> list[Path]:
    """The project's notebooks, or those named by stem, number or path.

    Raises:
        InputError: a name that fits no notebook, or no project around the working folder.
    """
    root = project_root()
    known = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")) if root else []
    if not names:
        if not known:
            raise InputError(f"no notebooks found around {Path.cwd()}: run this in the project")
        return known
    found = []
    for name in names:
        matches = [path for path in known if name in (path.stem, path.stem.split("_")[0])]
        matches = matches or [path for path in [Path(name)] if path.suffix == ".ipynb"]
        if not matches or not matches[0].is_file():
            stems = ", ".join(path.stem for path in known)
            raise InputError(f"no notebook {name!r}: choose from {stems}, or give a path")
        found.append(matches[0])
    return found


def read_notebook(path: Path) -> Any:
    """A notebook in Python, with the kernel `python3` whatever its own metadata say.

    Raises:
        InputError: it is no notebook of nbformat 4, or in another language.
    """
    import nbformat
    from nbformat.validator import normalize

    try:
        notebook = nbformat.reads(read_text(path), nbformat.NO_CONVERT)
        version = notebook["nbformat"]
        if version == 4:
            _, notebook = normalize(notebook)  # some tools leave the cells' ids out
            nbformat.validate(notebook)
    except InputError:
        raise
    except Exception as error:  # nbformat raises errors of unrelated classes
        reason = f"{type(error).__name__}, {str(error).partition(chr(10))[0][:100]}"
        raise InputError(f"{path} is no notebook: {reason}") from error
    if version != 4:
        raise InputError(
            f"{path} is a notebook of nbformat {version}: convert it with `jupyter nbconvert "
            "--to notebook --inplace`"
        )
    about = notebook.metadata
    language = about.get("kernelspec", {}).get("language") or about.get("language_info", {}).get(
        "name", "python"
    )
    if not language.lower().startswith(("python", "ipython")):
        raise InputError(f"{path} is written in {language}: only notebooks in Python are executed")
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["kernelspec"] = nbformat.from_dict(spec)
    return notebook


def check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    """Refuse parameters the notebook's cell tagged `parameters` does not set.

    Raises:
        InputError: with the unknown names and the known ones; as `read_notebook`.
    """
    import nbformat
    import papermill

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / notebook.name
        nbformat.write(read_notebook(notebook), path)
        known = papermill.inspect_notebook(path)
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise InputError(
            f"{notebook.stem} has no parameter {', '.join(map(repr, unknown))}: its parameters "
            f"are {', '.join(known) or 'none'}"
        )


def reproduce(
    notebooks: Sequence[Path],
    profile: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    runs: str | Path | None = None,
    force: bool = False,
    jobs: int = 1,
) -> Iterator[Execution]:
    """Execute notebooks, `jobs` at a time; those that are done and unchanged are kept.

    A notebook is done if all its cells ran with this source, these parameters and this version of
    the package's code. One that fails ends nothing but itself. While another process executes the
    same notebook this one waits, and takes what it left.

    Args:
        notebooks: of `find_notebooks`.
        profile: of `recipes.PROFILES`.
        parameters: of all of them.
        runs: folder of the run store.
        force: execute what is done, too.
        jobs: notebooks at a time, each with its share of the cores. Several come back in the order
            in which they end, and show no progress on the way.
    """
    one = functools.partial(
        _reproduce_one, profile=profile, parameters=parameters or {}, runs=runs, force=force
    )
    if jobs == 1:
        yield from map(one, notebooks)
        return
    threads = str(max(1, len(os.sched_getaffinity(0)) // jobs))
    with (
        _environment(OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", threads)),
        ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool,
    ):
        started = {pool.submit(one, notebook, show=False): notebook for notebook in notebooks}
        for done in as_completed(started):
            try:
                yield done.result()
            except BrokenProcessPool as error:
                notebook, name = started[done], started[done].stem
                text = f"{name} failed: a process that executes notebooks was killed ({error})"
                yield Execution(name, profile, _target(notebook, profile, runs), None, 0.0, text)


def _reproduce_one(
    notebook: Path,
    *,
    profile: str,
    parameters: Mapping[str, Any],
    runs: str | Path | None,
    force: bool,
    show: bool = True,
) -> Execution:
    began = time.monotonic()
    target = _target(notebook, profile, runs)
    folder = target.parent / f".{notebook.stem}"
    folder.mkdir(parents=True, exist_ok=True)
    asked = _question(notebook, profile, parameters)
    with hold(folder, f"executing {notebook.stem} ({profile})"):
        if not force and _is_done(folder, target, asked):
            seconds = time.monotonic() - began
            html = target.with_suffix(".html")
            return Execution(notebook.stem, profile, target, html, seconds, kept=True)
        (folder / _DONE).unlink(missing_ok=True)
        done = execute(notebook, profile, parameters, runs=runs, show=show)
        if not done.error:
            about = {"asked": asked, "seconds": round(done.seconds, 1)}
            write_text(folder / _DONE, json.dumps(about) + "\n")
        return done


def _target(notebook: Path, profile: str, runs: str | Path | None) -> Path:
    return RunStore(runs).root.resolve() / "notebooks" / profile / notebook.name


def _question(notebook: Path, profile: str, parameters: Mapping[str, Any]) -> str:
    """SHA-256 over what an execution depends on: cells, parameters, the package's code and data."""
    cells = read_notebook(notebook).cells
    files = sorted(Path(__file__).parents[1].rglob("*.*"))
    code = [f.read_text(encoding="utf-8") for f in files if f.suffix in (".py", ".yaml", ".txt")]
    sources = [[cell["cell_type"], cell["source"]] for cell in cells]
    text = json.dumps([sources, profile, dict(parameters), code], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_done(folder: Path, target: Path, asked: str) -> bool:
    try:
        done = json.loads((folder / _DONE).read_text(encoding="utf-8"))["asked"] == asked
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return done and target.is_file() and target.with_suffix(".html").is_file()


def execute(
    notebook: Path,
    profile: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    runs: str | Path | None = None,
    show: bool = True,
) -> Execution:
    """Run a notebook from top to bottom; the original is left as it was.

    The executed copy and its HTML lie in `notebooks/<profile>/` of the run store. With `show`,
    the stages of its work show their progress on standard error.

    Raises:
        InputError: an unknown parameter. A cell that fails raises nothing: see `error`.
    """
    import papermill
    import zmq
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    encryption = "auto" if zmq.has("curve") else "disabled"  # a kernel without it warns
    values = {"profile": profile, **(parameters or {})}
    check_parameters(notebook, values)
    source = read_notebook(notebook)
    store = RunStore(runs).root.resolve()
    target = _target(notebook, profile, runs)
    target.parent.mkdir(parents=True, exist_ok=True)
    started, error = time.monotonic(), ""
    with (
        tempfile.TemporaryDirectory() as scratch,
        _environment(
            INTUITOR_RUNS=str(store),
            # A kernel specification of the user's must not lead to another environment.
            JUPYTER_PREFER_ENV_PATH="1",
            **{VARIABLE: f"{scratch}/progress.txt"},
        ),
        watch(Path(scratch) / "progress.txt") if show else contextlib.nullcontext(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            papermill.execute_notebook(
                source,
                str(target),
                parameters=values,
                kernel_name="python3",
                cwd=str(notebook.parent),
                progress_bar=False,
                config=Config(KernelManager={"transport_encryption": encryption}),
            )
            error = _unfinished(target)
        except papermill.PapermillExecutionError as failure:
            trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(failure.traceback or []))
            error = (
                f"cell [{failure.exec_count}] of {notebook.stem} failed: "
                f"{failure.ename}: {failure.evalue}\n{trace}"
            )
        except Exception as failure:  # of papermill, nbclient, jupyter_client and zmq
            error = f"{notebook.stem} failed: {type(failure).__name__}: {failure}"
            if isinstance(failure, DeadKernelError):
                error = _unfinished(target, "died with its kernel (out of memory?)") or error
    html = None
    if target.is_file():
        write_text(target, redact(target.read_text(encoding="utf-8")))
        html = _render(target)
    seconds = time.monotonic() - started
    return Execution(notebook.stem, profile, target, html, seconds, redact(error).rstrip())


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


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _render(notebook: Path) -> Path:
    import nbconvert

    html, _ = nbconvert.HTMLExporter().from_filename(str(notebook))
    path = notebook.with_suffix(".html")
    write_text(path, html)
    return path
