"""Self-certainty, entropy and log-probabilities of tokens under a policy, in nats.

Self-certainty (arXiv 2505.19590, eq. 4) is the mean over a completion's tokens of KL(U || p), the
distance of the distribution p that predicts a token from the uniform U over the vocabulary. With V
raw logits z at temperature 1:

    KL(U || p) = sum_v 1/V log((1/V) / p_v) = logsumexp(z) - mean(z) - log V >= 0

It is computed from logits (`self_certainty`), from hidden states and the LM head without ever
holding the logits (`chunked_self_certainty`), or from a model and token ids (`score_completions`).
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .forward import can_share_prompts, completion_states, sharing_pays
from .head import (
    CHUNK_LOGITS,
    accumulator,
    backbone_and_head,
    causal_model,
    head_logits,
    head_settings,
)

__all__ = [
    "chunked_self_certainty",
    "completion_log_probs",
    "end_tokens",
    "entropy",
    "score_completions",
    "scoring",
    "self_certainty",
    "through_end",
    "token_entropy",
    "token_log_probs",
    "token_self_certainty",
]


def self_certainty(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """KL(U || p) in nats of each position's raw logits: eq. 4 before the mean over tokens.

    `logits` (B, T, V), or any (..., V), are those that *predict* the tokens, one position before
    them. `mask` (B, T), boolean or 0/1 integers; masked positions are 0. Returns (B, T) in fp32,
    in float64 for float64 logits. Non-negative up to rounding. A logit of -inf (a suppressed word)
    gives inf, since U expects that word and p never says it: pass the raw logits of the model.

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

    `hidden` (B, T, H), or any (..., H), is what enters the LM head of `weight` (V, H) and `bias`
    (V,); the logits are `softcap * tanh(z / softcap)` with `z = logit_scale * (hidden @ weight.T +
    bias)`. At most `chunk_size` logits exist at a time, but those of one token always do (the
    bound holds under `no_grad`; autograd keeps every chunk). Only positions where `mask` (B, T) is
    true are computed, the others are 0.

    The product runs in the type of `weight`, as in the model; all that follows, and the mean
    logit, in fp32 (float64 for float64 weights). Returns (B, T) nats in that type.

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


def token_self_certainty(
    model: nn.Module,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    *,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int = 0,
    batch_size: int = 16,
) -> list[Tensor]:
    """Self-certainty in nats of every token of every completion under `model` (eq. 4).

    `prompt_ids` and `completion_ids` are N unpadded lists of token ids. A completion counts up to
    its first `eos_token_id`, that token included; None asks the model's generation settings, then
    its configuration, and `[]` means that no token ends a completion. Value i belongs to the
    distribution that *predicts* token i: the prompt's last position gives the first, and what
    follows the last token gives none.

    Runs the backbone under `eval()` and `no_grad` on `batch_size` sequences of like length at a
    time, and the LM head on the completions only. `pad_token_id` may be an end token too. Returns
    N tensors (length,) in input order, on the CPU, in fp32 (float64 for a float64 head).

    Raises `ValueError` for lists of different length, an empty prompt, a token id outside the
    vocabulary, `batch_size` < 1, and a model that `head_settings` refuses.
    """
    return _per_token(
        model,
        prompt_ids,
        completion_ids,
        lambda hidden, head, scale, softcap, _: chunked_self_certainty(
            hidden, head.weight, head.bias, logit_scale=scale, softcap=softcap
        ),
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        batch_size=batch_size,
    )


def completion_log_probs(
    model: nn.Module,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int = 0,
    batch_size: int = 16,
) -> list[Tensor]:
    """Log-probability in nats of every token of every completion, at a sampling temperature.

    The logits are divided by `temperature` (> 0). Other arguments, the result and errors as in
    `token_self_certainty`.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected more than 0; 1 is the model's.")

    def log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
        return token_log_probs(logits / temperature, tokens)

    return _per_token(
        model,
        prompt_ids,
        completion_ids,
        _in_chunks(log_probs),
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        batch_size=batch_size,
    )


def token_entropy(
    model: nn.Module,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    *,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int = 0,
    batch_size: int = 16,
) -> list[Tensor]:
    """Entropy in nats of the distribution that predicts each token of every completion.

    At temperature 1. Arguments, the result and errors as in `token_self_certainty`.
    """
    return _per_token(
        model,
        prompt_ids,
        completion_ids,
        _in_chunks(lambda logits, _: entropy(logits)),
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        batch_size=batch_size,
    )


def score_completions(
    model: nn.Module,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    *,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int = 0,
    batch_size: int = 16,
) -> Tensor:
    """Self-certainty (N,) of each completion: the mean of `token_self_certainty`, eq. 4.

    In nats per token, fp32 on the CPU. An empty completion scores NaN: it has no token to be
    certain of. Arguments and errors are those of `token_self_certainty`.
    """
    values = token_self_certainty(
        model,
        prompt_ids,
        completion_ids,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        batch_size=batch_size,
    )
    return torch.tensor([value.mean().item() for value in values], dtype=torch.float32)


def _in_chunks(
    value: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[Tensor, Any, float, float | None, Tensor], Tensor]:
    """`value(logits (n, V), tokens (n,))` as `_per_token` takes it, few logits at a time."""

    def score(
        hidden: Tensor, head: Any, scale: float, softcap: float | None, tokens: Tensor
    ) -> Tensor:
        rows = hidden.to(head.weight.device, head.weight.dtype)
        size = max(1, CHUNK_LOGITS // head.weight.shape[0])
        values = []
        for block, ids in zip(rows.split(size), tokens.split(size), strict=True):
            logits = head_logits(block, head.weight, head.bias, scale, softcap)
            values.append(value(logits, ids.to(logits.device)))
        return torch.cat(values)

    return score


def _per_token(
    model: nn.Module,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    score: Callable[[Tensor, Any, float, float | None, Tensor], Tensor],
    *,
    eos_token_id: int | Sequence[int] | None,
    pad_token_id: int,
    batch_size: int,
) -> list[Tensor]:
    """`score(hidden, head, logit_scale, softcap, tokens)` of every completion token.

    `hidden` (n, H) are the states that predict `tokens` (n,).
    """
    base, backbone, head = backbone_and_head(model)
    logit_scale, softcap = head_settings(model)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1 sequence.")
    embedding = base.get_input_embeddings().weight
    ends = end_tokens(base, eos_token_id)
    completions = [through_end(completion, ends) for completion in completion_ids]
    _check_sequences(prompt_ids, completions, pad_token_id, embedding.shape[0])
    share = can_share_prompts(base)
    lengths = [len(prompt) + len(c) for prompt, c in zip(prompt_ids, completions, strict=True)]
    # Completions of a prompt side by side, else sequences of like length.
    together = share and sharing_pays(prompt_ids)
    order = sorted(
        (i for i, completion in enumerate(completions) if completion),
        key=lambda i: tuple(prompt_ids[i]) if together else (-lengths[i],),
    )
    values = [torch.empty(0, dtype=accumulator(head.weight.dtype)) for _ in completions]
    with scoring(model):
        for batch in (order[i : i + batch_size] for i in range(0, len(order), batch_size)):
            chosen = [completions[i] for i in batch]
            hidden = completion_states(
                backbone,
                [prompt_ids[i] for i in batch],
                chosen,
                share_prompts=share,
                device=embedding.device,
                pad_token_id=pad_token_id,
            )
            tokens = torch.tensor([token for completion in chosen for token in completion])
            scores = score(hidden, head, logit_scale, softcap, tokens)
            for i, value in zip(batch, scores.cpu().split([*map(len, chosen)]), strict=True):
                values[i] = value
    return values


def _shifted(logits: Tensor) -> Tensor:
    """Logits in fp32 or float64 less their maximum, which keeps digits when they are large."""
    if logits.dim() < 1 or logits.shape[-1] < 2 or not logits.is_floating_point():
        raise ValueError(
            f"logits are {logits.dtype} of shape {tuple(logits.shape)}, expected floating-point "
            "logits (..., V) with V >= 2: keep the vocabulary as the last dimension."
        )
    logits = logits.to(accumulator(logits.dtype))
    return logits - logits.detach().amax(-1, keepdim=True)


def _wanted(mask: Tensor | None, values: Tensor) -> Tensor:
    """`mask`, or all, as booleans of the shape and device of `values`."""
    if mask is None:
        return torch.ones_like(values, dtype=torch.bool)
    if mask.shape != values.shape:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, expected {tuple(values.shape)}: pass one entry "
            "for each position, without the vocabulary or hidden dimension."
        )
    if mask.is_floating_point():
        # An additive attention mask holds 0 where it lets through, the opposite of what is meant.
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


def end_tokens(model: Any, eos_token_id: int | Sequence[int] | None = None) -> set[int]:
    """Tokens that end a completion: `eos_token_id`, or those the model's settings name."""
    base = causal_model(model)
    for source in (getattr(base, "generation_config", None), base.config.get_text_config()):
        if eos_token_id is None:
            eos_token_id = getattr(source, "eos_token_id", None)
    if eos_token_id is None:
        return set()
    return {eos_token_id} if isinstance(eos_token_id, int) else set(eos_token_id)


def through_end(completion: Sequence[int], ends: set[int]) -> list[int]:
    """The completion up to its first end token, that token included."""
    stop = next((i + 1 for i, token in enumerate(completion) if token in ends), len(completion))
    return list(completion[:stop])


def _check_sequences(
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    pad_token_id: int,
    vocabulary: int,
) -> None:
    if len(prompt_ids) != len(completion_ids):
        raise ValueError(
            f"{len(prompt_ids)} prompts and {len(completion_ids)} completions: repeat each prompt "
            "once for each of its completions."
        )
    empty = [i for i, prompt in enumerate(prompt_ids) if len(prompt) == 0]
    if empty:
        raise ValueError(
            f"prompt_ids[{empty[0]}] is [], so nothing predicts its completion's first token: "
            "start the prompt with the beginning-of-sequence token."
        )
    everything = itertools.chain(*prompt_ids, *completion_ids, [pad_token_id])
    stray = next((token for token in everything if not 0 <= token < vocabulary), None)
    if stray is not None:
        raise ValueError(
            f"token id {stray} is outside the model's 0..{vocabulary - 1}: strip padding such as "
            "-100, and use the tokenizer that belongs to this model."
        )


@contextmanager
def scoring(model: nn.Module) -> Iterator[None]:
    """Within it `eval()` and `no_grad`; afterwards every submodule is back in its own mode."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
