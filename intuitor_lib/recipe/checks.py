"""Faults of a recipe: values of a wrong type, out of range, or at odds with one another."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .constants import (
    EMBEDDED_CONTEXT,
    EMBEDDED_MODEL,
    EMBEDDED_PROGRAMS,
    GENERATOR_PREFIX,
    REWARDS,
    RecipeError,
)

if TYPE_CHECKING:
    from .recipe import Recipe

__all__ = ["fits", "model_context", "parse_object", "plain", "type_faults", "value_faults"]


def plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def parse_object(parse: Any, text: str, form: str) -> Mapping[str, Any]:
    # yaml.YAMLError is no ValueError; json.JSONDecodeError is one.
    try:
        values = parse(text)
    except Exception as error:
        raise RecipeError(f"not readable as {form}: {error}") from error
    if not isinstance(values, Mapping):
        raise RecipeError(
            f"a recipe in {form} is a mapping of settings to values, not {type(values).__name__}"
        )
    return values


def type_faults(recipe: Recipe) -> typing.Iterator[str]:
    hints = typing.get_type_hints(type(recipe))
    for f in dataclasses.fields(recipe):
        value, hint = getattr(recipe, f.name), hints[f.name]
        if not fits(value, hint):
            expected = str(f.type).replace("typing.", "")
            yield f"{f.name}={value!r} is not of type {expected}"


def fits(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(item, args[0]) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if hint is float:
        # An int too large for a float stays one and does not fit.
        number = isinstance(value, float) or (isinstance(value, int) and abs(value) < 1e300)
        return number and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def value_faults(r: Recipe) -> typing.Iterator[str]:
    choices = {
        "dtype": ("auto", "bfloat16", "float16", "float32"),
        "quantization": ("nf4", "none"),
        "over_long_prompts": ("drop", "refuse"),
        "annotator": ("online", "offline"),
        "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
        "rollout": ("auto", "grouped", "generate", "continuous_batching", "vllm"),
        "certainty_from": ("auto", "sampling", "forward"),
        "update": ("auto", "grouped", "plain"),
        "vllm_mode": ("colocate", "server"),
        "on_collapse": ("warn", "stop", "restore"),
        "lr_scheduler_type": ("cosine", "linear", "constant", "constant_with_warmup"),
    }
    for key, allowed in choices.items():
        if getattr(r, key) not in allowed:
            yield f"{key}={getattr(r, key)!r}: choose one of {', '.join(allowed)}"
    positive = (
        "lora_r lora_alpha learning_rate max_steps per_device_train_batch_size "
        "gradient_accumulation_steps num_iterations epsilon max_prompt_length "
        "max_completion_length temperature adam_epsilon max_grad_norm save_steps"
    )
    for key in positive.split():
        if not (math.isfinite(getattr(r, key)) and getattr(r, key) > 0):
            yield f"{key}={getattr(r, key)!r}: must be greater than 0"
    natural = "eval_problems top_k weight_decay seed dataset_seed preflight_problems"
    for key in natural.split():
        if not (math.isfinite(getattr(r, key)) and getattr(r, key) >= 0):
            yield f"{key}={getattr(r, key)!r}: must be 0 or greater"
    for key in ("warmup_ratio", "lora_dropout", "adam_beta1", "adam_beta2"):
        if not 0 <= getattr(r, key) < 1:
            yield f"{key}={getattr(r, key)!r}: must be in [0, 1)"
    if not 0 < r.top_p <= 1:
        yield f"top_p={r.top_p!r}: must be in (0, 1]; 1 samples from the whole distribution"
    if not r.beta >= 0 or math.isinf(r.beta):
        yield f"beta={r.beta!r}: the KL coefficient must be 0 or greater; the paper uses 0.005"
    if r.num_generations < 2:
        yield (
            f"num_generations={r.num_generations}: a group needs at least 2 completions, since "
            "advantages are relative to its mean; the paper uses 7"
        )
    elif r.completions_per_step % r.num_generations:
        yield (
            f"num_generations={r.num_generations} does not divide the batch of "
            f"{r.per_device_train_batch_size} x {r.gradient_accumulation_steps} = "
            f"{r.completions_per_step} completions: make per_device_train_batch_size x "
            "gradient_accumulation_steps a multiple of it"
        )
    if r.rollout_batch_size is not None and r.rollout_batch_size < 1:
        yield f"rollout_batch_size={r.rollout_batch_size}: must be at least 1, or null for all"
    if not 0 < r.vllm_gpu_memory_utilization < 1:
        yield (
            f"vllm_gpu_memory_utilization={r.vllm_gpu_memory_utilization}: must be in (0, 1), the "
            "share of the GPU that vLLM may take"
        )
    if "@" in (r.vllm_server_base_url or ""):
        yield (
            "vllm_server_base_url holds a user or password, which would be written into the run: "
            "give http://HOST:PORT alone"
        )
    if r.rollout == "vllm" and r.vllm_mode == "server" and not r.vllm_server_base_url:
        yield "vllm_mode='server' without vllm_server_base_url: give http://HOST:PORT of the server"
    sampled_here = r.rollout in ("auto", "grouped") and r.annotator == "online"
    if r.certainty_from == "sampling" and not sampled_here:
        yield (
            f"certainty_from='sampling' with rollout={r.rollout!r} and annotator={r.annotator!r}: "
            "the logits of the policy are at hand only for rollout='grouped' and "
            "annotator='online'; take certainty_from='forward' or 'auto'"
        )
    if r.eval_steps is not None and r.eval_steps < 1:
        yield f"eval_steps={r.eval_steps}: must be at least 1, or null for none on the way"
    elif r.eval_steps is not None and not r.eval_problems:
        yield (
            f"eval_steps={r.eval_steps} with eval_problems=0: no problem is held out to measure "
            "on; set eval_problems, or eval_steps to null"
        )
    if r.snapshot_steps is not None and r.snapshot_steps < 1:
        yield f"snapshot_steps={r.snapshot_steps}: must be at least 1, or null for none"
    if r.max_problems is not None and r.max_problems < 1:
        yield f"max_problems={r.max_problems}: must be at least 1, or null for all"
    for key in ("seed", "dataset_seed"):
        if getattr(r, key) >= 2**32:
            yield f"{key}={getattr(r, key)}: must be below 2**32, the range of numpy's seeds"
    for key in ("name", "model", "dataset", "dataset_split", "prompt_column"):
        if not getattr(r, key):
            yield f"{key} is empty: give a value, or leave it out for {getattr(type(r), key)!r}"
    if r.answer_column == "":
        yield "answer_column is empty: name a column, or null for problems without answers"
    if r.tests_column == "":
        yield "tests_column is empty: name a column, or null for problems without unit tests"
    if not _is_json(r.dataset_kwargs):
        yield f"dataset_kwargs={dict(r.dataset_kwargs)!r}: must hold JSON values under text keys"
    if r.prompt_template.count("{prompt}") != 1:
        yield f"prompt_template={r.prompt_template!r}: must hold {{prompt}} exactly once"
    yield from _reward_faults(r)
    yield from _policy_faults(r)


def _is_json(values: Mapping[str, Any]) -> bool:
    try:
        return json.loads(json.dumps(plain(values), allow_nan=False)) == plain(values)
    except (TypeError, ValueError):
        return False


def _reward_faults(r: Recipe) -> typing.Iterator[str]:
    if not r.rewards:
        yield "rewards=(): name at least one of " + ", ".join(REWARDS)
    if len(set(r.rewards)) != len(r.rewards):
        yield f"rewards={r.rewards!r}: each may be named once; use reward_weights to weigh them"
    for reward in r.rewards:
        if reward not in REWARDS:
            yield f"rewards holds {reward!r}: choose from {', '.join(REWARDS)}"
    weights = r.reward_weights or (1.0,)
    if not all(map(math.isfinite, weights)) or not any(weights):
        yield f"reward_weights={r.reward_weights!r}: must be finite numbers, not all of them 0"
    generated = r.dataset.startswith(GENERATOR_PREFIX)
    if "accuracy" in r.rewards and r.answer_column is None and not generated:
        yield "rewards holds 'accuracy' and answer_column is null: name the answers' column"
    if "unit_tests" in r.rewards and r.tests_column is None and r.dataset != EMBEDDED_PROGRAMS:
        yield (
            "rewards holds 'unit_tests' and tests_column is null: name the tests' column, or take "
            f"dataset={EMBEDDED_PROGRAMS!r}, whose problems have tests"
        )
    if r.reward_weights is not None and len(r.reward_weights) != len(r.rewards):
        yield (
            f"reward_weights={r.reward_weights!r} has {len(r.reward_weights)} values for "
            f"{len(r.rewards)} rewards: give one weight each, or null for equal weights"
        )


def _policy_faults(r: Recipe) -> typing.Iterator[str]:
    if r.quantization != "none" and not r.use_lora:
        yield (
            f"quantization={r.quantization!r} with use_lora=false: 4-bit weights cannot be "
            "trained; set use_lora=true, or quantization='none'"
        )
    if r.adapter is not None and not r.use_lora:
        yield f"adapter={r.adapter!r} with use_lora=false: set use_lora=true to continue it"
    if not r.lora_target_modules or "" in tuple(r.lora_target_modules):
        yield "lora_target_modules is empty: name layers, or 'all-linear'"
    if r.model.startswith("embedded:") and r.model != EMBEDDED_MODEL:
        yield f"model={r.model!r}: the only embedded model is {EMBEDDED_MODEL!r}"
    if r.dataset.startswith("embedded:") and r.dataset != EMBEDDED_PROGRAMS:
        yield f"dataset={r.dataset!r}: the only embedded problems are {EMBEDDED_PROGRAMS!r}"
    context = model_context(r.model)
    if context is not None and r.max_completion_length >= context:
        yield (
            f"max_completion_length={r.max_completion_length} leaves no room for a prompt in the "
            f"{context} tokens of {r.model}: lower it"
        )
    elif context is not None and r.max_prompt_length + r.max_completion_length > context:
        yield (
            f"max_prompt_length={r.max_prompt_length} + max_completion_length="
            f"{r.max_completion_length} exceed the {context} tokens of {r.model}: lower one"
        )


def model_context(model: str) -> int | None:
    """Context length (tokens) of the embedded model or a local folder; None for a hub name.

    A hub name is checked against the model's own configuration when the policy is loaded.
    """
    if model == EMBEDDED_MODEL:
        return EMBEDDED_CONTEXT
    config = Path(model) / "config.json"
    if not config.is_file():
        return None
    values = parse_object(json.loads, config.read_text(encoding="utf-8"), "JSON")
    return values.get("max_position_embeddings")
