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

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from .files import append_rows, faults, read_rows
from .locks import hold
from .stored import Stored, unreadable

__all__ = ["EvaluationRecord"]


@dataclasses.dataclass(frozen=True)
class EvaluationRecord(Stored):
    """One evaluation in the store: a policy on a benchmark, decoded in one way.

    evaluations/<benchmark>-<policy>-<hash>/
        evaluation.json    what was asked: policy, items, decoding
        environment.json   versions, device and precision
        items.jsonl        one row per completion, in the order they were made
        tables/*.jsonl     what was computed from them
    """

    @property
    def spec(self) -> dict[str, Any]:
        """`policy`, `benchmark` and `decoding`, each with its settings."""
        return json.loads((self.path / "evaluation.json").read_text(encoding="utf-8"))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per completion, sorted by item and sample; an interrupted one has fewer."""
        order = {item: i for i, item in enumerate(self.spec["benchmark"]["_ids"])}
        rows = self._rows("items.jsonl")
        return sorted(rows, key=lambda row: (order[row["id"]], row["sample"]))

    @property
    def finished(self) -> bool:
        """Whether every completion is there."""
        spec = self.spec
        wanted = spec["benchmark"]["n"] * spec["decoding"]["num_samples"]
        return len(read_rows(self.path / "items.jsonl")) == wanted

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to `items.jsonl`."""
        append_rows(self.path / "items.jsonl", rows)

    def finish(self) -> None:
        """Record the checksums of its files, when every completion is there."""
        self._seal(["evaluation.json", "environment.json", "items.jsonl"])

    def verify(self) -> dict[str, str]:
        """What is wrong with its files, by relative path."""
        found = faults(self.path)
        found |= (
            {} if "evaluation.json" in found else unreadable("evaluation.json", lambda: self.spec)
        )
        found |= {} if "items.jsonl" in found else unreadable("items.jsonl", lambda: self.rows)
        return found

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the evaluation; waits, with a message, while another process works on it."""
        return hold(self.path, f"evaluating {self.id}")
