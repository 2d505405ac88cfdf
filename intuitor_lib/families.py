"""The model families of the paper's Tables 4 to 6: really trained, at a size that fits anywhere.

A tiny model has a family's architecture (its attention, norms and rotary embedding as
transformers implements them), random weights and the embedded model's tokenizer. It learns
nothing; that it trains in 4 bits with LoRA is what it shows.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path

import torch
import transformers

from .embedded import embedded_model_folder
from .recipe import Recipe
from .recipes import get_recipe

__all__ = ["ARCHITECTURES", "make_tiny", "tiny_recipe"]

ARCHITECTURES: Mapping[str, str] = types.MappingProxyType(
    {
        "qwen2.5-7b": "Qwen2",
        "qwen2.5-14b": "Qwen2",
        "qwen3-14b": "Qwen3",
        "llama3.2-3b": "Llama",
        "olmo2-7b": "Olmo2",
    }
)
"""The architecture of each recipe's model, as transformers names its classes."""


def make_tiny(architecture: str, folder: str | Path) -> Path:
    """A random two-layer model of an architecture with a tokenizer, written to a folder.

    Raises:
        ValueError: an architecture that is not in `ARCHITECTURES`.
    """
    if architecture not in ARCHITECTURES.values():
        known = ", ".join(dict.fromkeys(ARCHITECTURES.values()))
        raise ValueError(f"architecture={architecture!r}: choose from {known}")
    folder = Path(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded_model_folder())
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{architecture}ForCausalLM")(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_recipe(name: str, folder: str | Path, *, seed: int = 7) -> Recipe:
    """Two steps of a tiny model of a recipe's family, in 4 bits with LoRA, on products.

    Its other settings are those of `intuitor` under the profile smoke. The model is made in
    `folder` if it is not there.

    Raises:
        ValueError: a recipe that is none of `ARCHITECTURES`.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"name={name!r}: choose from {', '.join(ARCHITECTURES)}")
    place = Path(folder) / ARCHITECTURES[name].lower()
    if not (place / "config.json").is_file():
        make_tiny(ARCHITECTURES[name], place)
    return get_recipe(
        "intuitor",
        "smoke",
        name=f"tiny-{ARCHITECTURES[name].lower()}",
        model=str(place),
        seed=seed,
        preflight_problems=0,
    )
