"""`RunStore`: a folder of runs and evaluations, each found again by its settings.

The names of runs and evaluations end in a hash of the settings that change the result and of the
fingerprint of the problems, so opening an existing one returns it.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..recipe import InputError, Recipe
from .files import read_json, write_json
from .runs import Run
from .stored import EvaluationRecord


def project_root(start: Path | None = None) -> Path | None:
    """The project folder that contains `start` (by default the working folder), or None."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "intuitor_lib").is_dir() and (folder / "notebooks").is_dir():
            return folder
    return None


def data_folder() -> Path | None:
    """`data/` of the project that contains the working folder or else this library, or None."""
    root = project_root() or project_root(Path(__file__).parent)
    return None if root is None else root / "data"


class UnknownRunError(InputError, KeyError):
    """A store has no run of that name. The message lists those that it has."""

    __str__ = InputError.__str__  # a `KeyError` would show it in quotes


class RunStore:
    """A folder of runs and evaluations.

    Args:
        root: the folder; by default `INTUITOR_RUNS`, else `runs/` of the project.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        root = root or os.environ.get("INTUITOR_RUNS")
        self.root = Path(root).expanduser() if root else (project_root() or Path.cwd()) / "runs"

    def open(self, recipe: Recipe, problems: Mapping[str, Any]) -> Run:
        """The run of a recipe on problems (`Problems.describe()`), made if it is new.

        A folder that cannot be written is an `OSError`, here and in `open_evaluation`.
        """
        weights = recipe.local_weights()
        run = self._run(recipe, problems, weights)
        wanted: dict[str, tuple[Mapping[str, Any], Callable[[], object]]] = {
            "local_weights.json": (weights, lambda: read_json(run.path / "local_weights.json")),
            "problems.json": (dict(problems), lambda: run.problems),
            "recipe.json": (recipe.to_dict(), lambda: run.recipe),
        }
        for name, (values, read) in wanted.items():
            try:
                read()
            except (OSError, ValueError, KeyError, TypeError):
                # Its content is known here, so a damaged one can be written again.
                if values and not run.has_checksums:
                    self._write(run.path / name, values)
        return run

    def find(self, recipe: Recipe, problems: Mapping[str, Any]) -> Run | None:
        """The finished run of a recipe on problems, if there is one."""
        run = self._run(recipe, problems, recipe.local_weights())
        return run if run.finished else None

    def _run(self, recipe: Recipe, problems: Mapping[str, Any], weights: Mapping[str, str]) -> Run:
        text = f"{recipe.digest_with(weights)}:{problems['fingerprint']}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        existing = next(self.root.glob(f"*-{digest}"), None)
        name = re.sub(r"[^\w.]+", "-", recipe.name).strip("-.") or "run"  # no folder of its own
        name = name.encode()[:150].decode(errors="ignore")  # file systems allow 255 bytes
        return Run(existing or self.root / f"{name}-s{recipe.seed}-{digest}")

    def open_evaluation(self, spec: Mapping[str, Any]) -> EvaluationRecord:
        """The evaluation of these settings, made if it is new.

        Settings whose name begins with "_" are descriptions and not part of its identity.
        """
        kept = {
            part: {key: value for key, value in settings.items() if key[0] != "_"}
            for part, settings in spec.items()
        }
        digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:10]
        label = f"{spec['benchmark']['name']}-{spec['policy']['_name']}"
        folder = f"{re.sub(r'[^A-Za-z0-9._]+', '-', label)[:80]}-{digest}"
        for existing in (self.root / "evaluations").glob(f"*-{digest}/evaluation.json"):
            return EvaluationRecord(existing.parent)
        record = EvaluationRecord(self.root / "evaluations" / folder)
        self._write(record.path / "evaluation.json", spec)
        return record

    def evaluations(self) -> Iterator[EvaluationRecord]:
        """Every evaluation, by name."""
        files = sorted((self.root / "evaluations").glob("*/evaluation.json"))
        return (EvaluationRecord(file.parent) for file in files)

    def _write(self, file: Path, values: Mapping[str, Any]) -> None:
        try:
            write_json(file, dict(values))
        except OSError as error:
            raise OSError(
                f"the run store {self.root} cannot be written: {error}. Name a folder of yours "
                "with --runs DIR or the environment variable INTUITOR_RUNS"
            ) from error

    def __iter__(self) -> Iterator[Run]:
        """Every run, by name."""
        return (Run(file.parent) for file in sorted(self.root.glob("*/recipe.json")))

    def __getitem__(self, run_id: str) -> Run:
        """A run by its id; a `KeyError` that lists the known ones if there is none."""
        if not (self.root / run_id / "recipe.json").is_file():
            known = ", ".join(run.id for run in self) or "none"
            raise UnknownRunError(f"no run {run_id!r} in {self.root}; it holds: {known}")
        return Run(self.root / run_id)
