"""The estimate of a training's memory beside what trainings really take on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from scoring_memory import peak_resident

from ..recipe.recipe import Recipe
from ..recipe.recipes import get_recipe
from .memory import estimate_memory

__all__ = ["CHECKED", "Measured", "check"]

_RANDOM_MODEL = "a random Qwen2 of 0.23 B parameters"

_SMALL: Mapping[str, Any] = {
    "max_steps": 1,
    "num_generations": 4,
    "per_device_train_batch_size": 8,
    "max_completion_length": 48,
    "max_prompt_length": 64,
    "eval_problems": 0,
}

CHECKED: Mapping[str, Mapping[str, Any]] = {
    "NF4 + LoRA": {},
    "unquantized + LoRA": {"quantization": "none"},
    "all weights": {
        "quantization": "none",
        "use_lora": False,
        "learning_rate": 1e-6,
        "max_steps": 2,  # the optimizer's states are made at the end of the first
    },
    "longer completions": {"max_completion_length": 128},
    "larger batch": {"per_device_train_batch_size": 16},
    "more problems": {"gradient_accumulation_steps": 2},
    "gradient checkpointing": {"gradient_checkpointing": True, "max_completion_length": 96},
    "plain rollouts and update": {"rollout": "generate", "update": "plain"},
    "another architecture": {"model": _RANDOM_MODEL},
}
"""Changes of one small recipe, each trained for a step or two by `check`."""


@dataclass(frozen=True)
class Measured:
    """A training's peak of resident memory and its estimate (bytes)."""

    name: str
    measured: int
    estimated: int

    @property
    def ratio(self) -> float:
        """Estimated over measured."""
        return self.estimated / self.measured


def check(names: Iterator[str] | None = None) -> Iterator[Measured]:
    """Train the recipes of `CHECKED` on the CPU, each in its own process, and measure its peak.

    No completion ends before `max_completion_length`: the estimate is for that. Freed memory goes
    back to the system at once (glibc's thresholds), so that the peak is what was in use.

    Args:
        names: of `CHECKED`; all by default.

    Raises:
        RuntimeError: a training failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for name in names or CHECKED:
            changes = dict(CHECKED[name])
            if changes.get("model") == _RANDOM_MODEL:
                changes["model"] = _random_model(Path(scratch))
            recipe = get_recipe("quickstart", "cpu", **{**_SMALL, **changes})
            values = _in_process(recipe, Path(scratch))
            yield Measured(name, values["measured"], values["estimated"])


def _random_model(scratch: Path) -> str:
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    from ..policy.embedded import embedded_model_folder

    tokenizer = AutoTokenizer.from_pretrained(embedded_model_folder())
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=12,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    folder = scratch / "random-qwen2"
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _in_process(recipe: Recipe, scratch: Path) -> dict[str, int]:
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": str(2**17),
        "MALLOC_TRIM_THRESHOLD_": str(2**17),
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "1",  # the page faults of that leave threads waiting for each other
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", __name__, recipe.to_json(), tempfile.mkdtemp(dir=scratch)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"training {recipe.name} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _train_and_measure(recipe: Recipe, runs: str) -> dict[str, int]:
    """Estimate in a process forked before anything is loaded, then train and read the peak."""
    from ..problems.problems import load_problems
    from . import trainer as grpo, training as trainer

    recipe = recipe.replace(preflight_problems=0)  # as the estimate, the training alone
    problems = load_problems(recipe)
    estimated = _estimate_in_fork(recipe, problems)
    os.environ["INTUITOR_MEMORY_CHECK"] = "0"
    sample, make = grpo.sample_completions, trainer._Training._make_trainer

    def without_end(*args: Any) -> Any:
        made = make(*args)
        made.generation_config.eos_token_id = None  # of TRL's own way of sampling
        return made

    def without_ends(*args: Any, **kwargs: Any) -> Any:
        return sample(*args, **kwargs | {"eos_token_id": []})

    with (
        mock.patch.object(grpo, "sample_completions", without_ends),
        mock.patch.object(trainer._Training, "_make_trainer", without_end),
    ):
        trainer.train(recipe, runs=runs, problems=problems)
    return {"measured": peak_resident(), "estimated": estimated}


def _estimate_in_fork(recipe: Recipe, problems: Any) -> int:
    """The estimate of a child, so that making it adds nothing to this process's peak."""
    from .memory_advice import _longest_prompt

    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            tokens = _longest_prompt(recipe, problems.train)
            total = estimate_memory(recipe, device="cpu", prompt_tokens=tokens).total
            os.write(write, str(total).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as stream:
        text = stream.read()
    os.waitpid(child, 0)
    if not text:
        raise RuntimeError(f"no estimate of {recipe.name}")
    return int(text)


if __name__ == "__main__":
    print(json.dumps(_train_and_measure(Recipe.from_json(sys.argv[1]), sys.argv[2])))
