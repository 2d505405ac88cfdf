"""What the measuring tools train on: SmolLM2-135M and sums of one-digit numbers.

Figures in docs/memory.md, docs/speed.md and data/benchmark.json are of these.
"""

from typing import Any

from intuitor_lib.recipe import SMOLLM2

__all__ = ["SUMS"]

SUMS: dict[str, Any] = {
    "model": SMOLLM2,
    "dataset": "reasoning-gym:chain_sum",
    "dataset_kwargs": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    "prompt_template": "{prompt} Answer briefly.",
    "prompt_column": "question",
    "answer_column": "answer",
    "answer_extraction": "last_number",
    "system_prompt": None,
    "max_problems": 128,
    "eval_problems": 64,
}
"""Settings for any recipe."""
