"""What to train and how: typed, validated settings, each with the source of its default.

A `Recipe` holds every setting that changes a training's result. Setting names are TRL's, PEFT's
and transformers' wherever they have one. Named recipes and profiles are in `recipes`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "EMBEDDED_MODEL",
    "EMBEDDED_PROGRAMS",
    "GENERATOR_PREFIX",
    "REWARDS",
    "SYSTEM_PROMPTS",
    "InputError",
    "Recipe",
    "RecipeError",
    "model_context",
    "require_known",
]

EMBEDDED_MODEL = "embedded:SmolLM2-135M-Instruct"
"""The model that comes from the package registry; needs no model hub."""

EMBEDDED_CONTEXT = 8192
"""Context of the embedded model (tokens): `max_position_embeddings` of SmolLM2-135M."""

EMBEDDED_PROGRAMS = "embedded:programs"
"""`dataset=EMBEDDED_PROGRAMS` are small programming problems made by this package."""

GENERATOR_PREFIX = "reasoning-gym:"
"""`dataset="reasoning-gym:chain_sum"` names a procedural generator of that package."""

REWARDS = (
    "self_certainty",
    "accuracy",
    "plurality",
    "negative_entropy",
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
    """Bad input of the user's. The message says what was given, what is expected, what to do."""


class RecipeError(InputError):
    """A recipe that cannot be trained. The message lists every fault with its remedy."""


def _setting(default: Any, source: str, *, label: bool = False, later: bool = False) -> Any:
    """A dataclass field that carries the source of its default.

    `label` marks a field that names the run or moves its files and changes no result. `later`
    marks one that came after runs had been stored: at its default it is left out of the digest,
    which is then that of a stored run.
    """
    metadata = {"source": source, "label": label, "later": later}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of one training; immutable and validated.

    The defaults are the paper's MATH setting for Qwen2.5-1.5B and -3B (Table 7) with LoRA on a
    4-bit model. `Recipe.source("beta")` tells where a default comes from.

    Raises:
        RecipeError: with every value that cannot be trained and what to write instead.
    """

    # Labels: they name the run and change nothing of its result.
    name: str = _setting("custom", "ours: label", label=True)
    profile: str = _setting("none", "ours: label of the machine setting", label=True)

    # Policy
    model: str = _setting("Qwen/Qwen2.5-3B", "paper section 4, main model")
    model_revision: str | None = _setting(None, "ours: newest revision of the hub")
    trust_remote_code: bool = _setting(False, "transformers' default: no code of the model's")
    adapter: str | None = _setting(None, "ours: a fresh adapter; a path continues that one")
    dtype: str = _setting(
        "auto", "paper: bf16; ours: bf16 where the device multiplies it fast, else fp32"
    )
    quantization: str = _setting("nf4", "ours: QLoRA, arXiv 2305.14314; the paper trains bf16")
    use_lora: bool = _setting(True, "ours: fits one consumer GPU; the paper trains all weights")
    lora_r: int = _setting(16, "ours: as in PEFT's QLoRA guides")
    lora_alpha: int = _setting(32, "ours: alpha = 2 r")
    lora_dropout: float = _setting(0.0, "ours: the on-policy ratio of eq. 5 must start at 1")
    lora_target_modules: str | tuple[str, ...] = _setting(
        "all-linear", "ours: QLoRA, arXiv 2305.14314, adapts every linear layer"
    )

    # Problems
    dataset: str = _setting("DigitalLearningGmbH/MATH-lighteval", "public config")
    dataset_name: str | None = _setting(None, "ours: the data set's default configuration")
    dataset_split: str = _setting("train", "paper section 4: MATH train, 7,500 problems")
    dataset_revision: str | None = _setting(None, "ours: newest revision of the hub")
    dataset_kwargs: Mapping[str, Any] = _setting({}, "ours: configuration of a generator")
    dataset_seed: int = _setting(0, "ours: which problems a generator makes, and held-out choice")
    max_problems: int | None = _setting(None, "paper section 4: all of MATH train")
    eval_problems: int = _setting(0, "ours: problems held out of training for before and after")
    prompt_column: str = _setting("problem", "MATH's column")
    answer_column: str | None = _setting("solution", "MATH's column")
    tests_column: str | None = _setting(
        None, "ours: column of unit tests, for the reward 'unit_tests'", later=True
    )
    prompt_template: str = _setting("{prompt}", "ours: the problem as it is")
    system_prompt: str | None = _setting(SYSTEM_PROMPTS["math-3b"], "paper, prompt for 3B")
    last_number: bool = _setting(False, "ours: only \\boxed{} answers count, as the prompts ask")
    over_long_prompts: str = _setting("drop", "ours: counted and dropped, or 'refuse'")

    # Rewards
    rewards: tuple[str, ...] = _setting(("self_certainty",), "paper eq. 6")
    reward_weights: tuple[float, ...] | None = _setting(None, "paper: a single reward")
    annotator: str = _setting("online", "paper section 3: the current policy annotates")
    multi_objective_aggregation: str = _setting("sum_then_normalize", "paper: a single reward")

    # Optimization, Table 7
    learning_rate: float = _setting(
        3e-5, "ours: 10 x the 3e-6 of paper Table 7, as LoRA needs (thinkingmachines.ai/blog/lora)"
    )
    lr_scheduler_type: str = _setting("cosine", "paper Table 7")
    warmup_ratio: float = _setting(0.1, "paper Table 7")
    max_steps: int = _setting(58, "paper Table 7: one epoch of MATH")
    num_generations: int = _setting(7, "paper Table 7: group size G")
    per_device_train_batch_size: int = _setting(7, "ours: one group at a time fits 12 GB")
    gradient_accumulation_steps: int = _setting(128, "paper Table 7: 128 problems per update")
    num_iterations: int = _setting(1, "paper: on-policy, one update per rollout")
    beta: float = _setting(0.005, "paper section 4 and public config; Table 7 says 0.0005")
    epsilon: float = _setting(0.2, "paper Table 7")
    max_prompt_length: int = _setting(512, "paper Table 7")
    max_completion_length: int = _setting(3072, "paper Table 7")
    temperature: float = _setting(0.9, "paper Table 7")
    top_p: float = _setting(1.0, "public config: no nucleus")
    top_k: int = _setting(0, "public config: no top-k")
    adam_beta1: float = _setting(0.9, "paper Table 7")
    adam_beta2: float = _setting(0.999, "paper Table 7")
    adam_epsilon: float = _setting(1e-8, "paper Table 7")
    weight_decay: float = _setting(0.0, "public config")
    max_grad_norm: float = _setting(1.0, "transformers' default; the public config keeps it")
    gradient_checkpointing: bool = _setting(True, "public config; memory for time")

    # How it is computed: the same training up to rounding
    rollout: str = _setting(
        "auto", "ours: 'grouped' (a group's prompt once) where the model allows it, or 'generate'"
    )
    rollout_batch_size: int | None = _setting(
        None, "ours: completions sampled at a time; all of an update's"
    )
    certainty_from: str = _setting(
        "auto", "ours: 'sampling' (the logits drawn from) where it is sound, or a 'forward' pass"
    )
    update: str = _setting(
        "auto", "ours: 'grouped' (a group's prompt once) where the model allows it, or 'plain'"
    )
    vllm_mode: str = _setting("colocate", "TRL's default, for rollout='vllm'")
    vllm_server_base_url: str | None = _setting(None, "TRL's default, for vllm_mode='server'")
    vllm_gpu_memory_utilization: float = _setting(0.3, "TRL's default, for vllm_mode='colocate'")
    seed: int = _setting(7, "public configs")

    # What is done about it on the way
    on_collapse: str = _setting(
        "warn", "ours: 'stop' there, or 'restore' the last checkpoint before it and stop"
    )
    eval_steps: int | None = _setting(
        None, "ours: held-out accuracy every so many steps; none on the way", label=True
    )
    preflight_problems: int = _setting(
        16, "ours: problems sampled before training, a group each; 0 skips it", label=True
    )
    save_steps: int = _setting(10, "ours: steps lost at most when interrupted", label=True)
    snapshot_steps: int | None = _setting(
        None, "ours: keep the policy every so many steps, to evaluate it later", label=True
    )

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, list):
                value = tuple(value)
            elif isinstance(value, Mapping):
                value = types.MappingProxyType(dict(value))
            elif f.type == "float" and _fits(value, float):
                # 1 and 1.0 are the same training, so they must have the same digest.
                value = float(value) + 0.0
            object.__setattr__(self, f.name, value)
        faults = [*_type_faults(self)] or [*_value_faults(self)]
        if faults:
            raise RecipeError(f"recipe {self.name!r} cannot be trained: " + "; ".join(faults))
        if self.beta == 0:
            warnings.warn(
                "beta=0 trains without a KL penalty. A public Llama-3.2-3B run with self-certainty "
                "and beta=0 collapsed near step 20: 7-token completions, MATH500 .46 -> .002 "
                "(model card logan7000/llama32-3b-self-certainty-math345). The paper uses 0.005.",
                UserWarning,
                stacklevel=3,
            )

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only mappings cannot be pickled or copied.
        return Recipe.from_dict, (self.to_dict(),)

    @property
    def completions_per_step(self) -> int:
        """Completions in one update, over all processes: batch times accumulation."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def problems_per_step(self) -> int:
        """Problems in one update (paper Table 7), each with a group of `num_generations`."""
        return self.completions_per_step // self.num_generations

    @property
    def digest(self) -> str:
        """12 hex digits over every setting that changes the result (labels left out)."""
        left_out = {
            f.name
            for f in dataclasses.fields(self)
            if f.metadata["label"] or (f.metadata["later"] and getattr(self, f.name) == f.default)
        }
        kept = {key: value for key, value in self.to_dict().items() if key not in left_out}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]

    @classmethod
    def source(cls, key: str) -> str:
        """Where the default of a setting comes from."""
        require_known([key])
        return next(f.metadata["source"] for f in dataclasses.fields(cls) if f.name == key)

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some settings changed, validated again.

        Raises:
            RecipeError: an unknown setting or a value that cannot be trained.
        """
        require_known(changes)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Every setting as JSON-ready values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {key: _plain(value) for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe of `to_dict`; settings left out keep their defaults.

        Raises:
            RecipeError: an unknown setting or a value that cannot be trained.
        """
        if not isinstance(values, Mapping):
            raise RecipeError(f"a recipe is a mapping of settings, not {type(values).__name__}")
        require_known(values)
        return cls(**values)

    def to_json(self) -> str:
        """Every setting as indented JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe of `to_json`.

        Raises:
            RecipeError: text that is not a JSON object, or holds what `from_dict` refuses.
        """
        return cls.from_dict(_parse_object(json.loads, text, "JSON"))

    def to_yaml(self) -> str:
        """Every setting as YAML, in the order of the class."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str) -> Recipe:
        """The recipe of `to_yaml`; plain data only, no YAML tags.

        Raises:
            RecipeError: text that is not a YAML mapping, or holds what `from_dict` refuses.
        """
        import yaml

        values = dict(_parse_object(yaml.safe_load, text, "YAML"))
        for f in dataclasses.fields(cls):
            # YAML 1.1 reads 1e-3, without a dot, as text.
            if f.type == "float" and isinstance(values.get(f.name), str):
                with contextlib.suppress(ValueError):
                    values[f.name] = float(values[f.name])
        return cls.from_dict(values)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _parse_object(parse: Any, text: str, form: str) -> Mapping[str, Any]:
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


def require_known(keys: typing.Iterable[str]) -> None:
    """Raise `RecipeError` for every key that is no setting of `Recipe`, naming the nearest one."""
    known = [f.name for f in dataclasses.fields(Recipe)]
    faults = []
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"settings are {', '.join(known)}"
            faults.append(f"unknown setting {key!r}: {hint}")
    if faults:
        raise RecipeError("; ".join(faults))


def _type_faults(recipe: Recipe) -> typing.Iterator[str]:
    hints = typing.get_type_hints(Recipe)
    for f in dataclasses.fields(recipe):
        value, hint = getattr(recipe, f.name), hints[f.name]
        if not _fits(value, hint):
            expected = str(f.type).replace("typing.", "")
            yield f"{f.name}={value!r} is not of type {expected}"


def _fits(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, args[0]) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if hint is float:
        # An int too large for a float stays one and does not fit.
        number = isinstance(value, float) or (isinstance(value, int) and abs(value) < 1e300)
        return number and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _value_faults(r: Recipe) -> typing.Iterator[str]:
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
            yield f"{key} is empty: give a value, or leave it out for {getattr(Recipe, key)!r}"
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
        return json.loads(json.dumps(_plain(values), allow_nan=False)) == _plain(values)
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
    values = _parse_object(json.loads, config.read_text(encoding="utf-8"), "JSON")
    return values.get("max_position_embeddings")
