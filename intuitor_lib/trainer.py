"""From a recipe to a trained run: GRPO with self-certainty as the reward, on TRL."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
import trl
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils.notebook import NotebookProgressCallback

from .data import Problem, Problems, load_problems
from .policy import (
    Policy,
    adapter_is_fresh,
    compute_dtype,
    describe_policy,
    ignore_renames,
    load_policy,
)
from .progress import LiveTraining
from .prompts import fit_prompts, to_dataset
from .recipe import InputError, Recipe
from .rewards import AccuracyReward, RandomReward, SelfCertaintyReward, completion_text
from .runs import Run, RunStore

__all__ = ["IntuitorTrainer", "grpo_config", "load_run", "reward_functions", "train"]

logger = logging.getLogger(__name__)

_COMPLETIONS_KEPT_PER_STEP = 8


class IntuitorTrainer(trl.GRPOTrainer):
    """`trl.GRPOTrainer` for the policies of `load_policy`. The only changes:

    - LoRA weights on a 4-bit model stay fp32. TRL casts them to bf16, where AdamW's small steps
      round away.
    - A fresh adapter needs no copy as its reference: the reference is the adapter turned off.
    - `on_completions(rows)` sees every completion with its rewards.
    """

    def __init__(
        self,
        model: Any,
        *args: Any,
        on_completions: Callable[[list[dict[str, Any]]], None] | None = None,
        **kwargs: Any,
    ) -> None:
        self._on_completions = on_completions
        quantized = getattr(model, "is_loaded_in_4bit", False)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        exact = {name: p.detach().float().clone() for name, p in trained.items() if quantized}
        fresh = isinstance(model, peft.PeftModel) and adapter_is_fresh(model)
        super().__init__(model, *args, **kwargs)
        for name, parameter in self.model.named_parameters():
            if name in exact:
                parameter.data = exact[name].to(parameter.device)
        if fresh and "ref" in self.model.peft_config:
            self.model.delete_adapter("ref")

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self._on_completions is not None:
            first = self.accelerator.process_index * len(prompts)
            rows = []
            for i, (problem, completion) in enumerate(zip(inputs, completions, strict=True)):
                values = rewards[first + i].tolist()
                rows.append(
                    {
                        "step": self.state.global_step + 1,
                        "problem": problem.get("id"),
                        "prompt": completion_text(prompts[i]),
                        "completion": completion_text(completion),
                        "tokens": len(completion_ids_list[i]),
                        **{
                            name: None if value != value else value
                            for name, value in zip(self.reward_func_names, values, strict=True)
                        },
                    }
                )
            self._on_completions(rows)
        return rewards


def grpo_config(recipe: Recipe, output_dir: str | Path, device: torch.device) -> trl.GRPOConfig:
    """TRL's arguments for a recipe: the paper's choices where TRL's defaults differ.

    The loss is eq. 5's mean over tokens within a completion, then over completions; advantages
    are scaled within the group; the KL term is eq. 5's plain k3 estimate. TRL would default to
    another loss ("dapo"), to beta 0 and to an importance-weighted KL.
    """
    dtype = compute_dtype(recipe.dtype, device)
    return trl.GRPOConfig(
        output_dir=str(output_dir),
        loss_type="grpo",
        scale_rewards="group",
        multi_objective_aggregation=recipe.multi_objective_aggregation,
        use_bias_correction_kl=False,
        beta=recipe.beta,
        epsilon=recipe.epsilon,
        num_iterations=recipe.num_iterations,
        num_generations=recipe.num_generations,
        per_device_train_batch_size=recipe.per_device_train_batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        max_completion_length=recipe.max_completion_length,
        temperature=recipe.temperature,
        top_p=recipe.top_p,
        top_k=recipe.top_k,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=recipe.warmup_ratio,  # below 1: a share of the steps
        max_steps=recipe.max_steps,
        optim="adamw_torch",
        adam_beta1=recipe.adam_beta1,
        adam_beta2=recipe.adam_beta2,
        adam_epsilon=recipe.adam_epsilon,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        gradient_checkpointing=recipe.gradient_checkpointing,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type != "cpu",
        seed=recipe.seed,
        save_steps=recipe.save_steps,
        save_total_limit=2,
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
    )


def reward_functions(
    recipe: Recipe, policy: Policy, *, labelled: bool
) -> tuple[list[Callable[..., list[float | None]]], list[float]]:
    """The recipe's rewards and weights, followed by what is only monitored, at weight 0.

    Self-certainty is always monitored, accuracy wherever problems have answers (`labelled`).

    Raises:
        InputError: accuracy is to be rewarded and no problem has an answer.
    """
    if "accuracy" in recipe.rewards and not labelled:
        raise InputError(
            f"rewards={recipe.rewards!r} with no answer in the problems: name the column of the "
            "answers with answer_column, or reward self_certainty, which needs none"
        )
    make: dict[str, Callable[[], Callable[..., list[float | None]]]] = {
        "self_certainty": lambda: SelfCertaintyReward(
            policy.model,
            policy.tokenizer,
            annotator=recipe.annotator,
            batch_size=recipe.per_device_train_batch_size,
        ),
        "accuracy": lambda: AccuracyReward(last_number=recipe.last_number),
        "random": lambda: RandomReward(seed=recipe.seed),
    }
    monitored = ["self_certainty", *(["accuracy"] if labelled else [])]
    monitored = [name for name in monitored if name not in recipe.rewards]
    weights = [*(recipe.reward_weights or [1.0] * len(recipe.rewards)), *([0.0] * len(monitored))]
    return [make[name]() for name in (*recipe.rewards, *monitored)], weights


class _Recorder(transformers.TrainerCallback):
    """Writes each step's metrics to the run and shows them."""

    def __init__(self, run: Run, display: LiveTraining) -> None:
        self.run, self.display = run, display
        self.rows = run.metrics

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or logs is None or "reward" not in logs:
            return
        numbers = {k: v for k, v in logs.items() if isinstance(v, int | float) and v == v}
        row = {"step": state.global_step, **numbers}
        self.rows.append(row)
        self.run.append("metrics.jsonl", [row])
        self.display.update(self.rows)


def train(
    recipe: Recipe, *, runs: str | Path | None = None, problems: Problems | None = None
) -> Run:
    """Train a recipe, or return the run of the store that already holds it.

    An interrupted run goes on from its last checkpoint.

    Args:
        recipe: what to train.
        runs: folder of the run store; by default as in `RunStore`.
        problems: what `load_problems(recipe)` returns, where it is at hand already.

    Raises:
        InputError: malformed problems, prompts that do not fit, or a policy that cannot be had;
            before anything is loaded on a device where possible.
    """
    problems = problems or load_problems(recipe)
    run = RunStore(runs).open(recipe, problems.describe())
    if run.finished:
        return run
    with run.lock():
        if not run.finished:
            _train(recipe, problems, run)
    return run


def _train(recipe: Recipe, problems: Problems, run: Run) -> None:
    display = LiveTraining(f"train {run.id}", recipe.max_steps)
    run.set_status("running")
    try:
        policy = load_policy(recipe)
        facts = describe_policy(policy.model)
        run.set_environment(facts)
        display.say(
            f"{recipe.model} on {facts['device']} ({facts['device_name']}): weights "
            f"{facts['quantization']}, computing in {facts['compute_dtype']}, training "
            f"{facts['trainable_parameters']:,} of {facts['parameters']:,} parameters"
        )
        checkpoint = run.checkpoint
        run.rewind(0 if checkpoint is None else int(checkpoint.name.rsplit("-", 1)[1]))
        with ignore_renames():
            trainer = _make_trainer(recipe, problems.train, policy, run, display)
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        _save(policy, run)
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        run.set_status(state, error=f"{type(error).__name__}: {error}"[:2000])
        display.close(f"`{run.id}` {state} after {run.steps} of {recipe.max_steps} steps")
        raise
    run.set_status("finished", steps=run.steps, seconds=round(run.seconds, 1), error=None)
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)
    display.close(f"`{run.id}`: trained {run.steps} steps in {run.seconds:.0f} s")


def _make_trainer(
    recipe: Recipe, problems: Sequence[Problem], policy: Policy, run: Run, display: LiveTraining
) -> IntuitorTrainer:
    kept, dropped = fit_prompts(problems, recipe, policy.tokenizer)
    if dropped:
        logger.warning(
            "%d of %d prompts are longer than max_prompt_length=%d tokens and left out",
            len(dropped),
            len(problems),
            recipe.max_prompt_length,
        )
    if len(kept) < recipe.problems_per_step:
        raise InputError(
            f"{len(kept)} problems are fewer than the {recipe.problems_per_step} of one update: "
            "add problems, or lower per_device_train_batch_size x gradient_accumulation_steps"
        )
    labelled = any(problem.answer is not None for problem in kept)
    rewards, weights = reward_functions(recipe, policy, labelled=labelled)
    args = grpo_config(recipe, run.path / "checkpoints", next(policy.model.parameters()).device)
    args.reward_weights = weights
    trainer = IntuitorTrainer(
        policy.model,
        reward_funcs=rewards,
        args=args,
        train_dataset=to_dataset(kept, recipe),
        processing_class=policy.tokenizer,
        callbacks=[_Recorder(run, display)],
        on_completions=lambda rows: run.append(
            "completions.jsonl", rows[:_COMPLETIONS_KEPT_PER_STEP]
        ),
    )
    for printer in (PrinterCallback, ProgressCallback, NotebookProgressCallback):
        trainer.remove_callback(printer)
    return trainer


def _save(policy: Policy, run: Run) -> None:
    if isinstance(policy.model, peft.PeftModel):
        run.save_folder(
            "adapter",
            lambda folder: policy.model.save_pretrained(
                folder, selected_adapters=["default"], save_embedding_layers=False
            ),
        )
    else:
        run.save_folder("model", lambda folder: _save_whole(policy, folder))


def _save_whole(policy: Policy, folder: Path) -> None:
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)


def load_run(run: Run) -> Policy:
    """The trained policy of a finished run; its reference is the policy it started from.

    Raises:
        InputError: the run is not finished.
    """
    run.require_finished()
    if not run.recipe.use_lora:
        return load_policy(run.recipe.replace(model=str(run.path / "model")))
    policy = load_policy(run.recipe)
    weights = peft.load_peft_weights(str(run.adapter), device="cpu")
    peft.set_peft_model_state_dict(policy.model, weights)
    return policy
