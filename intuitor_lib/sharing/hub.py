"""Push an exported folder to the hub."""

from pathlib import Path

import huggingface_hub

from ..recipe import InputError
from ..store.files import redact
from .base import check_name


def check_repository(repo_id: str) -> None:
    """Raise an `InputError` for a name that is not of the form OWNER/NAME."""
    check_name(repo_id, "push")
    if "/" not in repo_id:
        raise InputError(f"push={repo_id!r}: give OWNER/NAME, which the model card names too")


def push(folder: str | Path, repo_id: str, *, private: bool = True) -> str:
    """Upload a folder of `export_run` to a model repository on the hub; returns its address.

    `private` is that of a new repository; one that exists keeps what it is. The hub's token and
    address are those of `huggingface_hub` (`hf auth login`, `HF_ENDPOINT`).

    Raises:
        InputError: a `repo_id` that is not OWNER/NAME.
        OSError: the hub cannot be reached or refuses; the folder stays as it is.
    """
    check_repository(repo_id)
    api = huggingface_hub.HfApi()
    try:
        made = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message="Export of a training run"
        )
    except Exception as error:  # of the network and of the hub, in classes of httpx and their own
        raise OSError(
            f"{folder} is written, but could not be pushed to {repo_id}: {redact(str(error))}. Log "
            f"in with `hf auth login`; `hf upload {repo_id} {folder}` tries again"
        ) from error
    return str(made)
