"""One update on the CPU against the same update on a GPU.

Each runs in a process of its own, which executes this file. Completions are sampled once and used
by both, since sampling differs between devices; rewards, advantages and gradients are compared.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from intuitor_lib.policy.adapters import ignore_renames
from intuitor_lib.policy.loading import load_policy
from intuitor_lib.problems.problems import load_problems
from intuitor_lib.problems.prompts import fit_prompts, to_dataset
from intuitor_lib.recipe.recipe import Recipe
from intuitor_lib.training.arguments import grpo_config
from intuitor_lib.training.rewards.factory import reward_functions
from intuitor_lib.training.trainer import IntuitorTrainer

__all__ = ["compare_devices"]

_PERTURBATION = 0.02  # standard deviation of the noise added to LoRA-B, which starts at 0


def compare_devices(*recipes: Recipe) -> list[dict[str, Any]]:
    """Compare one update on the CPU with the same update where this machine trains.

    Noise is added to LoRA-B, since at its start of 0 the gradients of LoRA-A and of the KL term are
    0. Gradients are those before clipping.

    Returns:
        One row per recipe: `rewards` and `advantages`, the largest difference of any completion;
        `gradients`, the norm of the difference over the norm (all weights); `seconds_cpu` and
        `seconds_device` of scoring and update, without sampling; `completions`, `parameters`,
        `gradient_norm`.

    Raises:
        RuntimeError: a process failed, with the end of its output.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [recipe.to_dict() for recipe in recipes]
        (folder / "recipes.json").write_text(json.dumps(texts), encoding="utf-8")
        _start(folder, "cpu")
        _start(folder, "device")
        return [_difference(folder / str(i)) for i in range(len(recipes))]


def _start(folder: Path, label: str) -> None:
    only_cpu = {"CUDA_VISIBLE_DEVICES": ""} if label == "cpu" else {}
    done = subprocess.run(
        [sys.executable, __file__, str(folder), label],
        env={**os.environ, **only_cpu},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a process of the comparison failed: {done.stderr.strip()[-4000:]}")


def _difference(folder: Path) -> dict[str, Any]:
    cpu, device = (json.loads((folder / f"{n}.json").read_text()) for n in ("cpu", "device"))
    first, second = (_by_content(made["rows"]) for made in (cpu, device))
    if first.keys() != second.keys() or len(cpu["rows"]) != len(device["rows"]):
        raise RuntimeError("the processes did not score the completions they were given")
    gradients = [load_file(folder / f"{n}.safetensors") for n in ("cpu", "device")]
    flat = [torch.cat([g[k].double().flatten() for k in sorted(g)]) for g in gradients]

    def largest(key: str) -> float:
        a, b = (torch.tensor([rows[k][key] for k in sorted(first)]) for rows in (first, second))
        neither = a.isnan() & b.isnan()  # one NaN alone stays a difference
        return (a - b).abs().masked_fill(neither, 0.0).max().item()

    return {
        "recipe": cpu["recipe"],
        "completions": len(cpu["rows"]),
        "parameters": flat[0].numel(),
        "rewards": largest("rewards"),
        "advantages": largest("advantage"),
        "gradients": ((flat[0] - flat[1]).norm() / flat[0].norm()).item(),
        "gradient_norm": flat[0].norm().item(),
        "seconds_cpu": cpu["seconds"],
        "seconds_device": device["seconds"],
    }


def _by_content(rows: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    return {(tuple(row["prompt_ids"]), tuple(row["completion_ids"])): row for row in rows}


def _compute(folder: Path, label: str) -> None:
    """One update of every recipe."""
    for index, values in enumerate(json.loads((folder / "recipes.json").read_text())):
        place = folder / str(index)
        place.mkdir(exist_ok=True)
        _update(Recipe.from_dict(values), place, label)


class _GivenRollouts(IntuitorTrainer):
    """Takes its completions from a file; samples and writes them if there is none."""

    def __init__(self, *args: Any, file: Path, **kwargs: Any) -> None:
        self.file = file
        self.sampling_seconds = 0.0
        self.rows: list[dict[str, Any]] = []
        super().__init__(*args, **kwargs)

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.file.is_file():
            started = time.perf_counter()
            completions, _ = super()._generate_single_turn(prompt_ids, *args, **kwargs)
            self.file.write_text(json.dumps(list(zip(prompt_ids, completions, strict=True))))
            self.sampling_seconds += time.perf_counter() - started
        rollouts = json.loads(self.file.read_text())
        if [prompt for prompt, _ in rollouts] != list(map(list, prompt_ids)):
            raise RuntimeError("this process was given other prompts than the first one")
        self._sampled_certainty = None
        return [completion for _, completion in rollouts], None

    def _calculate_rewards(self, inputs: Any, prompts: Any, *args: Any) -> torch.Tensor:
        self.given_rewards = super()._calculate_rewards(inputs, prompts, *args)
        return self.given_rewards

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)

        def real(name: str, i: int) -> list[int]:
            return batch[f"{name}_ids"][i][batch[f"{name}_mask"][i] == 1].tolist()

        self.rows = [
            {
                "prompt_ids": real("prompt", i),
                "completion_ids": real("completion", i),
                "rewards": self.given_rewards[i].tolist(),
                "advantage": batch["advantages"][i].item(),
            }
            for i in range(len(batch["advantages"]))
        ]
        return batch


class _Gradients(transformers.TrainerCallback):
    """Writes the gradients of the update, and measures its seconds, sampling included."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.started = time.perf_counter()

    def on_pre_optimizer_step(self, *args: Any, model: Any = None, **kwargs: Any) -> None:
        self.seconds = time.perf_counter() - self.started
        trained = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        save_file({n: g.cpu().contiguous() for n, g in trained.items() if g is not None}, self.file)


def _update(recipe: Recipe, folder: Path, label: str) -> None:
    """Train one update; write its rewards, advantages and gradients."""
    # Completions from a file have no logits they were drawn from.
    recipe = recipe.replace(max_steps=1, max_grad_norm=1e9, certainty_from="forward")
    policy = load_policy(recipe)
    kept, _ = fit_prompts(load_problems(recipe).train, recipe, policy.tokenizer)
    labelled = any(problem.answer is not None for problem in kept)
    rewards, weights = reward_functions(recipe, policy, labelled=labelled)
    args = grpo_config(recipe, folder / "trainer", policy.model.device)
    args.reward_weights = weights
    args.save_strategy = transformers.trainer_utils.SaveStrategy.NO
    gradients = _Gradients(folder / f"{label}.safetensors")
    with ignore_renames():
        trainer = _GivenRollouts(
            policy.model,
            file=folder / "rollouts.json",
            reward_funcs=rewards,
            args=args,
            train_dataset=to_dataset(kept, recipe),
            processing_class=policy.tokenizer,
            callbacks=[gradients],
            rollout=recipe.rollout,
            rollout_batch_size=recipe.rollout_batch_size,
            update=recipe.update,
        )
        _perturb(policy.model, recipe.seed)
        trainer.train()
    seconds = gradients.seconds - trainer.sampling_seconds
    made = {"recipe": recipe.name, "seconds": seconds, "rows": trainer.rows}
    (folder / f"{label}.json").write_text(json.dumps(made))


def _perturb(model: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_B.default." in name:
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.data += _PERTURBATION * noise


if __name__ == "__main__":
    _compute(Path(sys.argv[1]), sys.argv[2])
