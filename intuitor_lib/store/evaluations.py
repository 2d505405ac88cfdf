"""`EvaluationRecord`: one evaluation in the store."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from .files import append_rows, read_json, read_rows
from .stored import Stored


@dataclasses.dataclass(frozen=True)
class EvaluationRecord(Stored):
    """One evaluation in the store: a policy on a benchmark, decoded in one way.

    evaluations/<benchmark>-<policy>-<hash>/
        evaluation.json    settings: policy, items, decoding
        environment.json   versions, device and precision
        items.jsonl        one row per completion, in the order they were made
        tables/*.jsonl     measurements made of them
    """

    _work = "evaluating"

    @property
    def spec(self) -> dict[str, Any]:
        """`policy`, `benchmark` and `decoding`, each with its settings."""
        return read_json(self.path / "evaluation.json")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per completion, sorted by item and sample; fewer if it was interrupted."""
        order = {item: i for i, item in enumerate(self.spec["benchmark"]["_ids"])}
        return sorted(self._rows("items.jsonl"), key=lambda row: (order[row["id"]], row["sample"]))

    @property
    def finished(self) -> bool:
        """Whether every completion is recorded."""
        spec = self.spec
        wanted = spec["benchmark"]["n"] * spec["decoding"]["num_samples"]
        return len(read_rows(self.path / "items.jsonl")) == wanted

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to `items.jsonl`."""
        append_rows(self.path / "items.jsonl", rows)

    def finish(self) -> None:
        """Record the checksums of its files, once every completion is recorded."""
        self._record_checksums(["evaluation.json", "environment.json", "items.jsonl"])
