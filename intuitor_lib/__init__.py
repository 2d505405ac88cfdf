"""INTUITOR: reinforcement learning from a language model's own confidence (arXiv 2505.19590).

Names are loaded on first use, so importing the package is fast and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answers import extract_answer, is_correct
    from .benchmarks import BENCHMARKS
    from .certainty import score_completions, self_certainty
    from .data import load_problems
    from .evaluation import evaluate
    from .grpo import IntuitorTrainer
    from .policy import load_policy
    from .recipe import Recipe, RecipeError
    from .recipes import PROFILES, RECIPES, get_recipe
    from .rewards import SelfCertaintyReward
    from .runs import Run, RunStore
    from .trainer import train

__version__ = "0.1.0"

_MODULE_OF = {
    "BENCHMARKS": "benchmarks",
    "IntuitorTrainer": "grpo",
    "PROFILES": "recipes",
    "RECIPES": "recipes",
    "Recipe": "recipe",
    "RecipeError": "recipe",
    "Run": "runs",
    "RunStore": "runs",
    "SelfCertaintyReward": "rewards",
    "evaluate": "evaluation",
    "extract_answer": "answers",
    "get_recipe": "recipes",
    "is_correct": "answers",
    "load_policy": "policy",
    "load_problems": "data",
    "score_completions": "certainty",
    "self_certainty": "certainty",
    "train": "trainer",
}

__all__ = [
    "BENCHMARKS",
    "PROFILES",
    "RECIPES",
    "IntuitorTrainer",
    "Recipe",
    "RecipeError",
    "Run",
    "RunStore",
    "SelfCertaintyReward",
    "evaluate",
    "extract_answer",
    "get_recipe",
    "is_correct",
    "load_policy",
    "load_problems",
    "score_completions",
    "self_certainty",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
