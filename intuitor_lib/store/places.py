"""The run store: one folder per training, found again by what was trained.

    runs/<recipe name>-s<seed>-<hash>/
        recipe.json  problems.json  environment.json  status.json
        metrics.jsonl      one row per step, TRL's metric names
        completions.jsonl  sampled completions with their rewards
        tables/*.jsonl     measurements made on the run
        adapter/           the trained LoRA weights (model/ when all weights were trained)
        snapshots/         the weights after some steps, where the recipe asks for them
        checkpoints/       to resume from; removed when the run is finished
        SHA256SUMS         checksums of what is finished

The hash covers every setting that changes the result and the fingerprint of the problems, so
asking for a run that exists returns it. The folder is `runs/` of the project, or the one that
`INTUITOR_RUNS` names. Files are written whole or appended by lines; a finished run's are compared
with their checksums whenever they are read.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["data_folder", "project_root"]


def project_root(start: Path | None = None) -> Path | None:
    """The folder of the project around `start` (the working folder), or None outside of it."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "intuitor_lib").is_dir() and (folder / "notebooks").is_dir():
            return folder
    return None


def data_folder() -> Path | None:
    """`data/` of the project around the working folder, else around this library; or None."""
    root = project_root() or project_root(Path(__file__).parent)
    return None if root is None else root / "data"
