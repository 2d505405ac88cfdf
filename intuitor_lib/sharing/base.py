"""The model that a run began from, as others know it: name, licence, and the lines that load it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub

from ..policy.embedded import GGUFS
from ..policy.loading import recorded_recipe
from ..recipe import InputError
from ..store import Run

_LICENCE = ("license", "license_name", "license_link")


class Base(NamedTuple):
    """A base model."""

    name: str  # its name on the hub; of a local folder that has none, the folder's own
    on_hub: bool
    revision: str | None
    sha256: str | None  # of the GGUF file that stood in for it; None for other models
    licence: Mapping[str, Any]  # as in the metadata of model cards; empty if it is not known


def find_base(run: Run, base_model: str | None = None) -> Base:
    """The base of a run; `base_model` is the name on the hub of one in a local folder.

    Raises:
        InputError: a `base_model` for a run whose base has a name already.
    """
    recipe = recorded_recipe(run)
    model, revision = recipe.model, recipe.model_revision
    local = "model" in run.local_weights
    if base_model is not None:
        if not local:
            raise InputError(
                f"base_model={base_model!r}: run {run.id} began from {model!r}, no local folder, "
                "and that is what its card names; leave base_model out"
            )
        check_name(base_model, "base_model")
    if model in GGUFS:
        gguf = GGUFS[model]
        return Base(gguf.stands_for, True, None, gguf.sha256, {"license": gguf.licence})
    if local:
        licence = _licence_in(Path(model).expanduser() / "README.md")
        # Only the last part of a path: it is nobody else's.
        return Base(base_model or Path(model).name, base_model is not None, None, None, licence)
    return Base(model, True, revision, None, _licence_on_hub(model, revision))


def check_name(name: str, setting: str) -> None:
    """Raise an `InputError` for what cannot be a repository's name on the hub."""
    try:
        huggingface_hub.utils.validate_repo_id(name)
    except huggingface_hub.errors.HFValidationError as error:
        raise InputError(f"{setting}={name!r} is no name on the hub: {error}") from error


def _licence_in(card: Path) -> dict[str, Any]:
    """The licence in the metadata of a model card, empty if there is none."""
    try:
        return _licence(huggingface_hub.metadata_load(card) or {})
    except (OSError, ValueError):  # no card, or one without readable metadata
        return {}


def _licence_on_hub(name: str, revision: str | None) -> dict[str, Any]:
    try:
        found = huggingface_hub.model_info(name, revision=revision, timeout=5)
    except Exception:  # of the network, in classes of httpx and the hub's own: then it is not known
        return {}
    return _licence(found.card_data or {})


def _licence(metadata: Any) -> dict[str, Any]:
    return {key: str(metadata.get(key)) for key in _LICENCE if metadata.get(key)}


def loading_lines(run: Run, place: str, *, base: str | None = None, merged: bool = False) -> str:
    """Python that loads an export with transformers and PEFT alone.

    Args:
        run: the run that was exported.
        place: the folder, or its name on the hub.
        base: where the base model is; by default its name on the hub, or its folder here.
        merged: whether the export holds merged weights.
    """
    quote = repr(place)
    tokenizer = f"transformers.AutoTokenizer.from_pretrained({quote})"
    if merged:
        lines = [
            "import transformers",
            f"model = transformers.AutoModelForCausalLM.from_pretrained({quote})",
            f"tokenizer = {tokenizer}",
        ]
        return "\n".join(lines)
    recipe = recorded_recipe(run)
    if base is None:
        local = "model" in run.local_weights
        base = os.path.expanduser(recipe.model) if local else find_base(run).name
    # In 16 bits PEFT adds the adapter to an output that is rounded already, which may hide it.
    settings = [repr(base), "dtype='float32'"]
    if recipe.model_revision is not None:
        settings.append(f"revision={recipe.model_revision!r}")
    if recipe.trust_remote_code:
        settings.append("trust_remote_code=True")
    if recipe.quantization == "nf4":
        four_bits = "load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True"
        settings.append(f"quantization_config=transformers.BitsAndBytesConfig({four_bits})")
    lines = [
        "import peft, transformers",
        f"base = transformers.AutoModelForCausalLM.from_pretrained({', '.join(settings)})",
        f"model, tokenizer = peft.PeftModel.from_pretrained(base, {quote}), {tokenizer}",
    ]
    return "\n".join(lines)
