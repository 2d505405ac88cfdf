"""`Recipe`: typed, validated settings of a training.

It holds every setting that changes the result, under the names of TRL, PEFT and transformers
wherever they have one. `settings.yaml` has the source of each default and the rules for values.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import difflib
import hashlib
import json
import types
import typing
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from .checks import fits, plain, type_faults, value_faults
from .constants import SETTINGS, SYSTEM_PROMPTS, RecipeError
from .files import folder_digest


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of one training; immutable and validated.

    The defaults are the paper's MATH setting for Qwen2.5-1.5B and -3B (Table 7) with LoRA on a
    4-bit model. `Recipe.source("beta")` is the source of a default.

    Raises:
        RecipeError: lists every unknown setting, or every value that cannot be trained, with its
            remedy; from `replace`, `from_dict`, `from_json` and `from_yaml` too.
    """

    # Labels: they do not change the result.
    name: str = "custom"
    profile: str = "none"

    # Policy
    model: str = "Qwen/Qwen2.5-3B"
    model_revision: str | None = None
    trust_remote_code: bool = False
    adapter: str | None = None
    dtype: str = "auto"
    quantization: str = "nf4"
    use_lora: bool = True
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_target_modules: str | tuple[str, ...] = "all-linear"

    # Problems
    dataset: str = "DigitalLearningGmbH/MATH-lighteval"
    dataset_name: str | None = None
    dataset_split: str = "train"
    dataset_revision: str | None = None
    dataset_kwargs: Mapping[str, Any] = field(default_factory=dict)
    dataset_seed: int = 0
    max_problems: int | None = None
    eval_problems: int = 0
    prompt_column: str = "problem"
    answer_column: str | None = "solution"
    tests_column: str | None = None
    prompt_template: str = "{prompt}"
    system_prompt: str | None = SYSTEM_PROMPTS["math-3b"]
    answer_extraction: str = "boxed"
    over_long_prompts: str = "drop"

    # Rewards
    rewards: tuple[str, ...] = ("self_certainty",)
    reward_weights: tuple[float, ...] | None = None
    annotator: str = "online"
    multi_objective_aggregation: str = "sum_then_normalize"

    # Optimization, Table 7
    learning_rate: float = 3e-5
    lr_scheduler_type: str = "cosine"
    warmup_ratio: float = 0.1
    max_steps: int = 58
    num_generations: int = 7
    per_device_train_batch_size: int = 7
    gradient_accumulation_steps: int = 128
    num_iterations: int = 1
    beta: float = 0.005
    epsilon: float = 0.2
    max_prompt_length: int = 512
    max_completion_length: int = 3072
    temperature: float = 0.9
    top_p: float = 1.0
    top_k: int = 0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    optim: str = "adamw_torch"
    gradient_checkpointing: bool = True

    # How it is computed: the same training up to rounding
    rollout: str = "auto"
    rollout_batch_size: int | None = None
    certainty_from: str = "auto"
    update: str = "auto"
    vllm_mode: str = "colocate"
    vllm_server_base_url: str | None = None
    vllm_gpu_memory_utilization: float = 0.3
    seed: int = 7

    # During training
    on_collapse: str = "warn"
    eval_steps: int | None = None
    preflight_problems: int = 16
    save_steps: int = 10
    snapshot_steps: int | None = None
    report_to: str | tuple[str, ...] = "none"

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name == "system_prompt" and isinstance(value, str):
                value = SYSTEM_PROMPTS.get(value, value)
            elif isinstance(value, list | tuple):
                value = tuple(value)
                if f.name == "reward_weights":
                    value = tuple(float(x) if fits(x, float) else x for x in value)
            elif isinstance(value, Mapping):
                value = types.MappingProxyType(copy.deepcopy(dict(value)))
            elif f.type == "float" and fits(value, float):
                # 1 and 1.0 are the same training, so they must have the same digest.
                value = float(value) + 0.0
            object.__setattr__(self, f.name, value)
        faults = [*type_faults(self)] or [*value_faults(self)]
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
        """12 hex digits over every setting that changes the result (labels are left out).

        A local folder counts by its contents, a model or adapter of the hub by its name.
        """
        return self.digest_with(self.local_weights())

    def local_weights(self) -> dict[str, str]:
        """16 hex digits over the contents of `model` and `adapter`, where these are folders."""
        names = {"model": self.model, "adapter": self.adapter}
        found = {key: folder_digest(name) for key, name in names.items() if name}
        return {key: contents for key, contents in found.items() if contents}

    def digest_with(self, weights: Mapping[str, str]) -> str:
        """`digest` for known `local_weights`."""
        left_out = {
            key
            for key, about in SETTINGS.items()
            if "label" in about or ("later" in about and getattr(self, key) == getattr(Recipe, key))
        }
        if self.on_collapse == "restore":
            left_out.discard("save_steps")  # the checkpoints to choose the result from
        if self.on_collapse != "warn" and self.eval_steps:
            left_out.discard("eval_steps")  # the monitor looks at held-out accuracy too
        kept = {key: value for key, value in self.to_dict().items() if key not in left_out}
        # Stored runs have the digests of a boolean setting.
        kept["last_number"] = self.answer_extraction == "last_number"
        if self.answer_extraction in ("boxed", "last_number"):
            del kept["answer_extraction"]
        text = json.dumps({**kept, **weights}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def source(cls, key: str) -> str:
        """The source of a setting's default."""
        require_known([key])
        return SETTINGS[key]["source"]

    @classmethod
    def meaning(cls, key: str) -> str:
        """What a setting is, in a few words."""
        require_known([key])
        return SETTINGS[key]["meaning"]

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some settings changed, validated again."""
        require_known(changes)
        return dataclasses.replace(self, **changes)

    def changes(self, since: Recipe) -> dict[str, Any]:
        """The settings that are others than in a recipe."""
        before = since.to_dict()
        return {key: value for key, value in self.to_dict().items() if value != before[key]}

    def to_dict(self) -> dict[str, Any]:
        """Every setting as JSON-ready values."""
        return {key: plain(getattr(self, key)) for key in SETTINGS}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe of `to_dict`; settings left out keep their defaults."""
        if not isinstance(values, Mapping):
            kind = type(values).__name__
            raise RecipeError(f"a recipe is a mapping of settings to values, not {kind}")
        require_known(values)
        return cls(**values)

    def to_json(self) -> str:
        """Every setting as indented JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe of `to_json`."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise RecipeError(f"not readable as JSON: {error}") from error
        return cls.from_dict(values)

    @classmethod
    def from_yaml(cls, text: str) -> Recipe:
        """The recipe of `to_dict` in YAML; plain data only, no YAML tags."""
        try:
            values = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise RecipeError(f"not readable as YAML: {error}") from error
        for f in dataclasses.fields(cls) if isinstance(values, dict) else ():
            # YAML 1.1 reads 1e-3, without a dot, as text.
            if f.type == "float" and isinstance(values.get(f.name), str):
                with contextlib.suppress(ValueError):
                    values[f.name] = float(values[f.name])
        return cls.from_dict(values)


def require_known(keys: typing.Iterable[str]) -> None:
    """Raise a `RecipeError` that lists every unknown key with the nearest setting."""
    faults = []
    for key in keys:
        if key not in SETTINGS:
            near = difflib.get_close_matches(str(key), SETTINGS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"settings are {', '.join(SETTINGS)}"
            faults.append(f"unknown setting {key!r}: {hint}")
    if faults:
        raise RecipeError("; ".join(faults))
