"""The arguments of TRL's trainer for a recipe."""

from pathlib import Path

import torch
import trl

from ..policy import compute_dtype
from ..recipe import Recipe
from ..recipe.constants import SETTINGS
from ..store.processes import join, share_batch
from .monitor import WINDOW


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
        optim="adamw_torch",
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type != "cpu",
        save_strategy="no",  # `SavePoints` saves
        # Two to resume from, and one from before the window in which a collapse is detected.
        save_total_limit=2 + -(-WINDOW * recipe.num_iterations // recipe.save_steps),
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
    )
