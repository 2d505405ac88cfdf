"""The model families of the paper's Tables 4 to 6, trained at a size that fits any machine.

A tiny model has a family's architecture as transformers implements it, random weights and the
tokenizer of SmolLM2. It learns nothing; it shows that the family trains in 4 bits with LoRA.
"""

import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..recipe import Recipe, get_recipe
from ..report import Table, mean_over_seeds
from .numbers import CHECKPOINTS, TABLES

ARCHITECTURES: Mapping[str, str] = types.MappingProxyType(
    dict.fromkeys(("qwen2.5-7b", "qwen2.5-14b"), "Qwen2")
    | {"qwen3-14b": "Qwen3", "llama3.2-3b": "Llama", "olmo2-7b": "Olmo2"}
)
"""The architecture of each recipe's model, in the names of transformers' classes."""


def tiny_recipe(name: str, folder: str | Path) -> Recipe:
    """Make a recipe that trains a tiny model of another recipe's family for two steps.

    The other settings are those of `intuitor` under the profile smoke. The model is made in
    `folder` if it is missing there.

    Raises:
        ValueError: `name` is not in `ARCHITECTURES`.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"name={name!r}: choose from {', '.join(ARCHITECTURES)}")
    from ..policy.tiny import make_tiny_model

    kind = ARCHITECTURES[name].lower()
    place = Path(folder) / kind
    if not (place / "config.json").is_file():
        make_tiny_model(ARCHITECTURES[name], place, head_dim=16)
    return get_recipe(
        "intuitor", "smoke", name=f"tiny-{kind}", model=str(place), preflight_problems=0
    )


def evaluate_checkpoints(
    rows: Sequence[str], columns: Mapping[str, str], *, n: int | None = None
) -> tuple[Table, dict[tuple[str, str], dict[str, Any]]]:
    """Evaluate models that the authors published, beside the paper's values for them.

    Args:
        rows: rows of the paper's tables, of `CHECKPOINTS`.
        columns: the paper's column for each benchmark's name.
        n: items of each benchmark.

    Returns:
        A table of all checkpoints, and our values by row and column.
    """
    from ..evaluation import evaluate

    unknown = {*rows} - {*CHECKPOINTS}
    if unknown:
        raise KeyError(f"no checkpoints {sorted(unknown)}: choose from {', '.join(CHECKPOINTS)}")
    found: dict[tuple[str, str], dict[str, Any]] = {}
    lines = []
    for row, model in CHECKPOINTS.items():
        table = next(table for table in TABLES.values() if row in table.rows)
        cells = [f"{table.value(row, column):.3f}" for column in columns.values()]
        for benchmark, column in columns.items() if row in rows else ():
            score = mean_over_seeds([evaluate(model, benchmark, n=n).rows], "correct")
            found[row, column] = {**score.to_dict(), "profile": "none", "seeds": [], "model": model}
            cells.append(score.text())
        lines.append([row, model, *cells, *["not run here"] * (2 * len(columns) - len(cells))])
    header = [f"{who}: {column}" for who in ("paper", "ours") for column in columns.values()]
    caption = f"Paper: Tables 1, 4 and 6. Ours: n = {n or 'all'} items, greedy."
    return Table(["row", "checkpoint", *header], lines, caption), found
