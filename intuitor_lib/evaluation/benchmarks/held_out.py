"""The problems that a recipe holds out, as a benchmark."""

from typing import Any

from ...problems import DataError, conversation, load_problems
from ...recipe import Recipe
from .benchmarks import Benchmark
from .graders import Item, MathGrader
from .sources import Embedded

HELD_OUT = "held_out"
"""Name of the benchmark of the problems that the recipe `intuitor` holds out."""


def held_out_benchmark(recipe: Recipe) -> Benchmark:
    """Make a benchmark of a recipe's held-out problems, with the prompts of training."""
    problems = load_problems(recipe).held_out
    if not problems:
        raise DataError(f"recipe {recipe.name!r} holds no problem out: set eval_problems")
    family = recipe.dataset.rpartition(":")[2]
    rows = [{"id": p.id, "prompt": p.prompt, "answer": p.answer} for p in problems]

    def to_item(row: Any) -> Item:
        prompt = conversation(row["prompt"], recipe)[-1]["content"]
        return Item(row["id"], row["prompt"], prompt, row["answer"])

    return Benchmark(
        name=f"{HELD_OUT}_{family}",
        title=f"{family}, held out",
        source=Embedded(
            lambda n, seed: rows[:n], f"held-out problems of {recipe.dataset}", len(problems)
        ),
        to_item=to_item,
        grader=MathGrader(extraction=recipe.answer_extraction),
        licence="as its source",
        max_new_tokens=recipe.max_completion_length,
        system_prompt=recipe.system_prompt,
    )
