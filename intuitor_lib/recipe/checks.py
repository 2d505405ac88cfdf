"""Faults of a recipe: values of a wrong type, out of range, or at odds with one another."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .constants import (
    EMBEDDED_HUMANEVAL,
    EMBEDDED_MODELS,
    EMBEDDED_PROBLEMS,
    GENERATED,
    REWARDS,
    SETTINGS,
    RecipeError,
)

if TYPE_CHECKING:
    from .recipe import Recipe


def plain(value: Any) -> Any:
    """A value with mappings as dictionaries and tuples as lists, as JSON and YAML have them."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def type_faults(recipe: Recipe) -> Iterator[str]:
    """Values that are not of the type of their setting."""
    hints = typing.get_type_hints(type(recipe))
    for f in dataclasses.fields(recipe):
        value = getattr(recipe, f.name)
        if not fits(value, hints[f.name]):
            yield f"{f.name}={value!r} is not of type {f.type}"


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that a setting is annotated with."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(item, args[0]) for item in value)
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        # An int too large for a float stays one and does not fit.
        return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1e300)
    return isinstance(value, origin or hint)


def value_faults(r: Recipe) -> Iterator[str]:
    """Values that break a rule of their setting, or are at odds with another setting."""
    for key, about in SETTINGS.items():
        value, choices = getattr(r, key), about.get("one_of")
        if choices is not None and value not in choices.split(", "):
            yield f"{key}={value!r}: choose one of {choices}"
        for interval, remedy in about.get("within", {}).items():
            if value is not None and not _inside(value, interval):
                yield f"{key}={value!r}: {remedy}"
    rest = (_problem_faults, _reward_faults, _tracker_faults, _policy_faults)
    for faults in (_batch_faults, _rollout_faults, *rest):
        yield from faults(r)


def _inside(value: float, interval: str) -> bool:
    """Whether a number lies in an interval as mathematics writes it, such as `[0, 1)`."""
    low, high = map(float, interval[1:-1].split(", "))
    above = value > low or (value == low and interval[0] == "[")
    return above and (value < high or (value == high and interval[-1] == "]"))


def _batch_faults(r: Recipe) -> Iterator[str]:
    if r.num_generations >= 2 and r.completions_per_step % r.num_generations:
        yield (
            f"num_generations={r.num_generations} does not divide the batch of "
            f"{r.per_device_train_batch_size} x {r.gradient_accumulation_steps} = "
            f"{r.completions_per_step} completions: make per_device_train_batch_size x "
            "gradient_accumulation_steps a multiple of it"
        )
    if (r.eval_steps or 0) >= 1 and not r.eval_problems:
        yield (
            f"eval_steps={r.eval_steps} with eval_problems=0: no problem is held out to measure "
            "on; set eval_problems, or eval_steps to null"
        )


def _rollout_faults(r: Recipe) -> Iterator[str]:
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


def _problem_faults(r: Recipe) -> Iterator[str]:
    for key in ("name", "model", "dataset", "dataset_split", "prompt_column"):
        if not getattr(r, key):
            yield f"{key} is empty: give a value, or leave it out for {getattr(type(r), key)!r}"
    for key, what in {"answer_column": "answers", "tests_column": "unit tests"}.items():
        if getattr(r, key) == "":
            yield f"{key} is empty: name a column, or null for problems without {what}"
    if r.prompt_template.count("{prompt}") != 1:
        yield f"prompt_template={r.prompt_template!r}: must hold {{prompt}} exactly once"
    if not _is_json(r.dataset_kwargs):
        yield f"dataset_kwargs={dict(r.dataset_kwargs)!r}: must hold JSON values under text keys"
    if r.dataset.startswith("embedded:") and r.dataset not in EMBEDDED_PROBLEMS:
        yield f"dataset={r.dataset!r}: embedded problems are {' and '.join(EMBEDDED_PROBLEMS)}"


def _is_json(values: Mapping[str, Any]) -> bool:
    try:
        return json.loads(json.dumps(plain(values), allow_nan=False)) == plain(values)
    except (TypeError, ValueError):
        return False


def _reward_faults(r: Recipe) -> Iterator[str]:
    for reward in r.rewards:
        if reward not in REWARDS:
            yield f"rewards holds {reward!r}: choose from {', '.join(REWARDS)}"
    if not r.rewards:
        yield f"rewards={r.rewards!r}: name at least one of {', '.join(REWARDS)}"
    if len(set(r.rewards)) < len(r.rewards):
        yield f"rewards={r.rewards!r}: each may be named once; use reward_weights to weigh them"
    generated = r.dataset.startswith(GENERATED)
    if "accuracy" in r.rewards and r.answer_column is None and not generated:
        yield "rewards holds 'accuracy' and answer_column is null: name the answers' column"
    if "unit_tests" in r.rewards and r.tests_column is None and r.dataset != EMBEDDED_HUMANEVAL:
        yield (
            "rewards holds 'unit_tests' and tests_column is null: name the tests' column, or take "
            f"dataset={EMBEDDED_HUMANEVAL!r}, whose problems have tests"
        )
    if r.reward_weights and not (
        all(map(math.isfinite, r.reward_weights)) and any(r.reward_weights)
    ):
        yield f"reward_weights={r.reward_weights!r}: must be finite numbers, not all of them 0"
    if r.reward_weights is not None and len(r.reward_weights) != len(r.rewards):
        yield (
            f"reward_weights={r.reward_weights!r} has {len(r.reward_weights)} values for "
            f"{len(r.rewards)} rewards: give one weight each, or null for equal weights"
        )


def _tracker_faults(r: Recipe) -> Iterator[str]:
    choices = SETTINGS["report_to"]["each_of"]
    named = [r.report_to] if isinstance(r.report_to, str) else [*r.report_to]
    for tracker in named:
        if tracker not in choices.split(", "):
            yield f"report_to={tracker!r}: choose from {choices}, or a list of several"
    if len(set(named)) < len(named) or ("none" in named and len(named) > 1):
        yield f"report_to={named!r}: name each tracker once, or 'none' alone"


def _policy_faults(r: Recipe) -> Iterator[str]:
    if r.quantization != "none" and not r.use_lora:
        yield (
            f"quantization={r.quantization!r} with use_lora=false: 4-bit weights cannot be "
            "trained; set use_lora=true, or quantization='none'"
        )
    if r.adapter is not None and not r.use_lora:
        yield f"adapter={r.adapter!r} with use_lora=false: set use_lora=true to continue it"
    if not r.lora_target_modules or "" in tuple(r.lora_target_modules):
        yield "lora_target_modules is empty: name layers, or 'all-linear'"
    if r.model.startswith("embedded:") and r.model not in EMBEDDED_MODELS:
        yield f"model={r.model!r}: embedded models are {' and '.join(EMBEDDED_MODELS)}"
    yield from context_faults(r, model_context(r.model))


def context_faults(r: Recipe, context: int | None) -> Iterator[str]:
    """Lengths that do not fit a model's context (tokens, None if it is not known)."""
    if context is None:
        return
    if r.max_completion_length >= context:
        yield (
            f"max_completion_length={r.max_completion_length} leaves no room for a prompt in the "
            f"{context} tokens of {r.model}: lower it"
        )
    elif r.max_prompt_length + r.max_completion_length > context:
        yield (
            f"max_prompt_length={r.max_prompt_length} + max_completion_length="
            f"{r.max_completion_length} exceed the {context} tokens of {r.model}: lower one"
        )


def model_context(model: str) -> int | None:
    """Context length (tokens) of an embedded model or a local folder; None for a hub name.

    A hub name is checked against the model's own configuration when the policy is loaded.
    """
    if model in EMBEDDED_MODELS:
        return EMBEDDED_MODELS[model]
    config = Path(model) / "config.json"
    if not config.is_file():
        return None
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(
            f"{config} is not readable as JSON ({error}): fetch it again, by `git lfs pull` if it "
            "is a Git LFS pointer"
        ) from error
    return values.get("max_position_embeddings") if isinstance(values, Mapping) else None
