"""Self-certainty, entropy and log-probabilities of tokens from logits, in nats.

Self-certainty (arXiv 2505.19590, eq. 4) is the mean over a completion's tokens of KL(U || p), the
distance of the distribution p that predicts a token from the uniform U over the vocabulary. With V
raw logits z at temperature 1:

    KL(U || p) = sum_v 1/V log((1/V) / p_v) = logsumexp(z) - mean(z) - log V >= 0

`completions.score_completions` takes a model and token ids, and never holds all logits.
"""

import math

import torch
from torch import Tensor

from .head import Head, accumulator


def self_certainty(logits: Tensor) -> Tensor:
    """KL(U || p) in nats of each position's raw logits: eq. 4 before the mean over tokens.

    `logits` (B, T, V), or any (..., V), are those that *predict* the tokens, from one position
    before them. Returns (B, T), non-negative up to rounding, in fp32 (float64 for float64 logits).
    A logit of -inf (a suppressed word) gives inf: pass the raw logits of the model.

    Raises `ValueError` for fewer than two logits, or logits that are not floating-point.
    """
    shifted = _shifted(logits)
    return torch.logsumexp(shifted, -1) - shifted.mean(-1) - math.log(logits.shape[-1])


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats, 0 to log V, of each position's distribution.

    Shapes, types and errors as in `self_certainty`. A logit of -inf adds nothing.
    """
    return torch.special.entr(torch.softmax(_shifted(logits), -1)).sum(-1)


def token_log_probs(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Log-probability in nats of `token_ids` (B, T) under the logits (B, T, V) that predict them.

    Shapes, types and errors as in `self_certainty`. Raises `ValueError` for ids of another shape
    or outside the vocabulary, too.
    """
    shifted = _shifted(logits)
    vocabulary = logits.shape[-1]
    if token_ids.shape != logits.shape[:-1]:
        raise ValueError(
            f"token_ids have shape {tuple(token_ids.shape)}, expected {tuple(logits.shape[:-1])}: "
            "pass one id for each position of the logits."
        )
    stray = token_ids[(token_ids < 0) | (token_ids >= vocabulary)]
    if stray.numel():
        raise ValueError(
            f"token_ids hold {stray[0].item()}, outside 0..{vocabulary - 1}: leave out positions "
            "that hold no token, or pass the logits of the model these ids belong to."
        )
    picked = shifted.gather(-1, token_ids.long().unsqueeze(-1)).squeeze(-1)
    return picked - torch.logsumexp(shifted, -1)


def chunked_self_certainty(hidden: Tensor, head: Head) -> Tensor:
    """`self_certainty` (N,) of hidden states (N, H) under an LM head, without all logits (N, V).

    At most `CHUNK_LOGITS` logits exist at a time, but at least those of one token (under `no_grad`;
    autograd keeps every chunk).
    """
    weight, bias = head.weight, head.bias
    rows = hidden.to(weight.device, weight.dtype)
    vocabulary, dtype = weight.shape[0], accumulator(weight.dtype)
    # By slices, so that no fp32 copy of a whole bf16 head is made.
    slices = [part.sum(0, dtype=dtype) for part in weight.split(4096)]
    mean_row = torch.stack(slices).sum(0) / vocabulary
    mean_bias = 0.0 if bias is None else bias.to(dtype).mean()
    values = []
    for block in rows.split(head.rows):
        logits = head.logits(block)  # [n, V]
        if head.softcap is not None:
            values.append(self_certainty(logits))
            continue
        # The head is linear, so the mean logit is the logit of its mean row. As a sum and not as a
        # matrix product, which autocast or TF32 would round to fewer digits.
        mean = head.scale * ((block.to(dtype) * mean_row).sum(-1) + mean_bias)
        values.append(torch.logsumexp(logits, -1) - mean - math.log(vocabulary))
    return torch.cat(values)


def _shifted(logits: Tensor) -> Tensor:
    """Logits in fp32 or float64 less their maximum, which keeps the digits of large ones."""
    if logits.dim() < 1 or logits.shape[-1] < 2 or not logits.is_floating_point():
        raise ValueError(
            f"logits are {logits.dtype} of shape {tuple(logits.shape)}, expected floating-point "
            "logits (..., V) with V >= 2: keep the vocabulary as the last dimension."
        )
    logits = logits.to(accumulator(logits.dtype))
    return logits - logits.detach().amax(-1, keepdim=True)
