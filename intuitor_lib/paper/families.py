"""The model families of the paper's Tables 4 to 6, trained at a size that fits any machine.

A tiny model has a family's architecture as transformers implements it, random weights and the
tokenizer of SmolLM2. It learns nothing; it shows that the family trains in 4 bits with LoRA.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.benchmarks import get_benchmark, load_items
from ..evaluation.benchmarks.benchmarks import with_math_prompt
from ..recipe import SYSTEM_PROMPTS, InputError, Recipe, get_recipe
from ..report import Table, difference_over_problems, mean_over_seeds
from ..store import RunStore
from .numbers import CHECKPOINTS, TABLES
from .plan import Rows
from .verdicts import signed

ARCHITECTURES: Mapping[str, str] = {
    **dict.fromkeys(("qwen2.5-7b", "qwen2.5-14b"), "Qwen2"),
    **{"qwen3-14b": "Qwen3", "llama3.2-3b": "Llama", "olmo2-7b": "Olmo2"},
}
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
    rows: Sequence[str],
    columns: Mapping[str, str],
    *,
    n: int | None = None,
    quantization: str = "none",
    models: str | Path | None = None,
    max_new_tokens: int | None = None,
    runs: str | Path | None = None,
) -> tuple[Table, dict[tuple[str, str], dict[str, Any]]]:
    """Evaluate models that the authors published, and their bases, beside the paper's values.

    Args:
        rows: rows of the paper's tables, of `CHECKPOINTS`; the base of each is evaluated, too.
        columns: the paper's column for each benchmark's name.
        n: items of each benchmark; default all.
        quantization: "nf4" or "none".
        models: a folder with models as `<name>/<repository>`, instead of the hub.
        max_new_tokens: token limit of a completion; default the benchmark's.
        runs: the run store.

    Returns:
        A table, a line for each model and column, with the gain over its base, paired by problem;
        and our values by row and column.

    Raises:
        KeyError: a row without a checkpoint.
        InputError: a benchmark or a local model is not there; before any is evaluated.
    """
    from ..evaluation.evaluation import evaluate
    from ..evaluation.subjects import find_subject

    unknown = {*rows} - {*CHECKPOINTS}
    if unknown:
        raise KeyError(f"no checkpoints {sorted(unknown)}: choose from {', '.join(CHECKPOINTS)}")
    wanted = {*rows, *(row.partition(" + ")[0] for row in rows)}
    chosen = {row: about for row, about in CHECKPOINTS.items() if row in wanted}
    places = {row: _place(about["model"], models) for row, about in chosen.items()}
    for benchmark in columns if rows else ():
        load_items(get_benchmark(benchmark), n)
    made: dict[tuple[str, str], Rows] = {}
    for row, model in places.items():
        subject = find_subject(model, RunStore(runs), quantization=quantization).kept()
        prompt = SYSTEM_PROMPTS[CHECKPOINTS[row]["system_prompt"]]
        for benchmark, column in columns.items():
            asked = with_math_prompt(get_benchmark(benchmark), prompt)
            record = evaluate(subject, asked, n=n, max_new_tokens=max_new_tokens, runs=runs)
            made[row, column] = record.rows
    found = {}
    for (row, column), rated in made.items():
        score = mean_over_seeds([rated], "correct").to_dict()
        about = {"profile": "none", "seeds": [], "model": CHECKPOINTS[row]["model"]}
        found[row, column] = {**score, **about}
    return _beside(made, columns, n, quantization), found


def _place(model: str, models: str | Path | None) -> str:
    if models is None:
        return model
    if not (Path(models) / model / "config.json").is_file():
        raise InputError(f"no model in {Path(models) / model}: put it there, or leave models out")
    return str(Path(models) / model)


def _beside(
    made: Mapping[tuple[str, str], Rows], columns: Mapping[str, str], n: int | None, weights: str
) -> Table:
    """Tabulate the paper's values and gains beside ours; all rows where none was evaluated."""
    lines = []
    shown = {row for row, _ in made} or {*CHECKPOINTS}
    for row, about in CHECKPOINTS.items():
        if row not in shown:
            continue
        table = next(table for table in TABLES.values() if row in table.rows)
        base = row.partition(" + ")[0]
        for column in columns.values():
            value, start = table.value(row, column), table.value(base, column)
            cells = [f"{value:.3f}", "not run here", "-", "-"]
            if (row, column) in made:
                cells[1] = mean_over_seeds([made[row, column]], "correct").text()
            if row != base:
                cells[2] = f"{value - start:+.3f}"
                if (row, column) in made:
                    before, after = made[base, column], made[row, column]
                    cells[3] = signed(difference_over_problems(before, after, "correct"))
            lines.append([row, about["model"], column, *cells])
    header = ["row", "checkpoint", "benchmark", "paper", "ours", "paper's gain", "our gain"]
    caption = (
        f"Paper: Tables 1, 4 and 6. Ours: n = {n or 'all'} items, greedy, weights "
        f"{'in NF4' if weights == 'nf4' else 'as published'}; gains are over the base, paired."
    )
    return Table(header, lines, caption)
