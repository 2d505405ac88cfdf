"""What the library uses of transformers beyond its public interface, and nothing else does.

`tests/test_internals.py` names it, and fails where a body is another than the one read.
"""

from pathlib import Path
from typing import Any

from transformers.cache_utils import DynamicCache as DynamicCache, DynamicLayer as DynamicLayer


def takes_default_cache(model: Any) -> bool:
    """Whether a model takes a `DynamicCache`."""
    return getattr(model, "_supports_default_dynamic_cache", lambda: True)()


def load_checkpoint(trainer: Any, folder: str | Path) -> None:
    """Give a trainer's model the weights of a checkpoint."""
    trainer._load_from_checkpoint(str(folder))
