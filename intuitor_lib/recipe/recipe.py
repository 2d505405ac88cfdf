"""`Recipe`: typed, validated settings of a training, each with the source of its default.

It holds every setting that changes the result, under the names of TRL, PEFT and transformers
wherever they have one.
"""

from __future__ import annotations

import contextlib
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
from .constants import SYSTEM_PROMPTS, RecipeError
from .files import folder_digest


def _setting(default: Any, source: str, *, label: bool = False, later: bool = False) -> Any:
    """A dataclass field that carries the source of its default.

    `label` marks a field that does not change the result (`save_steps` does under
    on_collapse="restore"). `later` marks one that was added after runs had been stored: at its
    default it is left out of the digest, so that stored runs are still found.
    """
    metadata = {"source": source, "label": label, "later": later}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


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
    answer_extraction: str = _setting(
        "boxed", "ours: only \\boxed{} answers count, as the prompts ask; see `grading.EXTRACTIONS`"
    )
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

    # During training
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
            f.name
            for f in dataclasses.fields(self)
            if f.metadata["label"] or (f.metadata["later"] and getattr(self, f.name) == f.default)
        }
        if self.on_collapse == "restore":
            left_out.discard("save_steps")  # the checkpoints to choose the result from
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
        return next(f.metadata["source"] for f in dataclasses.fields(cls) if f.name == key)

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some settings changed, validated again."""
        require_known(changes)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Every setting as JSON-ready values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {key: plain(value) for key, value in values.items()}

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
    known = [f.name for f in dataclasses.fields(Recipe)]
    faults = []
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"settings are {', '.join(known)}"
            faults.append(f"unknown setting {key!r}: {hint}")
    if faults:
        raise RecipeError("; ".join(faults))
