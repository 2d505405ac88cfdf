"""The plan behind the notebooks: trainings (arms), seeds, and test suites per profile."""

from __future__ import annotations

import types
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation.benchmarks.held_out import HELD_OUT
from ..recipe import Recipe, get_recipe

__all__ = [
    "ARMS",
    "MAIN",
    "PLAN",
    "SAME",
    "SEEDS",
    "SUITES",
    "Test",
    "arm_recipe",
    "arm_seeds",
    "planned",
]

Rows = list[dict[str, Any]]

ARMS: Mapping[str, str] = types.MappingProxyType(
    {
        "base": "base",
        "grpo": "GRPO",
        "grpo-pv": "GRPO-PV",
        "intuitor": "INTUITOR",
        "random": "random",
        "em": "EM",
        "intuitor-code": "INTUITOR-Code",
        "grpo-code": "GRPO-Code",
        "kl-0": "β = 0",
        "kl-0.0001": "β = 0.0001",
        "kl-0.005": "β = 0.005",
        "kl-0.01": "β = 0.01",
        "online": "online",
        "offline": "offline",
        "base:unquantized": "base, not quantized",
        "unquantized": "INTUITOR, not quantized",
    }
)
"""Labels of the arms: recipes, and the bases that they start from."""

SEEDS: Mapping[str, tuple[int, ...]] = types.MappingProxyType(
    {"smoke": (7,), "cpu": (7, 8, 9), "gpu-12gb": (7,), "gpu-24gb": (7,), "paper": (7,)}
)
"""Seeds of the main comparison; other arms are trained with the first one."""

SAME: Mapping[str, str] = types.MappingProxyType({"kl-0.005": "intuitor"})
"""Arms that are the same training as another arm."""

MAIN = ("grpo", "grpo-pv", "intuitor", "random")
"""Arms that are trained with every seed."""

PLAN: Mapping[str, tuple[str, ...]] = types.MappingProxyType(
    {
        "00_quickstart": (),
        "01_self_certainty": ("grpo", "intuitor"),
        "02_main_results": (*MAIN, "intuitor-code"),
        "03_early_learning": ("grpo", "intuitor"),
        "04_transfer": ("grpo", "intuitor"),
        "05_emergent_reasoning": ("grpo", "intuitor", "intuitor-code"),
        "06_online_vs_offline": ("online", "offline"),
        "07_kl_penalty": ("kl-0", "kl-0.0001", "kl-0.005", "kl-0.01"),
        "08_model_families": (),
        "09_reward_controls": (*MAIN, "em", "unquantized"),
    }
)
"""The arms of each notebook; most are shared."""


@dataclass(frozen=True)
class Test:
    """A benchmark and the decoding with which a policy is evaluated."""

    __test__ = False  # for pytest

    name: str  # in the suite
    benchmark: str  # a name of `BENCHMARKS`, or `HELD_OUT`
    title: str  # in tables
    n: int | None = None  # None: all items
    temperature: float = 0.0
    num_samples: int = 1
    max_new_tokens: int | None = None  # None: the benchmark's
    column: str | None = None  # of the paper's tables; None for a stand-in
    prompt_template: str | None = None  # replaces the recipe's for `HELD_OUT`


def _suite(*tests: Test) -> Mapping[str, Test]:
    return types.MappingProxyType({test.name: test for test in tests})


_PRODUCTS, _SUMS = "products, held out", "sums (chain_sum)"
_GPU_SUITE = _suite(
    Test("in_domain", "math500", "MATH500", column="MATH500"),
    Test("in_domain_sampled", "math500", "MATH500, sampled", 100, 0.9, 4),
    Test("transfer", "livecodebench", "LiveCodeBench v6", column="LCB"),
    Test("gsm8k", "gsm8k", "GSM8K", column="GSM8K"),
    Test("structured", "cruxeval", "CRUXEval-O", column="CRUX"),
    Test("mmlu_pro", "mmlu_pro", "MMLU-Pro", column="MMLU-Pro"),
    Test("instructions", "alpaca_eval", "AlpacaEval 2.0", column="AlpacaEval"),
    Test("code", "livecodebench", "LiveCodeBench v6, ten problems", 10),
    Test("signal", "math500", "MATH500, 16 samples", 100, 0.9, 16),
    Test("cool", "math500", "MATH500, T = 0.3", 100, 0.3, 2),
    Test("longer", "math500", "MATH500, limit 6,144", 100, 0.9, 2, 6144),
    Test("plain", "math500", "MATH500, second draw", 100, 0.9, 2),
)
SUITES: Mapping[str, Mapping[str, Test]] = types.MappingProxyType(
    {
        "smoke": _suite(
            Test("in_domain", HELD_OUT, _PRODUCTS, 2, max_new_tokens=4),
            Test("in_domain_sampled", HELD_OUT, f"{_PRODUCTS}, sampled", 2, 0.9, 2, 4),
            Test("transfer", "chain_sum", _SUMS, 2, max_new_tokens=4),
            Test("structured", "program_output", "program_output", 2, max_new_tokens=4),
            Test("instructions", "instructions", "instructions", 2, max_new_tokens=4),
            Test("code", "programs", "programs, two problems", 2, max_new_tokens=4),
            Test("signal", HELD_OUT, f"{_PRODUCTS}, sampled", 4, 0.9, 4, 8),
            Test("cool", HELD_OUT, f"{_PRODUCTS}, T = 0.3", 2, 0.3, 2, 4),
            Test("longer", HELD_OUT, f"{_PRODUCTS}, limit 6", 2, 0.9, 2, 6),
            Test("plain", HELD_OUT, f"{_PRODUCTS}, as they are", 2, 0.9, 2, 4, None, "{prompt}"),
        ),
        "cpu": _suite(
            Test("in_domain", HELD_OUT, _PRODUCTS, 50, max_new_tokens=40),
            Test("in_domain_sampled", HELD_OUT, f"{_PRODUCTS}, sampled", 50, 0.9, 2, 40),
            Test("transfer", "chain_sum", _SUMS, 64, max_new_tokens=40),
            Test("structured", "program_output", "program_output", 24, max_new_tokens=96),
            Test("instructions", "instructions", "instructions", 40, max_new_tokens=64),
            Test("code", "programs", "programs, ten problems", 10, max_new_tokens=128),
            Test("signal", HELD_OUT, f"{_PRODUCTS}, sampled", 50, 0.9, 8, 40),
            Test("cool", HELD_OUT, f"{_PRODUCTS}, T = 0.3", 50, 0.3, 2, 40),
            Test("longer", HELD_OUT, f"{_PRODUCTS}, limit 96", 50, 0.9, 1, 96),
            Test("plain", HELD_OUT, f"{_PRODUCTS}, as they are", 50, 0.9, 2, 40, None, "{prompt}"),
        ),
        "gpu-12gb": _GPU_SUITE,
        "gpu-24gb": _GPU_SUITE,
        "paper": _GPU_SUITE,
    }
)
"""The tests of each profile, by name. Only the GPU profiles have the paper's benchmarks."""


def arm_seeds(arm: str, profile: str, seeds: Sequence[int] | None = None) -> Sequence[int]:
    """Seeds to train an arm with, of `seeds` or the profile's."""
    given = SEEDS[profile] if seeds is None else seeds
    return given if arm in MAIN else given[:1]


def planned(profile: str) -> dict[str, Recipe]:
    """Every training of the notebooks under a profile, once each, by recipe digest."""
    arms = dict.fromkeys(SAME.get(arm, arm) for names in PLAN.values() for arm in names)
    recipes = [arm_recipe(arm, profile, seed) for arm in arms for seed in arm_seeds(arm, profile)]
    return {recipe.digest: recipe for recipe in recipes}


def arm_recipe(arm: str, profile: str, seed: int) -> Recipe:
    """The recipe of an arm; for a base, the recipe that starts from it."""
    name = arm.partition(":")[2] or ("intuitor" if arm == "base" else arm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # beta = 0 is intended in its arm
        return get_recipe(name, profile, seed=seed)
