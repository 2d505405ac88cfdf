"""What the library uses of transformers beyond its public interface, and nothing else does.

`INTERNALS` names it. `tests/test_internals.py` fails where a body is another than the one read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.cache_utils import DynamicCache, DynamicLayer

__all__ = ["INTERNALS", "DynamicCache", "DynamicLayer", "load_checkpoint", "takes_default_cache"]

INTERNALS: Mapping[str, str] = {
    "transformers.cache_utils.DynamicLayer": "`rollouts.cache.GrowingLayer` extends it",
    "transformers.cache_utils.DynamicCache.__init__": "its layers show what a model keeps",
    "transformers.generation.utils.GenerationMixin._supports_default_dynamic_cache": "asked",
    "transformers.Trainer._load_from_checkpoint": "loads the weights of a step without training",
}
"""Dotted names, and what each is used for."""


def takes_default_cache(model: Any) -> bool:
    """Whether a model takes a `DynamicCache`."""
    return getattr(model, "_supports_default_dynamic_cache", lambda: True)()


def load_checkpoint(trainer: Any, folder: str | Path) -> None:
    """Give a trainer's model the weights of a checkpoint."""
    trainer._load_from_checkpoint(str(folder))
