"""LoRA adapters, and the reference policy.

The reference policy is the same weights with the adapter off. A policy that starts from an
existing adapter keeps a frozen copy of that adapter as its reference.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import peft
import transformers

from ..recipe import InputError, Recipe

__all__ = [
    "START_ADAPTER",
    "adapter_is_fresh",
    "add_start_adapter",
    "ignore_renames",
    "reference_policy",
]

START_ADAPTER = "start"
"""Name of the frozen copy of the adapter that a policy started from."""


@contextlib.contextmanager
def ignore_renames() -> Iterator[None]:
    """Silence warnings of transformers' renames, which PEFT and TRL do not follow yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        yield


def add_adapter(model: Any, recipe: Recipe) -> Any:
    """The model with the recipe's trainable adapter: new LoRA weights, or those of a folder."""
    if recipe.adapter is None:
        targets = recipe.lora_target_modules
        # PEFT draws LoRA-A from the global generator, so the recipe's seed is set here.
        transformers.set_seed(recipe.seed)
        return peft.get_peft_model(
            model,
            peft.LoraConfig(
                r=recipe.lora_r,
                lora_alpha=recipe.lora_alpha,
                lora_dropout=recipe.lora_dropout,
                target_modules=targets if isinstance(targets, str) else list(targets),
                task_type="CAUSAL_LM",
            ),
        )
    model = load_adapter(model, recipe.adapter, recipe.model, trainable=True)
    add_start_adapter(model)
    return model


def load_adapter(model: Any, adapter: str, name: str, *, trainable: bool) -> Any:
    """The model `name` with the PEFT adapter of a folder or hub name.

    Raises:
        InputError: the adapter cannot be loaded.
    """
    try:
        return peft.PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
    except (OSError, ValueError) as error:
        raise InputError(
            f"adapter={adapter!r} could not be loaded: {error}. Give a folder (or hub "
            "name) with adapter_config.json and adapter_model.safetensors made for "
            f"{name}; a run's is its folder 'adapter'."
        ) from error


def adapter_is_fresh(model: Any) -> bool:
    """Whether the adapter changes nothing yet: every LoRA-B entry is 0."""
    return not any(
        parameter.any()
        for name, parameter in model.named_parameters()
        if ".lora_B.default." in name or ".lora_embedding_B.default" in name
    )


def add_start_adapter(model: Any) -> None:
    """Keep a frozen copy of the adapter `default` under the name `START_ADAPTER`."""
    if START_ADAPTER in model.peft_config:
        return
    model.add_adapter(START_ADAPTER, model.peft_config["default"])
    for name, parameter in list(model.named_parameters()):
        if ".default" in name:
            copy = model.get_parameter(name.replace(".default", f".{START_ADAPTER}"))
            copy.data.copy_(parameter.data)
            copy.requires_grad_(False)


@contextlib.contextmanager
def reference_policy(model: Any) -> Iterator[None]:
    """Make a PEFT policy compute as its reference, with the start adapter or none.

    Raises:
        InputError: the model has no adapters, so it holds no reference.
    """
    if not isinstance(model, peft.PeftModel):
        raise InputError(
            f"{type(model).__name__} has no adapter to turn off, so it holds no reference policy: "
            "train with use_lora=true, or keep a copy of the model before training"
        )
    if START_ADAPTER not in model.peft_config:
        with model.disable_adapter():
            yield
        return
    active = model.active_adapter
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.set_adapter(START_ADAPTER)
    try:
        yield
    finally:
        model.set_adapter(active)
        # set_adapter makes what it activates trainable and freezes the rest.
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
