"""Push an exported folder to the hub."""

from pathlib import Path

import huggingface_hub

from ..recipe import InputError
from ..store.files import redact
from .base import check_name

# What an earlier export may have left: with an adapter beside it, merged weights are not loaded.
_REPLACED = (
    *("config.json", "generation_config.json", "adapter_config.json", "adapter_model.*"),
    *("model*.safetensors", "model.safetensors.index.json"),
)


def check_repository(repo_id: str) -> None:
    """Raise an `InputError` for a name that is not of the form OWNER/NAME."""
    check_name(repo_id, "push")
    if "/" not in repo_id:
        raise InputError(f"push={repo_id!r}: give OWNER/NAME, which the model card names too")


def push(folder: str | Path, repo_id: str, *, private: bool = True) -> str:
    """Upload a folder of `export_run` to a model repository on the hub; returns its address.

    A new repository is made `private` or public. In one that exists, the folder takes the place of
    an earlier export. The hub's token and address are those of `huggingface_hub` (`hf auth login`,
    `HF_ENDPOINT`).

    Raises:
        InputError: a `repo_id` that is not OWNER/NAME, or, with `private`, a public repository.
        OSError: the hub cannot be reached or refuses; the folder stays as it is.
    """
    check_repository(repo_id)
    api = huggingface_hub.HfApi()
    try:
        made = api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.repo_info(repo_id).private:
            raise InputError(
                f"push={repo_id!r} is a public repository, and private was asked for: nothing was "
                "uploaded. Push with --public (private=False), or name another repository"
            )
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message="Export of a training run",
            delete_patterns=[*_REPLACED],  # not of files that are uploaded
        )
    except InputError:
        raise
    except Exception as error:  # of the network and of the hub, in classes of httpx and their own
        # `hf upload` would make a public repository, and leave files of an earlier export.
        again = f"push({str(folder)!r}, {repo_id!r}, private={private})"
        raise OSError(
            f"{folder} is written, but could not be pushed to {repo_id}: {redact(str(error))}. Log "
            "in with `hf auth login`, and try again in Python: `from intuitor_lib.sharing import "
            f"push; {again}`"
        ) from error
    return str(made)
