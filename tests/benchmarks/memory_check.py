"""Compare the memory estimates of nine small trainings with their measured peaks on a CPU.

python tests/benchmarks/memory_check.py [--dtype bfloat16] [NAME ...]

Seven minutes on two cores. Exit status 1 where an estimate is not within 15 % of the measured peak.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from scoring_memory import peak_resident
from sums import SUMS

from intuitor_lib.policy.tiny import make_tiny_model
from intuitor_lib.problems.problems import load_problems
from intuitor_lib.recipe import Recipe, get_recipe
from intuitor_lib.training import trainer, training
from intuitor_lib.training.memory import SKIP, estimate_memory
from intuitor_lib.training.memory_advice import longest_prompt

RANDOM_MODEL = "a random Qwen2 of 0.23 B parameters"
RANDOM_CONFIG: Mapping[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}

SMALL: Mapping[str, Any] = {
    **SUMS,
    "max_steps": 1,
    "num_generations": 4,
    "per_device_train_batch_size": 8,
    "max_completion_length": 48,
    "max_prompt_length": 64,
    "eval_problems": 0,
    "preflight_problems": 0,
}

CHECKED: Mapping[str, Mapping[str, Any]] = {
    "NF4 + LoRA": {},
    "unquantized + LoRA": {"quantization": "none"},
    "all weights": {
        "quantization": "none",
        "use_lora": False,
        "learning_rate": 1e-6,
        "max_steps": 2,  # the optimizer allocates its states after the first
    },
    "longer completions": {"max_completion_length": 128},
    "larger batch": {"per_device_train_batch_size": 16},
    "more problems": {"gradient_accumulation_steps": 2},
    "gradient checkpointing": {"gradient_checkpointing": True, "max_completion_length": 96},
    "plain rollouts and update": {"rollout": "generate", "update": "plain"},
    "another architecture": {"model": RANDOM_MODEL},
}
"""Changes to `SMALL`; each recipe trains for one or two steps."""

ENVIRONMENT = {
    # Freed memory goes back to the system at once: the peak is the memory in use.
    "MALLOC_MMAP_THRESHOLD_": str(2**17),
    "MALLOC_TRIM_THRESHOLD_": str(2**17),
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",  # more threads wait for each other at the many page faults
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    SKIP: "0",
}


def measure(recipe: Recipe, scratch: Path) -> tuple[int, int]:
    """Train in a process of its own; return the peak of resident memory and the estimate (bytes).

    Raises:
        RuntimeError: the training failed.
    """
    command = [sys.executable, __file__, "--train", recipe.to_json(), tempfile.mkdtemp(dir=scratch)]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"training {recipe.name} failed:\n{done.stderr[-4000:]}")
    measured, estimated = json.loads(done.stdout.splitlines()[-1])
    return measured, estimated


def train_and_measure(recipe: Recipe, runs: str) -> tuple[int, int]:
    """Return peak and estimate (bytes); completions have their full length, as estimated."""
    problems = load_problems(recipe)
    tokens = longest_prompt(recipe, problems.train)
    estimated = estimate_memory(recipe, device="cpu", prompt_tokens=tokens).total
    sample, make = trainer.sample_completions, training._Training._make_trainer

    def without_end(*args: Any) -> Any:
        made = make(*args)
        made.generation_config.eos_token_id = None  # for TRL's own sampling
        return made

    def without_ends(*args: Any, **kwargs: Any) -> Any:
        return sample(*args, **kwargs | {"eos_token_id": []})

    with (
        mock.patch.object(trainer, "sample_completions", without_ends),
        mock.patch.object(training._Training, "_make_trainer", without_end),
    ):
        training.train(recipe, runs=runs, problems=problems)
    return peak_resident(), estimated


def random_model(scratch: Path) -> str:
    """Return the folder of `RANDOM_MODEL`; create the model if it does not exist."""
    folder = scratch / "random-qwen2"
    if not folder.is_dir():
        settings = {**RANDOM_CONFIG, "bos_token_id": None, "dtype": torch.bfloat16}
        make_tiny_model("Qwen2", folder, **settings)
    return str(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CHECKED)}")
    parser.add_argument("--dtype", default="float32", help="of computing; default float32")
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        print(json.dumps(train_and_measure(Recipe.from_json(options.train[0]), options.train[1])))
        return 0
    print(f"{'recipe':<26}  measured   estimated  estimated / measured")
    apart = 0
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.names or CHECKED:
            changes = {**SMALL, "dtype": options.dtype, **CHECKED[name]}
            if changes.get("model") == RANDOM_MODEL:
                changes["model"] = random_model(Path(scratch))
            recipe = get_recipe("quickstart", "cpu", **changes)
            measured, estimated = measure(recipe, Path(scratch))
            ratio = estimated / measured
            sizes = f"{measured / 2**30:5.2f} GiB  {estimated / 2**30:5.2f} GiB"
            print(f"{name:<26}  {sizes}  {ratio:.2f}", flush=True)
            apart += not 0.85 <= ratio <= 1.15
    return int(apart > 0)


if __name__ == "__main__":
    sys.exit(main())
