"""Configurations, tokenizers and weights of models: the one place that reads them.

A recipe's revision and its trust in a model's own code count for all three. What cannot be loaded
is an `InputError` that names the file and the remedy.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import safetensors
import torch
import transformers
from peft.tuners.tuners_utils import BaseTunerLayer

from ..recipe import EMBEDDED_MODELS, SMOLLM2, InputError, Recipe
from ..report import quiet_transformers
from .embedded import cache_folder, embedded_model_folder

_LFS = b"version https://git-lfs"


class Source(NamedTuple):
    """Where a model comes from, and whether code that comes with it may run."""

    name: str  # one of `EMBEDDED_MODELS`, a local folder or a name on the hub
    revision: str | None = None
    trust_remote_code: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> Source:
        """The source of a recipe's model."""
        return cls(recipe.model, recipe.model_revision, recipe.trust_remote_code)


def load_config(source: Source) -> Any:
    """A model's configuration."""
    return _load(transformers.AutoConfig, "the configuration of ", source)


def load_tokenizer(source: Source) -> Any:
    """A model's tokenizer, which pads on the left."""
    return _load(transformers.AutoTokenizer, "the tokenizer of ", source, padding_side="left")


def load_weights(source: Source, **settings: Any) -> Any:
    """A causal language model; `settings` are those of `from_pretrained`."""
    # transformers fills weights that the files lack with random numbers.
    settings |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    model, found = _load(transformers.AutoModelForCausalLM, "", source, **settings)
    absent = sorted(found["missing_keys"] | {key for key, *_ in found["mismatched_keys"]})
    if absent:
        raise InputError(
            f"model={source.name!r}: its files lack {len(absent)} of the model's weights, or have "
            f"them in another size ({in_part(absent)}): fetch the files again, or take the "
            "config.json that belongs to them"
        )
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise InputError(_is_adapter(source.name))
    return model


def cached_commit(source: Source) -> str | None:
    """The commit on the hub that a model was last loaded from; None for other models."""
    name, revision, _ = source
    if name in EMBEDDED_MODELS or Path(name).expanduser().exists():
        return None
    file = huggingface_hub.try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(file).parent.name if isinstance(file, str) else None


def _load(auto: Any, part: str, source: Source, **settings: Any) -> Any:
    # Progress bars only for models that take long to load.
    embedded = source.name in EMBEDDED_MODELS
    quiet = embedded or cache_folder() in Path(source.name).parents
    place = embedded_model_folder(source.name) if embedded else os.path.expanduser(source.name)
    settings |= {"revision": source.revision, "trust_remote_code": source.trust_remote_code}
    try:
        with quiet_transformers() if quiet else contextlib.nullcontext():
            return auto.from_pretrained(place, **settings)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # files of any content, and the model's own code
        raise InputError(_reason(error, part, source)) from error


def _reason(error: Exception, part: str, source: Source) -> str:
    """Why a part of a model could not be loaded, and the remedy."""
    name, text, folder = source.name, str(error), Path(source.name).expanduser()
    if "trust_remote_code" in text:
        return (
            f"model={name!r} comes with code of its own, which is not run by default: read it, "
            "and set trust_remote_code=true if you trust it"
        )
    if (folder / "adapter_config.json").is_file():
        return _is_adapter(name)
    start = f"{part}model={name!r} could not be loaded: "
    broken = damage(folder)
    if broken is not None:
        return start + broken
    if "Unrecognized configuration class" in text:
        return (
            f"{start}it is no causal language model (but an encoder-decoder, for example): take a "
            "decoder-only one"
        )
    if isinstance(error, ImportError):
        remedy = "Install what it needs, or take the model's weights in bf16"
    elif "does not recognize this architecture" in text:
        remedy = "Check model_type in its config.json, or take a model of a known architecture"
    elif "tokenizer" in part:
        remedy = "Copy tokenizer.json and tokenizer_config.json of the model it was made from"
    elif folder.is_dir():
        remedy = "Fetch its files again, as safetensors and with their config.json"
    else:
        remedy = (
            "Give a hub name that this machine can reach (log in for gated models), the path of a "
            f"local folder, or {SMOLLM2!r} (profile smoke), which needs no hub"
        )
    return f"{start}{in_short(error)}. {remedy}"


def _is_adapter(name: str) -> str:
    return (
        f"model={name!r} holds a PEFT adapter, no whole model: give the model it was trained on as "
        f"model, and adapter={name!r}"
    )


def damage(folder: Path) -> str | None:
    """The first file of a folder that is not what its name says, and the remedy; None if none."""
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not file.is_file():
            continue
        with file.open("rb") as stream:
            if stream.read(len(_LFS)) == _LFS:
                return f"{file} is a Git LFS pointer, not the file: run `git lfs pull` in {folder}"
        if file.suffix == ".safetensors":
            try:
                with safetensors.safe_open(file, framework="pt"):
                    pass
            except safetensors.SafetensorError as error:
                return f"{file} is damaged or cut off ({error}): fetch it again"
    return None


def in_part(names: list[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def in_short(error: Exception) -> str:
    """An error of another library in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= 300 else f"{text[:300]} ...").rstrip(".")
