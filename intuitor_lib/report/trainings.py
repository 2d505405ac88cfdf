"""A table of training metrics, one row per run."""

from collections.abc import Sequence

import numpy as np

from ..store import Run
from .tables import Table


def training_summary(runs: Sequence[Run]) -> Table:
    """Metrics of each run at the start and the end: means of the first and last three steps.

    The caption compares the rise of self-certainty with its spread over the runs.
    """
    rows, rises = [], []
    for run in runs:
        recipe, metrics = run.recipe, run.metrics
        cells = [
            recipe.name,
            "+".join(recipe.rewards),
            recipe.seed,
            f"{run.steps}/{recipe.max_steps}",
            f"{run.seconds:.0f}",
        ]
        for column, digits in (
            ("rewards/self_certainty/mean", 2),
            ("rewards/accuracy/mean", 2),
            ("completions/mean_length", 1),
            ("kl", 3),
        ):
            values = [row[column] for row in metrics if row.get(column) is not None]
            if not values:
                cells.append("-")
                continue
            first, last = np.mean(values[:3]), np.mean(values[-3:])
            cells.append(f"{first:.{digits}f} -> {last:.{digits}f}")
            if column == "rewards/self_certainty/mean":
                rises.append(last - first)
        rows.append(cells)
    caption = "Training metrics: mean of the first three -> last three steps."
    if len(rises) > 1:
        caption += (
            f" Rise of self-certainty: mean {np.mean(rises):.2f} nats, standard deviation over "
            f"{len(rises)} runs {np.std(rises, ddof=1):.2f}."
        )
    header = ["recipe", "reward", "seed", "steps", "s"]
    return Table([*header, "self-certainty", "accuracy", "length", "KL"], rows, caption)
