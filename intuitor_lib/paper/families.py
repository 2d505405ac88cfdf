"""The model families of the paper's Tables 4 to 6, trained at a size that fits any machine.

A tiny model has a family's architecture as transformers implements it, random weights and the
embedded model's tokenizer. It learns nothing; it shows that the family trains in 4 bits with LoRA.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path

from ..recipe import Recipe, get_recipe

__all__ = ["ARCHITECTURES", "tiny_recipe"]

ARCHITECTURES: Mapping[str, str] = types.MappingProxyType(
    dict.fromkeys(("qwen2.5-7b", "qwen2.5-14b"), "Qwen2")
    | {"qwen3-14b": "Qwen3", "llama3.2-3b": "Llama", "olmo2-7b": "Olmo2"}
)
"""The architecture of each recipe's model, in the names of transformers' classes."""


def tiny_recipe(name: str, folder: str | Path, *, seed: int = 7) -> Recipe:
    """Make a recipe that trains a tiny model of another recipe's family for two steps.

    The other settings are those of `intuitor` under the profile smoke. The model is made in
    `folder` if it is missing there.

    Raises:
        ValueError: `name` is not in `ARCHITECTURES`.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"name={name!r}: choose from {', '.join(ARCHITECTURES)}")
    from ..policy.tiny import make_tiny_model

    place = Path(folder) / ARCHITECTURES[name].lower()
    if not (place / "config.json").is_file():
        make_tiny_model(ARCHITECTURES[name], place, head_dim=16)
    return get_recipe(
        "intuitor",
        "smoke",
        name=f"tiny-{ARCHITECTURES[name].lower()}",
        model=str(place),
        seed=seed,
        preflight_problems=0,
    )
