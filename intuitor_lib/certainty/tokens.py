"""Self-certainty, entropy and log-probabilities of tokens from logits, in nats.

Self-certainty (arXiv 2505.19590, eq. 4) is the mean over a completion's tokens of KL(U || p), the
distance of the distribution p that predicts a token from the uniform U over the vocabulary. With V
raw logits z at temperature 1:

    KL(U || p) = sum_v 1/V log((1/V) / p_v) = logsumexp(z) - mean(z) - log V >= 0

`self_certainty` takes logits. `chunked_self_certainty` takes hidden states and the LM head and
never holds all logits. `completions.score_completions` takes a model and token ids.
"""

import math

import torch
from torch import Tensor

from .head import CHUNK_LOGITS, accumulator, head_logits


def self_certainty(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """KL(U || p) in nats of each position's raw logits: eq. 4 before the mean over tokens.

    `logits` (B, T, V), or any (..., V), are those that *predict* the tokens, from one position
    before them. `mask` (B, T) holds booleans or 0/1 integers; masked positions are 0. Returns
    (B, T), non-negative up to rounding, in fp32 (float64 for float64 logits). A logit of -inf (a
    suppressed word) gives inf: pass the raw logits of the model.

    Raises `ValueError` for a mask of another shape or type, and for fewer than two logits.
    """
    shifted = _shifted(logits)
    value = torch.logsumexp(shifted, -1) - shifted.mean(-1) - math.log(logits.shape[-1])
    return value.where(_wanted(mask, value), 0.0)


def entropy(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Entropy in nats, 0 to log V, of each position's distribution.

    Shapes, types, mask and errors as in `self_certainty`. A logit of -inf adds nothing.
    """
    value = torch.special.entr(torch.softmax(_shifted(logits), -1)).sum(-1)
    return value.where(_wanted(mask, value), 0.0)


def token_log_probs(logits: Tensor, token_ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Log-probability in nats of `token_ids` (B, T) under the logits (B, T, V) that predict them.

    Shapes, types, mask and errors as in `self_certainty`. Masked positions may hold any id. Raises
    `ValueError` for ids of another shape or outside the vocabulary.
    """
    shifted = _shifted(logits)
    vocabulary = logits.shape[-1]
    if token_ids.shape != logits.shape[:-1]:
        raise ValueError(
            f"token_ids have shape {tuple(token_ids.shape)}, expected {tuple(logits.shape[:-1])}: "
            "pass one id for each position of the logits."
        )
    inside = (token_ids >= 0) & (token_ids < vocabulary)
    stray = token_ids[~inside & _wanted(mask, token_ids)]
    if stray.numel():
        raise ValueError(
            f"token_ids hold {stray[0].item()}, outside 0..{vocabulary - 1}: mask the positions "
            "that hold no token, or pass the logits of the model these ids belong to."
        )
    picked = shifted.gather(-1, token_ids.where(inside, 0).long().unsqueeze(-1)).squeeze(-1)
    value = picked - torch.logsumexp(shifted, -1)
    return value.where(_wanted(mask, value), 0.0)


def chunked_self_certainty(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    chunk_size: int = CHUNK_LOGITS,
) -> Tensor:
    """`self_certainty` of a model's hidden states, without holding the logits (B, T, V).

    The logits are `softcap * tanh(z / softcap)` with `z = logit_scale * (hidden @ weight.T +
    bias)`. The product runs in the dtype of `weight`, as in the model, and the rest in fp32
    (float64 for float64 weights).

    `hidden` (B, T, H), or any (..., H), is the input of the LM head with `weight` (V, H) and `bias`
    (V,). At most `chunk_size` logits exist at a time, but at least those of one token (under
    `no_grad`; autograd keeps every chunk). Positions where `mask` (B, T) is false are 0 and not
    computed. Returns (B, T) nats.

    Raises `ValueError` for shapes that do not fit, a bad mask, `chunk_size` < 1, `softcap` <= 0.
    """
    _check_head(hidden, weight, bias)
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}, expected at least 1 logit; 2**25 is usual.")
    if softcap is not None and softcap <= 0:
        raise ValueError(f"softcap is {softcap}, expected more than 0, or None for no soft cap.")
    wanted = _wanted(mask, hidden[..., 0])
    rows = hidden[wanted].to(weight.device, weight.dtype)  # [N, H]
    vocabulary, dtype = weight.shape[0], accumulator(weight.dtype)
    # By slices, so that no fp32 copy of a whole bf16 head is made.
    slices = [part.sum(0, dtype=dtype) for part in weight.split(4096)]
    mean_row = torch.stack(slices).sum(0) / vocabulary
    mean_bias = 0.0 if bias is None else bias.to(dtype).mean()
    values = []
    for block in rows.split(max(1, chunk_size // vocabulary)):
        logits = head_logits(block, weight, bias, logit_scale, softcap)  # [n, V]
        if softcap is not None:
            values.append(self_certainty(logits))
            continue
        # The head is linear, so the mean logit is the logit of its mean row. As a sum and not as a
        # matrix product, which autocast or TF32 would round to fewer digits.
        mean = logit_scale * ((block.to(dtype) * mean_row).sum(-1) + mean_bias)
        values.append(torch.logsumexp(logits, -1) - mean - math.log(vocabulary))
    nothing = torch.zeros(wanted.shape, dtype=dtype, device=hidden.device)
    return nothing.masked_scatter(wanted, torch.cat(values).to(hidden.device))


def _shifted(logits: Tensor) -> Tensor:
    """Logits in fp32 or float64 less their maximum, which keeps the digits of large ones."""
    if logits.dim() < 1 or logits.shape[-1] < 2 or not logits.is_floating_point():
        raise ValueError(
            f"logits are {logits.dtype} of shape {tuple(logits.shape)}, expected floating-point "
            "logits (..., V) with V >= 2: keep the vocabulary as the last dimension."
        )
    logits = logits.to(accumulator(logits.dtype))
    return logits - logits.detach().amax(-1, keepdim=True)


def _wanted(mask: Tensor | None, values: Tensor) -> Tensor:
    """`mask` as booleans of the shape and on the device of `values`; all True by default."""
    if mask is None:
        return torch.ones_like(values, dtype=torch.bool)
    if mask.shape != values.shape:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, expected {tuple(values.shape)}: pass one entry "
            "for each position, without the vocabulary or hidden dimension."
        )
    if mask.is_floating_point():
        # An additive attention mask is 0 at positions that count, the opposite of this mask.
        raise ValueError(f"mask is {mask.dtype}, expected booleans or 0/1 integers: pass .bool().")
    return mask.to(values.device).bool()


def _check_head(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if weight.dim() != 2 or weight.shape[0] < 2 or not weight.is_floating_point():
        raise ValueError(
            f"weight is {weight.dtype} of shape {tuple(weight.shape)}, expected a floating-point "
            "LM head (V, H) with V >= 2: dequantize the head first."
        )
    bias_shape = weight.shape[:1] if bias is None else bias.shape
    if hidden.shape[-1:] != weight.shape[1:] or bias_shape != weight.shape[:1]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and bias "
            f"{tuple(bias_shape)} do not fit, expected (..., H), (V, H) and (V,): pass the "
            "backbone's last hidden state with the LM head of the same model."
        )
