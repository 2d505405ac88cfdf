"""TRL's GRPO trainer with self-certainty from the rollouts and each prompt computed once.

`grpo_config` makes its arguments for a recipe.
"""

import copy
import functools
import math
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import peft
import torch
import trl
from trl.extras.profiling import profiling_context
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import add_fused_lm_head, nanstd, split_tensor_dict

from ..certainty.completions import end_tokens
from ..policy import compute_dtype
from ..policy.adapters import adapter_is_fresh, add_start_adapter
from ..policy.linear import speed_up_linears
from ..recipe import InputError, Recipe
from ..recipe.constants import SETTINGS
from ..rollouts import sample_completions
from ..rollouts.sampling import halve_until_it_fits, reason_against as reason_against_rollouts
from ..store.processes import join, share_batch
from .monitor import repetition
from .rewards.answers import completion_text
from .rewards.confidence import SAMPLED_SELF_CERTAINTY, SelfCertaintyReward
from .savepoints import EpochSampler, kept_checkpoints
from .update import (
    add_completion_forward,
    completion_scores,
    grouped_order,
    reason_against as reason_against_update,
)


def grpo_config(recipe: Recipe, output_dir: str | Path, device: torch.device) -> trl.GRPOConfig:
    """TRL's arguments for a recipe: the paper's choices where TRL's defaults differ.

    The loss is eq. 5's mean over tokens within a completion, then over completions; advantages
    are scaled within the group; the KL term is eq. 5's plain k3 estimate. TRL's defaults are
    another loss ("dapo"), beta 0 and an importance-weighted KL.

    Several processes share the completions of an update (`share_batch`) and train the same as one.

    With vLLM the completions come from another engine and, for a LoRA policy, from weights with
    the adapter rounded into the base (`serving.merged_weights`). TRL's importance sampling
    corrects the loss for this and leaves out completions whose probability differs more than
    threefold, which is not part of eq. 5. vLLM's seed is the number of the process.
    """
    dtype = compute_dtype(recipe.dtype, device)
    return trl.GRPOConfig(
        output_dir=str(output_dir),
        **{key: getattr(recipe, key) for key, about in SETTINGS.items() if "trl" in about},
        loss_type="grpo",
        scale_rewards="group",
        use_bias_correction_kl=False,
        **share_batch(recipe, join().num_processes),
        use_vllm=recipe.rollout == "vllm",
        # By default vLLM makes room for the model's whole context.
        vllm_max_model_length=recipe.max_prompt_length + recipe.max_completion_length,
        warmup_steps=recipe.warmup_ratio,  # below 1: a share of the steps
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type != "cpu",
        save_strategy="no",  # `SavePoints` saves
        save_total_limit=kept_checkpoints(recipe),
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",  # `tracking` adds the recipe's trackers
    )


# TRL's arguments that our sampler and our update do not heed, and their values for nothing.
_NOT_SAMPLED = {"min_p": 0.0, "repetition_penalty": 1.0, "generation_kwargs": {}}
_NOT_SCORED = {"entropy_coef": 0.0, "use_adaptive_entropy": False, "cast_lm_head_to_fp32": False}


class IntuitorTrainer(trl.GRPOTrainer):
    """`trl.GRPOTrainer` for the policies of `load_policy`. The changes:

    - LoRA weights on a 4-bit model stay fp32. TRL casts them to bf16, where AdamW's small steps
      round away.
    - The reference of a fresh adapter is the adapter turned off, that of another one its copy
      `START_ADAPTER`, and that of a model without adapters a copy of the model as it is given.
      TRL reads the latter from disk, without revision, and copies some kinds of adapters wrong.
    - Rollouts compute each prompt once for its group, and pass self-certainty to the rewards
      (`rollouts.sample_completions`). `rollout="generate"` selects TRL's rollouts.
    - The update and the reference compute each prompt once and score completions only
      (`update.add_completion_forward`). `update="plain"` selects TRL's forward.
    - With either of these, linear layers compute as in `policy.linear`.
    - The order of problems in an epoch depends only on seed and epoch (`EpochSampler`).
    - Completions end at the tokens of `end_tokens`, as in an evaluation.
    - The logged `reward` is that of completions with a reward of weight other than 0.
    - `on_completions(rows)` gets every completion with its rewards and its advantage.
    - Logged, too: `rollout_time` (seconds), and in `sampling/sampling_logp_difference/mean` how far
      the log-probability of a token in the update is from the sampler's, as TRL does for vLLM.

    Both ways give the same update up to rounding. "auto" computes prompts once where the model
    allows it; "grouped" requires it.

    Raises:
        InputError: "grouped" is set and the model does not allow it.
    """

    _buffered_inputs: Any  # TRL's micro-batches of an update

    def __init__(
        self,
        model: Any,
        *,
        args: trl.GRPOConfig,
        rollout: str = "auto",
        rollout_batch_size: int | None = None,
        update: str = "auto",
        on_completions: Callable[[list[dict[str, Any]]], None] | None = None,
        **kwargs: Any,
    ) -> None:
        if args.sync_ref_model:
            raise InputError("sync_ref_model=True: the reference is the policy at its start here")
        self._on_completions = on_completions
        quantized = getattr(model, "is_loaded_in_4bit", False)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        exact = {name: p.detach().float().clone() for name, p in trained.items() if quantized}
        # TRL takes these and the tokenizer's, and leaves out those of the model's configuration.
        model.generation_config.eos_token_id = sorted(end_tokens(model)) or None
        reference = None
        if args.beta and not isinstance(model, peft.PeftModel):
            reference = copy.deepcopy(model).requires_grad_(False)
            vars(reference).pop("forward", None)  # an earlier trainer's, which computes `model`
        elif args.beta and not adapter_is_fresh(model):
            add_start_adapter(model)
        without = copy.copy(args)
        without.beta = 0.0  # TRL makes no reference then
        super().__init__(model, args=without, **kwargs)
        self.beta = self.args.beta = args.beta
        for name, parameter in self.model.named_parameters():
            if name in exact:
                parameter.data = exact[name].to(parameter.device)
        if reference is not None:
            add_fused_lm_head(reference, temperature=self.temperature)
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)
        self._rollout_batch_size = rollout_batch_size
        self._drawn: tuple[torch.Tensor, torch.Tensor] | None = None  # log-probabilities, and mask
        self._drops_out = any(isinstance(m, torch.nn.Dropout) and m.p for m in model.modules())
        self._sampled_certainty: list[torch.Tensor] | None = None  # of each completion's tokens
        self._wants_self_certainty = any(
            isinstance(reward, SelfCertaintyReward) and reward.takes_sampled
            for reward in self.reward_funcs
        )
        reason = reason_against_rollouts(model) or self._asked(_NOT_SAMPLED)
        reason = reason or ("it has tools" if self.tools else None)
        self._grouped_rollouts = self._choose("rollout", rollout, reason)
        reason = reason_against_update(model) or self._asked(_NOT_SCORED)
        self._grouped_update = self._choose("update", update, reason)
        if self._grouped_rollouts or self._grouped_update:
            speed_up_linears(self.model)
        if self._grouped_update:
            for scored in filter(None, (self.model, self.ref_model)):
                add_completion_forward(scored, temperature=self.temperature)

    @property
    def _is_sharded(self) -> bool:
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def _choose(self, name: str, choice: str, reason: str | None) -> bool:
        """Whether to compute prompts once, for a setting and a reason against it."""
        if self._is_sharded:
            reason = reason or "its weights are sharded over processes (FSDP or DeepSpeed)"
        if self.use_vllm or self.use_transformers_continuous_batching:
            choice = "generate" if name == "rollout" else choice
        if choice == "grouped" and reason:
            raise InputError(f"{name}='grouped' does not fit this model: {reason}; take 'auto'")
        return choice in ("auto", "grouped") and not reason

    def _asked(self, unknown: Mapping[str, Any]) -> str | None:
        """The arguments that are set, of those that ours does not know, as a reason."""
        asked = [name for name, off in unknown.items() if (getattr(self.args, name) or off) != off]
        return f"its arguments set {', '.join(asked)}" if asked else None

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        parts = self.num_iterations * self.args.steps_per_generation
        per_rollout = Fraction(parts, self.args.gradient_accumulation_steps)
        theirs = super()._get_train_sampler(dataset)
        return EpochSampler(theirs, per_rollout, lambda: self.state.global_step)

    def _generate_single_turn(
        self,
        prompt_ids: Any,
        images: Any,
        multimodal_fields: Any,
        num_generations: int,
        has_tool_images: bool = False,
    ) -> tuple[list[list[int]], Any]:
        # TRL's public `rollout_func` is experimental, and gets conversations instead of token ids.
        self._sampled_certainty = None
        started = time.perf_counter()
        others = (images, multimodal_fields, num_generations, has_tool_images)
        theirs = functools.partial(self._generate_in_parts, prompt_ids, others)
        engine = self.use_vllm or self.use_transformers_continuous_batching  # has its own batches
        most = min(self._rollout_batch_size or len(prompt_ids), len(prompt_ids))
        if engine or images is not None or multimodal_fields:
            made = theirs(len(prompt_ids))
        elif self._is_sharded:  # a process that tried again alone would wait for the others
            made = theirs(most)
        else:
            sample = functools.partial(self._sample, prompt_ids)
            made = halve_until_it_fits(sample if self._grouped_rollouts else theirs, most)
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["rollout_time"].append(time.perf_counter() - started)
        return made

    def _generate_in_parts(
        self, prompt_ids: Any, others: tuple[Any, ...], size: int
    ) -> tuple[list[list[int]], Any]:
        """TRL's completions, `size` prompts at a time; all at a time where `others` are theirs."""
        parts = [prompt_ids[i : i + size] for i in range(0, len(prompt_ids), size)]
        made = [super(IntuitorTrainer, self)._generate_single_turn(p, *others) for p in parts]
        if len(made) == 1:
            return made[0]
        return [ids for part, _ in made for ids in part], None  # transformers returns no others

    def _sample(
        self, prompt_ids: Any, batch_size: int
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        """A completion for each prompt by `sample_completions`: token ids, log-probabilities."""
        with (
            profiling_context(self, "rollouts.sample_completions"),
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as policy,
            # As in the update, so that the policy sampled is the policy trained.
            self.accelerator.autocast(),
        ):
            completions = sample_completions(
                policy,
                prompt_ids,
                max_new_tokens=self.max_completion_length,
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                eos_token_id=sorted(end_tokens(policy, self._tokenizer)),
                batch_size=batch_size,
                self_certainty=self._wants_self_certainty,
            )
        if self._wants_self_certainty:
            self._sampled_certainty = [completion.self_certainty for completion in completions]
        filtered = self.top_k or self.top_p < 1  # then they belong to another distribution
        log_probs = None if filtered else [one.log_probs.tolist() for one in completions]
        return [completion.ids for completion in completions], log_probs

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        parts = self.args.steps_per_generation
        # TRL's shuffle assigns the completions of a rollout to several updates.
        one_update = parts == self.args.gradient_accumulation_steps
        if not (self._grouped_update and self.model.training and one_update):
            return super()._prepare_inputs(generation_batch)
        # As TRL, but groups stay together instead of being shuffled over the micro-batches.
        every = parts * self.num_iterations
        if self._step % every == 0 or self._buffered_inputs is None:
            rollouts = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(grouped_order(rollouts), parts)
        return self._buffered_inputs[self._step % parts]

    def _compute_loss(self, model: Any, inputs: Any) -> torch.Tensor:
        # The policy is still that of the rollouts in a step of one update, but for dropout.
        once = self.num_iterations == 1 and not self._drops_out
        once = once and self.args.steps_per_generation == self.args.gradient_accumulation_steps
        drawn = inputs.get("sampling_per_token_logps")
        if once and drawn is not None and not self.use_vllm:
            self._drawn = drawn, inputs["completion_mask"].bool()
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._drawn = None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **inputs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        other = compute_aux_loss or any(value is not None for value in inputs.values())
        # A batch without tokens to score has no gradient.
        if other or not self._grouped_update or not attention_mask[:, -logits_to_keep:].any():
            arguments = (model, input_ids, attention_mask, logits_to_keep, batch_size)
            scored = super()._get_per_token_logps_and_entropies(
                *arguments, compute_entropy, compute_aux_loss, **inputs
            )
            self._record_gap(scored[0])
            return scored
        size = batch_size or len(input_ids)
        with self.accelerator.autocast():
            scores = [
                completion_scores(model, ids, mask, logits_to_keep)
                for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True)
            ]
        log_probs, entropies = (torch.cat(parts) for parts in zip(*scores, strict=True))
        self._record_gap(log_probs)
        return log_probs, entropies if compute_entropy else None, None

    def _record_gap(self, log_probs: torch.Tensor) -> None:
        """Record how far the update's log-probabilities are from the sampler's, as TRL for vLLM."""
        if self._drawn is None:
            return
        drawn, mask = self._drawn
        means = self.accelerator.gather((log_probs.detach() - drawn).abs()[mask].mean())
        name = "sampling/sampling_logp_difference/mean"
        self._metrics["train"][name].append(means.nanmean().item())

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        if self._on_completions is not None:
            for row, advantage in zip(self._rows, batch["advantages"].tolist(), strict=True):
                row["advantage"] = round(advantage, 4)
            self._on_completions(self._rows)
        # TRL counts a completion with nothing but monitors of weight 0 as one of reward 0.
        weights = self.reward_weights.to(self._rewards.device)
        values = self._rewards[:, weights != 0]
        rewards = (values * weights[weights != 0]).nansum(1)
        rewards[values.isnan().all(1)] = math.nan
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["reward"][-1] = rewards.nanmean().item()
        metrics["reward_std"][-1] = nanstd(rewards).item()
        return batch

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        if self._sampled_certainty is not None:
            inputs = [
                problem | {SAMPLED_SELF_CERTAINTY: values.mean().item()}
                for problem, values in zip(inputs, self._sampled_certainty, strict=True)
            ]
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._rewards = rewards
        if self._on_completions is not None:
            first = self.accelerator.process_index * len(prompts)
            own = rewards[first : first + len(prompts)].tolist()
            columns = (inputs, prompts, completions, completion_ids_list, own)
            rows = [self._row(*row) for row in zip(*columns, strict=True)]
            # Of the first group alone: that of a large training would fill disks.
            known = self._sampled_certainty if self.accelerator.is_main_process else None
            tokens = zip(completion_ids_list, known or (), strict=False)
            for row, (ids, values) in zip(rows[: self.num_generations], tokens, strict=False):
                row["token_ids"] = list(ids)
                finite = bool(values.isfinite().all())  # JSON has no NaN
                rounded = [round(value, 3) for value in values.tolist()]
                row["token_self_certainty"] = rounded if finite else None
            self._rows = rows
        return rewards

    def _row(
        self, problem: Any, prompt: Any, completion: Any, ids: list[int], rewards: list[float]
    ) -> dict[str, Any]:
        """A completion with its rewards, for the record."""
        named = zip(self.reward_func_names, rewards, strict=True)
        return {
            "step": self.state.global_step + 1,
            "problem": problem.get("id"),
            "prompt": completion_text(prompt),
            "completion": completion_text(completion),
            "tokens": len(ids),
            "repetition": repetition(ids),
            **{name: None if math.isnan(value) else value for name, value in named},
        }
