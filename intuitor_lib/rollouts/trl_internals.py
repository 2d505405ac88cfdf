"""What the library uses of TRL beyond its public interface, and nothing else does.

`INTERNALS` names it. `tests/test_internals.py` fails where a body is another than the one read.
TRL's `rollout_func` would be a public way for rollouts. It is experimental, gets conversations
where `_generate_single_turn` gets token ids, and must render them again.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from trl.extras.profiling import profiling_context
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import RepeatSampler, add_fused_lm_head, nanstd, split_tensor_dict

__all__ = [
    "INTERNALS",
    "RepeatSampler",
    "add_fused_lm_head",
    "nanstd",
    "profiling_context",
    "send_instead",
    "split_tensor_dict",
    "unwrap_model_for_generation",
]

INTERNALS: Mapping[str, str] = {
    "trl.GRPOTrainer.__init__": "makes no reference at beta=0; sets `_tokenizer` and `_step`",
    "trl.GRPOTrainer._get_train_sampler": "extended: the order within an epoch",
    "trl.GRPOTrainer._generate_single_turn": "extended: rollouts with each prompt once",
    "trl.GRPOTrainer._prepare_inputs": "extended: the same, but groups stay together",
    "trl.GRPOTrainer._generate_and_score_completions": "extended: `_metrics`; reads `ref`",
    "trl.GRPOTrainer._get_per_token_logps_and_entropies": "extended: completions alone are scored",
    "trl.GRPOTrainer._calculate_rewards": "extended: self-certainty goes in, rows come out",
    "trl.trainer.utils.RepeatSampler": "extended by `training.savepoints.EpochSampler`",
    "trl.trainer.utils.add_fused_lm_head": "called for the reference",
    "trl.trainer.utils.nanstd": "called as TRL does",
    "trl.trainer.utils.split_tensor_dict": "called as TRL does",
    "trl.trainer.utils.use_adapter": "activates the adapter `ref`",
    "trl.extras.profiling.profiling_context": "called as TRL does",
    "trl.models.unwrap_model_for_generation": "called as TRL does",
    "trl.generation.vllm_generation.VLLMGeneration.sync_weights": "sends what is given instead",
    "trl.generation.vllm_generation.VLLMGeneration._iter_named_params": "replaced",
}
"""Dotted names, and what each is used for."""


def send_instead(generation: Any, weights: Callable[[], Iterator[tuple[str, Tensor]]]) -> None:
    """Make TRL's `VLLMGeneration` send `weights()` instead of the model's parameters."""
    generation._iter_named_params = weights
