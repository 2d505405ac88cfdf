"""The update's forward pass: log-probabilities of completion tokens, and nothing else.

TRL scores every position of every padded sequence. Here a group's prompt is computed once, the LM
head gets only the states that predict completion tokens, and nothing of the vocabulary's size is
kept for the backward pass.
"""

import functools
import types
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..certainty.forward import can_share_prompts, completion_states, distinct_prompts
from ..certainty.head import backbone_and_head, causal_model, head_fault, head_log_probs


def reason_against(model: Any) -> str | None:
    """Why `add_completion_forward` cannot serve a model; None where it can."""
    fault = head_fault(model)
    if fault is not None:
        return fault
    base, _, head = backbone_and_head(model)
    if head.trained:
        return "its LM head is trained, which needs the gradient of every logit"
    if getattr(base.config.get_text_config(), "output_router_logits", False):
        return "it is a mixture of experts with an auxiliary loss on its router"
    return None


def add_completion_forward(model: Any, *, temperature: float) -> None:
    """Let a causal language model, inside PEFT or not, score completions in its forward.

    `model(input_ids=..., completions=(prompt_ids, completion_ids))`, with two lists of N unpadded
    lists of token ids, returns `(log_probs, entropies)` of all completion tokens in order, as
    `head_log_probs`. It is one call of the outermost module, as wrappers for several processes and
    for mixed precision need. Without `completions` the forward is unchanged.
    """
    base = causal_model(model)
    original = base.forward

    # `generate` checks its arguments against this signature.
    @functools.wraps(original)
    def forward(
        self: Any,
        *args: Any,
        completions: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]] | None = None,
        **kwargs: Any,
    ) -> Any:
        if completions is None:
            return original(*args, **kwargs)
        _, backbone, head = backbone_and_head(self)
        prompt_ids, completion_ids = completions
        share = can_share_prompts(self)
        hidden = completion_states(backbone, prompt_ids, completion_ids, share_prompts=share)
        tokens = torch.tensor([token for ids in completion_ids for token in ids])
        return head_log_probs(hidden, head, tokens, temperature=temperature)

    base.forward = types.MethodType(forward, base)


def completion_scores(
    model: Any, input_ids: Tensor, attention_mask: Tensor, completion_length: int
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (B, C) in nats of the last C positions of padded sequences.

    `model`, perhaps wrapped, has the forward of `add_completion_forward`. `input_ids` (B, P + C)
    are prompts padded left and completions padded right; masked positions are 0.
    """
    sizes = [input_ids.shape[1] - completion_length, completion_length]
    prompt_mask, mask = attention_mask.bool().split(sizes, 1)
    prompts, completions = input_ids.split(sizes, 1)
    log_probs, entropies = model(
        input_ids=input_ids,
        completions=(_unpadded(prompts, prompt_mask), _unpadded(completions, mask)),
    )
    nothing = torch.zeros(mask.shape, dtype=log_probs.dtype, device=log_probs.device)
    mask = mask.to(log_probs.device)
    return nothing.masked_scatter(mask, log_probs), nothing.masked_scatter(mask, entropies)


def _unpadded(ids: Tensor, mask: Tensor) -> list[list[int]]:
    counts = mask.sum(1).tolist()
    return [part.tolist() for part in ids[mask].cpu().split(counts)]


def grouped_order(batch: Mapping[str, Any]) -> dict[str, Any]:
    """TRL's batch with the completions of a prompt side by side, longest groups first.

    The whole batch goes into one update, which does not depend on the order; its micro-batches
    then hold whole groups of like length.
    """
    _, groups = distinct_prompts(batch["prompt_ids"].tolist())
    lengths = batch["completion_mask"].sum(1).tolist()
    longest: dict[int, int] = {}
    for group, length in zip(groups, lengths, strict=True):
        longest[group] = max(longest.get(group, 0), length)
    order = sorted(range(len(groups)), key=lambda i: (-longest[groups[i]], groups[i], -lengths[i]))
    return {
        key: value[torch.tensor(order, device=value.device)]
        if isinstance(value, Tensor) and value.dim() > 0
        else value
        for key, value in batch.items()
    }
