"""Architectures of the models that the recipes name, for estimates without the hub.

Each is what the model's `config.json` on the hub says of its shape; nothing else of it is needed.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..policy.embedded import embedded_model_folder
from ..recipe.constants import EMBEDDED_MODEL, InputError

__all__ = ["ARCHITECTURES", "checkpoint_bytes", "model_config"]


def _shape(
    model_type: str,
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    kv_heads: int,
    vocabulary: int,
    context: int,
    *,
    tied: bool,
    head_dim: int = 128,
) -> Mapping[str, Any]:
    return types.MappingProxyType(
        {
            "model_type": model_type,
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "vocab_size": vocabulary,
            "max_position_embeddings": context,
            "tie_word_embeddings": tied,
            "head_dim": head_dim,
        }
    )


ARCHITECTURES: Mapping[str, Mapping[str, Any]] = types.MappingProxyType(
    {
        "Qwen/Qwen2.5-1.5B": _shape("qwen2", 1536, 8960, 28, 12, 2, 151936, 131072, tied=True),
        "Qwen/Qwen2.5-3B": _shape("qwen2", 2048, 11008, 36, 16, 2, 151936, 32768, tied=True),
        "Qwen/Qwen2.5-7B": _shape("qwen2", 3584, 18944, 28, 28, 4, 152064, 131072, tied=False),
        "Qwen/Qwen2.5-14B": _shape("qwen2", 5120, 13824, 48, 40, 8, 152064, 131072, tied=False),
        "Qwen/Qwen3-14B": _shape("qwen3", 5120, 17408, 40, 40, 8, 151936, 40960, tied=False),
        "meta-llama/Llama-3.2-3B-Instruct": _shape(
            "llama", 3072, 8192, 28, 24, 8, 128256, 131072, tied=True
        ),
        "allenai/OLMo-2-1124-7B-SFT": _shape(
            "olmo2", 4096, 11008, 32, 32, 32, 100352, 4096, tied=False
        ),
    }
)
"""By the hub's name: arguments of `transformers.AutoConfig.for_model`."""


def model_config(model: str, revision: str | None = None) -> Any:
    """The `transformers` configuration of a model, without its weights.

    From the package, a local folder or the hub's cache; else from `ARCHITECTURES`, else from the
    hub.

    Raises:
        InputError: it is none of these and the hub does not give it.
    """
    import transformers

    load = transformers.AutoConfig.from_pretrained
    source = embedded_model_folder() if model == EMBEDDED_MODEL else model
    try:
        return load(source, revision=revision, local_files_only=True)
    except (OSError, ValueError):
        if model in ARCHITECTURES:
            return transformers.AutoConfig.for_model(**ARCHITECTURES[model])
    try:
        return load(source, revision=revision)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the configuration of model={model!r} could not be had: {error}. Give a local folder, "
            f"a hub name that this machine can reach, or one of {', '.join(ARCHITECTURES)}"
        ) from error


def checkpoint_bytes(model: str) -> int | None:
    """Size of a model's weight files in the package or a local folder; None for a hub name."""
    folder = embedded_model_folder() if model == EMBEDDED_MODEL else Path(model)
    files = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
    return sum(file.stat().st_size for file in files) or None
