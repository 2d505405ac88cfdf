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

from ..recipe import Recipe
from .evaluations import EvaluationRecord
from .files import read_json, write_json, write_text
from .runs import Run, run_digest
from .stored import unreadable


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

        Raises:
            OSError: the folder cannot be written.
        """
        weights = recipe.local_weights()
        digest = run_digest(recipe, problems, weights)
        run = next(map(Run, self.root.glob(f"*-{digest}")), None)
        run = run or Run(self.root / f"{recipe.name}-s{recipe.seed}-{digest}")
        wanted: dict[str, tuple[str, Callable[[], object]]] = {
            "problems.json": (json.dumps(dict(problems), indent=2) + "\n", lambda: run.problems),
            "recipe.json": (recipe.to_json(), lambda: run.recipe),
        }
        if weights:
            text = json.dumps(weights, indent=2) + "\n"
            name = "local_weights.json"
            wanted = {name: (text, lambda: read_json(run.path / name))} | wanted
        try:
            for name, (text, read) in wanted.items():
                # Their content is known here, so damaged ones can be written again.
                if not run.has_checksums and unreadable({name: read}):
                    write_text(run.path / name, text)
        except OSError as error:
            raise self._unwritable(error) from error
        return run

    def open_evaluation(self, spec: Mapping[str, Any]) -> EvaluationRecord:
        """The evaluation of these settings, made if it is new.

        Settings whose name begins with "_" are descriptions and not part of its identity.

        Raises:
            OSError: the folder cannot be written.
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
        try:
            write_json(record.path / "evaluation.json", dict(spec))
        except OSError as error:
            raise self._unwritable(error) from error
        return record

    def evaluations(self) -> Iterator[EvaluationRecord]:
        """Every evaluation, by name."""
        files = sorted((self.root / "evaluations").glob("*/evaluation.json"))
        return (EvaluationRecord(file.parent) for file in files)

    def _unwritable(self, error: OSError) -> OSError:
        return OSError(
            f"the run store {self.root} cannot be written: {error}. Name a folder of yours "
            "with --runs DIR or the environment variable INTUITOR_RUNS"
        )

    def __iter__(self) -> Iterator[Run]:
        """Every run, by name."""
        return (Run(file.parent) for file in sorted(self.root.glob("*/recipe.json")))

    def __getitem__(self, run_id: str) -> Run:
        """A run by its id.

        Raises:
            KeyError: there is none.
        """
        if not (self.root / run_id / "recipe.json").is_file():
            known = ", ".join(run.id for run in self) or "none"
            raise KeyError(f"no run {run_id!r} in {self.root}; it holds: {known}")
        return Run(self.root / run_id)
