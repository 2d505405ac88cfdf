"""Profiles: the model and sizes with which a recipe fits a machine."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .constants import EMBEDDED_MODEL, SYSTEM_PROMPTS

__all__ = ["PROFILES", "Profile"]


@dataclass(frozen=True)
class Profile:
    """A machine and the settings that fit a recipe to it.

    `verified` names the hardware on which the profile has been run; empty for none.
    """

    name: str
    description: str
    settings: Mapping[str, Any]
    verified: str = ""


_EMBEDDED_SETTINGS = {
    "model": EMBEDDED_MODEL,
    "model_revision": None,
    "quantization": "nf4",
    "use_lora": True,
    "gradient_checkpointing": False,
}

PROFILES: Mapping[str, Profile] = types.MappingProxyType(
    {
        p.name: p
        for p in (
            Profile(
                "smoke",
                "two steps of the embedded model, to see that everything runs",
                _EMBEDDED_SETTINGS
                | {
                    "max_steps": 2,
                    "num_generations": 2,
                    "per_device_train_batch_size": 4,
                    "gradient_accumulation_steps": 1,
                    "max_prompt_length": 256,
                    "max_completion_length": 8,
                    "max_problems": 16,
                    "preflight_problems": 2,
                    "learning_rate": 1e-3,
                },
                verified="2-core CPU",
            ),
            Profile(
                "cpu",
                "the embedded model on two CPU cores, trained for real in minutes",
                _EMBEDDED_SETTINGS
                | {
                    "max_steps": 10,
                    "num_generations": 8,
                    "per_device_train_batch_size": 16,
                    "gradient_accumulation_steps": 1,
                    "max_prompt_length": 384,
                    "max_completion_length": 48,
                    # Tens of steps instead of the paper's: a larger one moves rank-16
                    # adapters of a 135M model visibly in that many (LOG.md).
                    "learning_rate": 5e-4,
                },
                verified="2-core CPU",
            ),
            Profile(
                "gpu-12gb",
                "Qwen2.5-1.5B in 4 bits on a 12 GB GPU",
                {
                    "model": "Qwen/Qwen2.5-1.5B",
                    "per_device_train_batch_size": 7,
                    "num_generations": 7,
                    "gradient_accumulation_steps": 16,
                    "max_completion_length": 1024,
                    "system_prompt": SYSTEM_PROMPTS["math-1.5b"],
                },
            ),
            Profile(
                "gpu-24gb",
                "Qwen2.5-3B in 4 bits on a 24 GB GPU",
                {
                    "model": "Qwen/Qwen2.5-3B",
                    "per_device_train_batch_size": 7,
                    "num_generations": 7,
                    "gradient_accumulation_steps": 32,
                    "max_completion_length": 2048,
                    "rollout_batch_size": 112,  # `intuitor memory`: all 224 do not fit
                },
            ),
            Profile(
                "paper",
                "the paper's own setting: all weights in bf16 on large GPUs (A100-40GB)",
                {"quantization": "none", "use_lora": False, "learning_rate": 3e-6},
            ),
        )
    }
)
