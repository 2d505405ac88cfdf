"""PEFT adapters, and the reference policy.

The reference policy is the same weights with the adapter off. A policy that starts from a trained
adapter keeps a frozen copy of that adapter as its reference.
"""

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from torch import Tensor, nn

from ..certainty.completions import scoring
from ..recipe import InputError, Recipe
from .pretrained import damage, in_part, in_short

logger = logging.getLogger(__name__)

START_ADAPTER = "ref"
"""Name of the frozen copy of the adapter that a policy started from; TRL's name for it, too."""


@contextlib.contextmanager
def ignore_renames() -> Iterator[None]:
    """Silence warnings of transformers' renames, which PEFT and TRL do not follow yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        yield


def check_adapter(recipe: Recipe) -> None:
    """Refuse an adapter that cannot be trained, from settings alone, before a model is loaded."""
    if not recipe.use_lora:
        return
    source, targets = "lora_target_modules", recipe.lora_target_modules
    if recipe.adapter is not None:
        source, config = f"adapter={recipe.adapter!r}", load_adapter_config(recipe.adapter)
        if config.is_prompt_learning:
            raise InputError(
                f"{source} is of the kind {config.peft_type.value}, virtual tokens, which cannot "
                "be trained further: start from another adapter, or from none"
            )
        bias = getattr(config, "bias", "none")
        if bias != "none":
            raise InputError(
                f"{source} has bias={bias!r}: it trains biases of the model itself, so that no "
                "reference policy is left. Train it with bias='none', or merge it into the model"
            )
        _compare_settings(recipe, config)
        named = [getattr(config, key, None) for key in ("target_modules", "modules_to_save")]
        targets = tuple(n for names in named if not isinstance(names, str) for n in names or ())
    if not isinstance(targets, str) and any(t.rpartition(".")[2] == "lm_head" for t in targets):
        raise InputError(
            f"{source} names lm_head: self-certainty and the update read the LM head as it is in "
            "the model. Leave it out, or merge the adapter into the model"
        )


def _compare_settings(recipe: Recipe, config: Any) -> None:
    """Warn of settings of a fresh adapter that were given for one that is trained further."""
    for name, key in {"lora_r": "r", "lora_alpha": "lora_alpha"}.items():
        asked, has = getattr(recipe, name), getattr(config, key, None)
        if asked not in (getattr(Recipe, name), has):
            logger.warning(
                "%s=%s has no effect: adapter=%r has %s and keeps it. Leave it out, or train a "
                "fresh adapter",
                *(name, asked, recipe.adapter, has),
            )


def add_adapter(model: Any, recipe: Recipe) -> Any:
    """The model with the recipe's trainable adapter: new LoRA weights, or those of a folder."""
    if recipe.adapter is not None:
        dropout = recipe.lora_dropout
        model = load_adapter(model, recipe.adapter, recipe.model, trainable=True, dropout=dropout)
        if not adapter_is_fresh(model):
            add_start_adapter(model)
        return model
    targets = recipe.lora_target_modules
    config = peft.LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    kinds = (nn.Linear, transformers.pytorch_utils.Conv1D)
    parts = dict(model.named_modules())
    linear = {name.rpartition(".")[2] for name, part in parts.items() if isinstance(part, kinds)}
    absent = [
        target
        for target in (() if isinstance(targets, str) else targets)
        if not any(f".{name}".endswith(f".{target}") for name in parts)
    ]
    try:
        if absent:
            raise ValueError(f"it has no {', '.join(absent)}")
        # PEFT draws LoRA-A from the global generator, so the recipe's seed is set here.
        transformers.set_seed(recipe.seed)
        return peft.get_peft_model(model, config)
    except ValueError as error:
        raise InputError(
            f"lora_target_modules={targets!r} does not fit {recipe.model}: {in_short(error)}. Name "
            f"some of its linear layers ({', '.join(sorted(linear))}), or take 'all-linear'"
        ) from error


def load_adapter_config(adapter: str) -> Any:
    """The configuration of a PEFT adapter in a folder or on the hub."""
    try:
        config = peft.PeftConfig.from_pretrained(os.path.expanduser(adapter))
    except Exception as error:  # a file of any content
        raise InputError(_not_loaded(adapter, error)) from error
    if config.task_type not in (None, "CAUSAL_LM"):
        raise InputError(
            f"adapter={adapter!r} is for the task {config.task_type}, not for a causal language "
            "model (CAUSAL_LM): give one that was trained to generate text"
        )
    return config


def load_adapter(
    model: Any, adapter: str, name: str, *, trainable: bool, dropout: float = 0.0
) -> Any:
    """The model `name` with the PEFT adapter of a folder or hub name.

    `dropout` is that of LoRA layers; other kinds of adapters have none.
    """
    config = load_adapter_config(adapter)
    config.inference_mode = not trainable
    for key, value in vars(config).items():
        if "dropout" in key and isinstance(value, float | int):
            setattr(config, key, dropout if key == "lora_dropout" else 0.0)
    try:
        adapted = peft.PeftModelForCausalLM(model, config)
    except Exception as error:  # PEFT has no error of its own for a model that does not fit
        raise InputError(_not_loaded(adapter, error, name)) from error
    read_adapter_weights(adapted, adapter, name)
    return adapted.train(trainable and model.training)


def read_adapter_weights(model: Any, adapter: str, name: str) -> None:
    """Give the adapter `default` of a model, named `name` in errors, the weights of a folder."""
    own = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    try:
        weights = peft.load_peft_weights(os.path.expanduser(adapter), device="cpu")
        state = model.state_dict()
        others = {key: state[key].clone() for key in weights.keys() & state.keys() - own.keys()}
        missing, unexpected = peft.set_peft_model_state_dict(model, weights)
    except Exception as error:  # a file of any content
        raise InputError(_not_loaded(adapter, error, name)) from error
    # LoRA on an embedding is saved with it; rounded to bf16, it is still the model's own.
    changed = [k for k, value in others.items() if not torch.allclose(value, state[k], rtol=0.01)]
    if changed and not model.peft_config["default"].inference_mode:
        raise InputError(
            f"adapter={adapter!r} brings weights of the model itself ({in_part(changed)}), "
            "which a trained adapter is saved without: merge it into the model and give that as "
            "model"
        )
    missing = [key for key in missing if key.replace(".default", "") in own]
    unexpected = [key for key in unexpected if key not in own]
    if missing or unexpected:
        lists = {"unexpected": unexpected, "missing": missing}
        found = "; ".join(f"{kind}: {in_part(keys)}" for kind, keys in lists.items() if keys)
        raise InputError(
            f"adapter={adapter!r}: of {len(weights)} tensors {len(weights) - len(unexpected)} fit "
            f"{name} ({found}): give the model that it was trained on"
        )


def _not_loaded(adapter: str, error: Exception, name: str = "the model") -> str:
    folder = Path(adapter).expanduser()
    reason = damage(folder) or in_short(error)
    if (folder / "adapter_config.json").is_file():
        if not any(folder.glob("adapter_model.*")):
            reason = "it has no adapter_model.safetensors"
    elif (folder / "config.json").is_file():
        reason = "it holds a whole model: give it as model, without an adapter"
    return (
        f"adapter={adapter!r} could not be loaded: {reason}. Give a folder (or hub name) with "
        f"adapter_config.json and adapter_model.safetensors made for {name}; a run's is its folder "
        "'adapter'."
    )


def adapter_is_fresh(model: Any) -> bool:
    """Whether the adapter changes nothing yet: plain LoRA with every entry of B 0.

    False for other kinds of adapters, also where they happen to change nothing.
    """
    weights = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    down, up = (".lora_A.", ".lora_embedding_A"), (".lora_B.", ".lora_embedding_B")
    return all(
        any(part in key for part in down) or (any(part in key for part in up) and not value.any())
        for key, value in weights.items()
    )


def add_start_adapter(model: Any) -> None:
    """Keep a frozen copy of the adapter `default` under the name `START_ADAPTER`."""
    if START_ADAPTER in model.peft_config:
        return
    config = copy.deepcopy(model.peft_config["default"])
    config.inference_mode = True
    if hasattr(config, "lora_dropout"):
        config.lora_dropout = 0.0  # TRL scores the reference in train mode
    started, trained = _probe(model), _trained(model)
    try:
        weights = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
        model.add_adapter(START_ADAPTER, config)
        peft.set_peft_model_state_dict(model, weights, START_ADAPTER)
        model.train(model.training)
        with reference_policy(model):
            reference = _probe(model)
        same = all(torch.allclose(started, x) for x in (_probe(model), reference))
        fault = None if same and _trained(model) == trained else "its copy differs from it"
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        fault = in_short(error)
    if fault is not None:
        raise InputError(
            f"an adapter of the kind {config.peft_type.value} with these settings cannot be kept "
            f"as its own reference ({fault}): train plain LoRA, or merge the adapter into the "
            "model and give that as model"
        )


def _probe(model: Any) -> Tensor:
    """Logits (1, 4, V) of a few tokens, without dropout."""
    with scoring(model):
        ids = torch.arange(4, device=model.get_input_embeddings().weight.device).unsqueeze(0)
        return model(input_ids=ids, use_cache=False).logits.float()


def _trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


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
