"""Checkpoints that can be verified, from which an interrupted training continues.

A checkpoint holds what `transformers.Trainer` saves (weights, optimizer, schedule, random states,
position in the data), the run's records up to that step, and checksums. One without checksums was
cut off while it was written; one that differs from them is damaged. Both are skipped.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from .files import SUMS, faults, names_in, read_sums, record_checksums

RECORDS = ("metrics.jsonl", "completions.jsonl")
"""Files of a run that grow with every step."""

_COPIES = "records"


def checkpoint_step(folder: Path) -> int:
    """The step after which a checkpoint was taken."""
    return int(folder.name.rsplit("-", 1)[1])


def complete_checkpoint(folder: Path, run: Path) -> None:
    """Copy the run's records into a checkpoint that the trainer has saved; record checksums."""
    (folder / _COPIES).mkdir(exist_ok=True)
    _copy_records(run, folder / _COPIES)
    record_checksums(folder)


def checkpoint_faults(folder: Path) -> dict[str, str]:
    """Damage to a checkpoint, by file; empty if a training can continue from it."""
    if not (folder / SUMS).is_file():
        return {SUMS: "missing: it was cut off while it was written"}
    found = faults(folder)
    if SUMS not in found:
        known = read_sums(folder)
        needed = {"trainer_state.json", "optimizer.pt", "scheduler.pt", *names_in(folder)} - {SUMS}
        found |= dict.fromkeys(sorted(needed - known.keys()), f"not in {SUMS}")
    return found


def newest_checkpoint(
    run: Path, report: Callable[[str], object], *, before: int | None = None
) -> Path | None:
    """The newest undamaged checkpoint in a run's folder, if any, up to the step `before`.

    `report` is called with a message for each checkpoint that is skipped.
    """
    folders = [
        folder
        for folder in (run / "checkpoints").glob("checkpoint-*")
        if folder.name.rsplit("-", 1)[1].isdecimal()  # not a copy that somebody made
    ]
    for folder in sorted(folders, key=checkpoint_step, reverse=True):
        if before is not None and checkpoint_step(folder) > before:
            continue
        found = checkpoint_faults(folder)
        if not found:
            return folder
        listed = "; ".join(f"{name}: {fault}" for name, fault in found.items())
        report(f"{run.name}: {folder.name} is passed over ({listed})")
    return None


def restore_records(run: Path, checkpoint: Path | None) -> None:
    """Reset the run's records to a checkpoint, or with None to before the first step."""
    _copy_records(checkpoint and checkpoint / _COPIES, run)


def _copy_records(source: Path | None, target: Path) -> None:
    for name in RECORDS:
        (target / name).unlink(missing_ok=True)
        if source is not None and (source / name).is_file():
            shutil.copyfile(source / name, target / name)
