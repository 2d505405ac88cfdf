"""What the library uses of TRL beyond its public interface, and nothing else does.

`tests/test_internals.py` names it, and fails where a body is another than the one read.
TRL's `rollout_func` would be a public way for rollouts. It is experimental, gets conversations
where `_generate_single_turn` gets token ids, and must render them again.
"""

from trl.extras.profiling import profiling_context as profiling_context
from trl.models import unwrap_model_for_generation as unwrap_model_for_generation
from trl.trainer.utils import (
    add_fused_lm_head as add_fused_lm_head,
    nanstd as nanstd,
    split_tensor_dict as split_tensor_dict,
)
