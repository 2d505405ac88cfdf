"""Draw tokens from logits, with their self-certainty and log-probability."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

_BLOCK = 128  # tokens of the vocabulary that are summed before one of them is chosen


@contextlib.contextmanager
def own_random_state(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch with `seed`; afterwards restore the caller's random state."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def make_warpers(top_k: int, top_p: float) -> LogitsProcessorList:
    """Top-k and top-p filters of logits; none for `top_k` 0 and `top_p` 1."""
    warpers = LogitsProcessorList()
    if top_k:
        warpers.append(TopKLogitsWarper(top_k=top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p=top_p))
    return warpers


def draw(
    logits: Tensor,
    *,
    temperature: float,
    warpers: Callable[[Any, Tensor], Tensor] | None = None,
    self_certainty: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a token from each row of raw logits (B, V) in fp32, which are overwritten.

    Returns:
        `(tokens, self_certainty, log_probs)`, each (B,). Self-certainty (nats) belongs to the raw
        logits and is NaN unless asked for; log-probabilities (nats) belong to the distribution
        drawn from, at temperature 0 to the model's.
    """
    top, best = logits.max(-1)
    certainty = torch.full_like(top, math.nan)
    scaled = temperature not in (0.0, 1.0) or (bool(warpers) and temperature > 0)
    if self_certainty:
        certainty = -logits.mean(-1) - math.log(logits.shape[-1])
        if scaled:
            certainty += torch.logsumexp(logits, -1)
    if scaled:
        logits.div_(temperature)
        if warpers:
            logits = warpers(None, logits)
        top = logits.amax(-1)
    weights = logits.sub_(top.unsqueeze(-1)).exp_()
    total = weights.sum(-1)
    if self_certainty and not scaled:
        certainty += top + total.log()
    tokens = _choose(weights) if temperature else best
    picked = weights.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return tokens, certainty, (picked / total).log()


def _choose(weights: Tensor) -> Tensor:
    """Draw a column of each row (B, V) with probability proportional to its weight.

    By inversion: one uniform number for each row selects a block of the vocabulary, then a token
    in it. Sums over blocks are in float64, so that no token is lost to rounding.
    """
    rows, vocabulary = weights.shape
    missing = -vocabulary % _BLOCK
    if missing:
        weights = torch.nn.functional.pad(weights, (0, missing))
    blocks = weights.view(rows, -1, _BLOCK)
    sums = blocks.sum(-1).double()  # [B, V / block]
    until = sums.cumsum(-1)
    target = until[:, -1:] * torch.rand(rows, 1, dtype=torch.float64, device=weights.device)
    block = _first_above(until, target)
    before = until.gather(-1, block) - sums.gather(-1, block)
    chosen = blocks.gather(1, block.unsqueeze(-1).expand(-1, -1, _BLOCK)).squeeze(1).double()
    within = _first_above(chosen.cumsum(-1), target - before)
    # Rounding at the edge of a block may select a token of probability 0.
    possible = chosen.gather(-1, within) > 0
    within = torch.where(possible, within, chosen.argmax(-1, keepdim=True))
    return (block * _BLOCK + within).squeeze(-1)


def _first_above(until: Tensor, target: Tensor) -> Tensor:
    """The first column of each row whose running sum exceeds the target (B, 1)."""
    return torch.searchsorted(until, target, right=True).clamp_(max=until.shape[-1] - 1)
