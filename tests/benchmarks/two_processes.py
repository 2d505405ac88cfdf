"""One update by one process on the CPU against the same update by several, or on a GPU.

    compare_processes(recipe)
    compare_devices(recipe)

Each runs in processes of its own. Completions are sampled once and used by both, since sampling
differs between processes and devices; rewards, advantages and gradients are compared. The processes
execute this file.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file

from intuitor_lib.policy.adapters import ignore_renames
from intuitor_lib.policy.loading import load_policy
from intuitor_lib.problems.problems import load_problems
from intuitor_lib.problems.prompts import fit_prompts, to_dataset
from intuitor_lib.recipe.constants import InputError
from intuitor_lib.recipe.recipe import Recipe
from intuitor_lib.store.processes import join, share_batch
from intuitor_lib.training.rewards.factory import reward_functions
from intuitor_lib.training.trainer import IntuitorTrainer, grpo_config

__all__ = ["compare_devices", "compare_processes"]

_PERTURBATION = 0.02  # standard deviation of the noise added to LoRA-B, which starts at 0


def compare_processes(*recipes: Recipe, processes: int = 2) -> list[dict[str, Any]]:
    """Compare one update by one process with the same update by several, for each recipe.

    Noise is added to LoRA-B, since at its start of 0 the gradients of LoRA-A and of the KL term are
    0. Gradients are those before clipping.

    Args:
        recipes: the recipes to train one update of.
        processes: the number of processes; it must divide the completions of every recipe.

    Returns:
        One row per recipe: `rewards` and `advantages`, the largest difference of any completion;
        `gradients`, the norm of the difference over the norm (all weights); `seconds_one` and
        `seconds_several` of scoring and update, without sampling; `processes`, `completions`,
        `parameters`, `gradient_norm`.

    Raises:
        InputError: a random reward, or completions that the processes cannot share.
        RuntimeError: a process failed, with the end of its output.
    """
    for recipe in recipes:
        share_batch(recipe, processes)
        if "random" in recipe.rewards:
            raise InputError(
                f"rewards={recipe.rewards!r}: random rewards differ by process; compare recipes "
                "with self_certainty or accuracy"
            )
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    found = _compare(recipes, launcher, threads=max(1, _cores() // processes))
    return [row | {"processes": processes} for row in found]


def compare_devices(*recipes: Recipe) -> list[dict[str, Any]]:
    """Compare one update on the CPU with the same update where this machine trains.

    Rows and errors as those of `compare_processes`; `seconds_several` is that of the device.
    """
    return _compare(recipes, [], threads=_cores(), cpu=False)


def _cores() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0))


def _compare(
    recipes: Sequence[Recipe], launcher: Sequence[str], *, threads: int, cpu: bool = True
) -> list[dict[str, Any]]:
    """Start one process on the CPU, then the others; compare what they wrote."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [recipe.to_dict() for recipe in recipes]
        (folder / "recipes.json").write_text(json.dumps(texts), encoding="utf-8")
        _start([], folder, "one", threads=_cores())
        _start(launcher, folder, "other", threads=threads, cpu=cpu)
        return [_difference(folder / str(i)) for i in range(len(recipes))]


def _start(
    launcher: Sequence[str], folder: Path, label: str, *, threads: int, cpu: bool = True
) -> None:
    only_cpu = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""} if cpu else {}
    done = subprocess.run(
        [sys.executable, *launcher, __file__, str(folder), label],
        env={
            **{k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")},
            **only_cpu,
            "OMP_NUM_THREADS": str(threads),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a process of the comparison failed: {done.stderr.strip()[-4000:]}")


def _difference(folder: Path) -> dict[str, Any]:
    one, several = (json.loads((folder / f"{n}.json").read_text()) for n in ("one", "other"))
    first, second = (_by_content(made["rows"]) for made in (one, several))
    if first.keys() != second.keys() or len(one["rows"]) != len(several["rows"]):
        raise RuntimeError("the processes did not score the completions they were given")
    gradients = [load_file(folder / f"{n}.safetensors") for n in ("one", "other")]
    flat = [torch.cat([g[k].double().flatten() for k in sorted(g)]) for g in gradients]

    def largest(key: str) -> float:
        a, b = (torch.tensor([rows[k][key] for k in sorted(first)]) for rows in (first, second))
        neither = a.isnan() & b.isnan()  # one NaN alone stays a difference
        return (a - b).abs().masked_fill(neither, 0.0).max().item()

    return {
        "recipe": one["recipe"],
        "completions": len(one["rows"]),
        "parameters": flat[0].numel(),
        "rewards": largest("rewards"),
        "advantages": largest("advantage"),
        "gradients": ((flat[0] - flat[1]).norm() / flat[0].norm()).item(),
        "gradient_norm": flat[0].norm().item(),
        "seconds_one": one["seconds"],
        "seconds_several": several["seconds"],
    }


def _by_content(rows: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    return {(tuple(row["prompt_ids"]), tuple(row["completion_ids"])): row for row in rows}


def _compute(folder: Path, label: str) -> None:
    """One update of every recipe, by all processes started together."""
    for index, values in enumerate(json.loads((folder / "recipes.json").read_text())):
        place = folder / str(index)
        place.mkdir(exist_ok=True)
        _update(Recipe.from_dict(values), place, label)
        join().wait_for_everyone()


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
        first = self.accelerator.process_index * len(prompt_ids)
        rollouts = json.loads(self.file.read_text())[first : first + len(prompt_ids)]
        if [prompt for prompt, _ in rollouts] != list(map(list, prompt_ids)):
            raise RuntimeError("this process was given other prompts than one process alone")
        self._sampled_certainty = None
        return [completion for _, completion in rollouts], None

    def _calculate_rewards(self, inputs: Any, prompts: Any, *args: Any) -> torch.Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, *args)
        first = self.accelerator.process_index * len(prompts)
        self.own_rewards = rewards[first : first + len(prompts)]
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)

        def real(name: str, i: int) -> list[int]:
            return batch[f"{name}_ids"][i][batch[f"{name}_mask"][i] == 1].tolist()

        self.rows = gather_object(
            [
                {
                    "prompt_ids": real("prompt", i),
                    "completion_ids": real("completion", i),
                    "rewards": self.own_rewards[i].tolist(),
                    "advantage": batch["advantages"][i].item(),
                }
                for i in range(len(batch["advantages"]))
            ]
        )
        return batch


class _Gradients(transformers.TrainerCallback):
    """Writes the gradients of the update, and measures its seconds, sampling included."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.started = time.perf_counter()

    def on_pre_optimizer_step(self, *args: Any, model: Any = None, **kwargs: Any) -> None:
        self.seconds = time.perf_counter() - self.started
        if join().is_main_process:
            trained = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
            save_file(
                {n: g.cpu().contiguous() for n, g in trained.items() if g is not None}, self.file
            )


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
    if join().is_main_process:
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
