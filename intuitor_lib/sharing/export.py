"""`export_run`: a finished run as a folder for others."""

import shutil
from errno import ENOSPC
from pathlib import Path

import safetensors

from ..policy.loading import recorded_recipe
from ..policy.pretrained import Source, load_tokenizer
from ..problems.prompts import require_chat_template
from ..recipe import InputError
from ..report import quiet_transformers
from ..store import Run
from ..store.files import new_folder, read_json, write_json
from .base import Base, find_base
from .card import write_card
from .hub import check_repository, push
from .merging import save_tokenizer, write_merged

_WEIGHTS = "adapter_model.safetensors"
_MORE = 64 * 2**20  # bytes for tokenizer, settings and card


def export_run(
    run: Run,
    folder: str | Path,
    *,
    merged: bool = False,
    base_model: str | None = None,
    push_to: str | None = None,
    private: bool = True,
) -> Path:
    """Write a finished run's policy, tokenizer and model card into a new folder.

    The folder appears whole or not at all. `loading_lines` are the lines that load it.

    Args:
        run: the run.
        folder: a folder that does not exist or is empty.
        merged: write one model in 16 bits instead of the LoRA adapter (`merging`).
        base_model: name on the hub of the base model, where the run began from a local folder.
        push_to: also push it to this repository on the hub, OWNER/NAME.
        private: whether a new repository is private.

    Returns:
        The folder.

    Raises:
        InputError: a folder with files in it; a run that is unfinished or damaged, whose base has
            changed, that has no adapter or one that cannot be merged; a name the hub cannot have.
        RuntimeError: the merged weights, loaded again, are another policy.
        OSError: the disk is full or read-only, or the hub refuses.
    """
    target = Path(folder).expanduser().resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"folder={str(folder)!r} is there and not empty: name a new one")
    if push_to is not None:
        check_repository(push_to)
    run.require_finished()
    run.require_whole()
    if run.recipe.use_lora:
        run.require_same_base()
    elif not merged:
        raise InputError(
            f"run {run.id} trained all weights, so it has no adapter: export it with merged "
            "(--merged), which writes its model in 16 bits"
        )
    base = find_base(run, base_model)
    if push_to is not None and not merged and not base.on_hub:
        raise InputError(
            f"run {run.id} began from the local folder {base.name!r}, so nobody could load its "
            "adapter: name the base with base_model (--base-model ID), or push it merged (--merged)"
        )
    try:
        with new_folder(target) as scratch:
            check = None
            if merged:
                _require_space(scratch, 2 * run.environment.get("parameters", 0))
                check = write_merged(run, scratch)
            else:
                _require_space(scratch, (run.adapter / _WEIGHTS).stat().st_size)
                _write_adapter(run, base, scratch)
            write_card(scratch, run, base, push_to or target.name, check)
    except safetensors.SafetensorError as error:  # has no number of the system's
        raise OSError(f"{target} could not be written: {error}") from error
    if push_to is not None:
        push(target, push_to, private=private)
    return target


def _require_space(folder: Path, size: int) -> None:
    needed, free = size + _MORE, shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            ENOSPC,
            f"the export needs {needed / 2**20:.0f} MiB and {free / 2**20:.0f} MiB are free in "
            f"{folder.parent.parent}: free some space, or name a folder on another disk",
        )


def _write_adapter(run: Run, base: Base, folder: Path) -> None:
    """The run's adapter, whose configuration names the base as others know it."""
    config = read_json(run.adapter / "adapter_config.json")
    config |= {"base_model_name_or_path": base.name, "revision": base.revision}
    write_json(folder / "adapter_config.json", config)
    shutil.copyfile(run.adapter / _WEIGHTS, folder / _WEIGHTS)
    with quiet_transformers():
        tokenizer = load_tokenizer(Source.of(recorded_recipe(run)))
        require_chat_template(tokenizer)
        save_tokenizer(tokenizer, folder)
