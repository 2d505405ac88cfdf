"""Rules for the values of single settings, each with the remedy that its error message gives."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from .constants import REWARDS


class Rule(NamedTuple):
    """A condition on the value of some settings, and the remedy where it does not hold."""

    settings: str
    holds: Callable[[Any], bool]
    remedy: str


def _one_of(setting: str, choices: str) -> Rule:
    return Rule(setting, lambda v: v in choices.split(", "), f"choose one of {choices}")


def _count_or_null(setting: str, null: str) -> Rule:
    remedy = f"must be at least 1, or null for {null}"
    return Rule(setting, lambda v: v is None or v >= 1, remedy)


RULES = (
    _one_of("dtype", "auto, bfloat16, float16, float32"),
    _one_of("quantization", "nf4, none"),
    _one_of("over_long_prompts", "drop, refuse"),
    _one_of("answer_extraction", "boxed, alone, last_number, harness"),
    _one_of("annotator", "online, offline"),
    _one_of("multi_objective_aggregation", "sum_then_normalize, normalize_then_sum"),
    _one_of("rollout", "auto, grouped, generate, vllm"),
    _one_of("certainty_from", "auto, sampling, forward"),
    _one_of("update", "auto, grouped, plain"),
    _one_of("vllm_mode", "colocate, server"),
    _one_of("on_collapse", "warn, stop, restore"),
    _one_of("lr_scheduler_type", "cosine, linear, constant, constant_with_warmup"),
    _count_or_null("rollout_batch_size", "all"),
    _count_or_null("eval_steps", "none on the way"),
    _count_or_null("snapshot_steps", "none"),
    _count_or_null("max_problems", "all"),
    Rule(
        "lora_r lora_alpha learning_rate max_steps per_device_train_batch_size "
        "gradient_accumulation_steps num_iterations epsilon max_prompt_length "
        "max_completion_length temperature adam_epsilon max_grad_norm save_steps",
        lambda v: 0 < v < math.inf,
        "must be greater than 0",
    ),
    Rule(
        "eval_problems top_k weight_decay seed dataset_seed preflight_problems",
        lambda v: 0 <= v < math.inf,
        "must be 0 or greater",
    ),
    Rule(
        "seed dataset_seed", lambda v: v < 2**32, "must be below 2**32, the range of numpy's seeds"
    ),
    Rule(
        "warmup_ratio lora_dropout adam_beta1 adam_beta2", lambda v: 0 <= v < 1, "must be in [0, 1)"
    ),
    Rule("top_p", lambda v: 0 < v <= 1, "must be in (0, 1]; 1 samples from the whole distribution"),
    Rule(
        "vllm_gpu_memory_utilization",
        lambda v: 0 < v < 1,
        "must be in (0, 1), the share of the GPU that vLLM may take",
    ),
    Rule(
        "beta",
        lambda v: 0 <= v < math.inf,
        "the KL coefficient must be 0 or greater; the paper uses 0.005",
    ),
    Rule(
        "num_generations",
        lambda v: v >= 2,
        "a group needs at least 2 completions, since advantages are relative to its mean; the "
        "paper uses 7",
    ),
    Rule("prompt_template", lambda v: v.count("{prompt}") == 1, "must hold {prompt} exactly once"),
    Rule("rewards", bool, f"name at least one of {', '.join(REWARDS)}"),
    Rule(
        "rewards",
        lambda v: len(set(v)) == len(v),
        "each may be named once; use reward_weights to weigh them",
    ),
    Rule(
        "reward_weights",
        lambda v: not v or (all(map(math.isfinite, v)) and any(v)),
        "must be finite numbers, not all of them 0",
    ),
)
"""Checked in this order; `settings` are names with spaces between them."""
