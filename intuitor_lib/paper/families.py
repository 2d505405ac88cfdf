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


def tiny_recipe(name: str, folder: str | Path, *, seed: int = 7) -> Recipe:
    """Make a recipe that trains a tiny model of another recipe's family for two steps.

    The other settings are those of `intuitor` under the profile smoke. The model is made in
    `folder` if it is missing there.

    Raises:
        ValueError: `name` is not in `ARCHITECTURES`.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"name={name!r}: choose from {', '.join(ARCHITECTURES)}")
    from ..policy.tiny import make_tiny_model

    place = Path(folder) / ARCHITECTURES[name].lower()
    if not (place / "config.json").is_file():
        make_tiny_model(ARCHITECTURES[name], place, head_dim=16)
    return get_recipe(
        "intuitor",
        "smoke",
        name=f"tiny-{ARCHITECTURES[name].lower()}",
        model=str(place),
        seed=seed,
        preflight_problems=0,
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

    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        for benchmark, column in columns.items():
            record = evaluate(CHECKPOINTS[row], benchmark, n=n)
            score = mean_over_seeds([record.rows], "correct")
            about = {"profile": "none", "seeds": [], "model": CHECKPOINTS[row]}
            found[row, column] = {**score.to_dict(), **about}
    lines = []
    for row, model in CHECKPOINTS.items():
        table = next(table for table in TABLES.values() if row in table.rows)
        theirs = [f"{table.value(row, column):.3f}" for column in columns.values()]
        ours = [
            _text(found[row, column]) if (row, column) in found else "not run here"
            for column in columns.values()
        ]
        lines.append([row, model, *theirs, *ours])
    header = [f"{who}: {column}" for who in ("paper", "ours") for column in columns.values()]
    caption = f"Paper: Tables 1, 4 and 6. Ours: n = {n or 'all'} items, greedy."
    return Table(["row", "checkpoint", *header], lines, caption), found


def _text(values: Mapping[str, Any]) -> str:
    return f"{values['value']:.2f} [{values['low']:.2f}, {values['high']:.2f}]"
