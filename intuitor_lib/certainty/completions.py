"""Self-certainty, entropy and log-probabilities of tokens under a policy, in nats.

Self-certainty (arXiv 2505.19590, eq. 4) is the mean over a completion's tokens of KL(U || p), the
distance of the distribution p that predicts a token from the uniform U over the vocabulary. With V
raw logits z at temperature 1:

    KL(U || p) = sum_v 1/V log((1/V) / p_v) = logsumexp(z) - mean(z) - log V >= 0

It is computed from logits (`self_certainty`), from hidden states and the LM head without ever
holding the logits (`chunked_self_certainty`), or from a model and token ids (`score_completions`).
"""

import itertools
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
from .tokens import chunked_self_certainty, entropy, token_log_probs

__all__ = [
    "completion_log_probs",
    "end_tokens",
    "score_completions",
    "scoring",
    "through_end",
    "token_entropy",
    "token_self_certainty",
]


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
