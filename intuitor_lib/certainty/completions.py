"""Self-certainty, entropy and log-probabilities of completions under a model, in nats.

Each function takes a model and token ids. The backbone computes prompts and completions, the LM
head only the positions that predict completion tokens, a chunk of logits at a time.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from .forward import Ids, can_share_prompts, completion_states, sharing_pays
from .head import Head, accumulator, backbone_and_head, causal_model
from .tokens import chunked_self_certainty, entropy, self_certainty, token_log_probs

# (hidden states (n, H), LM head, the tokens they predict (n,)) -> (n,)
_Score = Callable[[Tensor, Head, Tensor], Tensor]


class ScoringOptions(TypedDict, total=False):
    """Options of all scoring functions."""

    eos_token_id: int | Sequence[int] | None
    """A completion counts up to and with its first end token. None, the default, takes those of
    the model's generation settings, then of its configuration; `[]` means that none ends it."""
    batch_size: int
    """Sequences per forward pass; 16 by default."""


def token_self_certainty(
    model: nn.Module, prompt_ids: Ids, completion_ids: Ids, **options: Unpack[ScoringOptions]
) -> list[Tensor]:
    """Self-certainty in nats of every token of every completion under `model` (eq. 4).

    Runs under `eval()` and `no_grad`, at temperature 1.

    Args:
        model: a causal language model, inside PEFT or not.
        prompt_ids: N unpadded, non-empty lists of token ids.
        completion_ids: N unpadded lists of token ids.
        options: see `ScoringOptions`.

    Returns:
        N tensors (length,) in input order, on the CPU, in fp32 (float64 for a float64 head). Value
        i belongs to the distribution that *predicts* token i: the prompt's last position gives the
        first value, the position of the last token gives none.

    Raises:
        ValueError: lists of different length, an empty prompt, a token id outside the vocabulary,
            `batch_size` < 1, or a model that `backbone_and_head` refuses.
    """

    def score(hidden: Tensor, head: Head, _: Tensor) -> Tensor:
        return chunked_self_certainty(hidden, head)

    return _per_token(model, prompt_ids, completion_ids, score, **options)


def completion_log_probs(
    model: nn.Module,
    prompt_ids: Ids,
    completion_ids: Ids,
    *,
    temperature: float = 1.0,
    **options: Unpack[ScoringOptions],
) -> list[Tensor]:
    """Log-probability in nats of every token of every completion, at a sampling temperature.

    The logits are divided by `temperature` (> 0). The rest is as in `token_self_certainty`.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected more than 0; 1 is the model's.")
    score = _in_chunks(lambda logits, tokens: token_log_probs(logits / temperature, tokens))
    return _per_token(model, prompt_ids, completion_ids, score, **options)


def token_entropy(
    model: nn.Module, prompt_ids: Ids, completion_ids: Ids, **options: Unpack[ScoringOptions]
) -> list[Tensor]:
    """Entropy in nats of the distribution that predicts each token, as `token_self_certainty`."""
    score = _in_chunks(lambda logits, _: entropy(logits))
    return _per_token(model, prompt_ids, completion_ids, score, **options)


def token_confidence(
    model: nn.Module, prompt_ids: Ids, completion_ids: Ids, **options: Unpack[ScoringOptions]
) -> list[Tensor]:
    """Self-certainty, entropy and log-probability (length, 3) of every token, in one pass.

    The rest is as in `token_self_certainty`.
    """

    def measures(logits: Tensor, tokens: Tensor) -> Tensor:
        values = (self_certainty(logits), entropy(logits), token_log_probs(logits, tokens))
        return torch.stack(values, -1)

    found = _per_token(model, prompt_ids, completion_ids, _in_chunks(measures), **options)
    return [values.view(-1, 3) for values in found]


def score_completions(
    model: nn.Module, prompt_ids: Ids, completion_ids: Ids, **options: Unpack[ScoringOptions]
) -> Tensor:
    """Self-certainty (N,) of each completion (eq. 4): the mean of its `token_self_certainty`.

    In nats per token, fp32 on the CPU; NaN for an empty completion.
    """
    values = token_self_certainty(model, prompt_ids, completion_ids, **options)
    return torch.tensor([value.mean().item() for value in values], dtype=torch.float32)


def _in_chunks(value: Callable[[Tensor, Tensor], Tensor]) -> _Score:
    """`value(logits (n, V), tokens (n,))` on at most `CHUNK_LOGITS` logits at a time."""

    def score(hidden: Tensor, head: Head, tokens: Tensor) -> Tensor:
        tokens = tokens.to(head.weight.device)
        blocks = zip(hidden.split(head.rows), tokens.split(head.rows), strict=True)
        return torch.cat([value(head.logits(block), ids) for block, ids in blocks])

    return score


def _per_token(
    model: nn.Module,
    prompt_ids: Ids,
    completion_ids: Ids,
    score: _Score,
    *,
    eos_token_id: int | Sequence[int] | None = None,
    batch_size: int = 16,
) -> list[Tensor]:
    """`score` of every completion token, a tensor for each completion."""
    base, backbone, head = backbone_and_head(model)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1 sequence.")
    ends = end_tokens(base, eos_token_id=eos_token_id)
    completions = [through_end(completion, ends) for completion in completion_ids]
    _check_sequences(prompt_ids, completions, base.get_input_embeddings().weight.shape[0])
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
            prompts, chosen = [prompt_ids[i] for i in batch], [completions[i] for i in batch]
            hidden = completion_states(backbone, prompts, chosen, share_prompts=share)
            tokens = torch.tensor([token for completion in chosen for token in completion])
            scores = score(hidden, head, tokens)
            for i, value in zip(batch, scores.cpu().split([*map(len, chosen)]), strict=True):
                values[i] = value
    return values


def end_tokens(
    model: Any, tokenizer: Any = None, *, eos_token_id: int | Sequence[int] | None = None
) -> set[int]:
    """The token ids that end a completion: the model's, and the tokenizer's if one is given.

    The model's are `eos_token_id`, by default those of its generation settings, or of its
    configuration if there are none.
    """
    base = causal_model(model)
    sources = (getattr(base, "generation_config", None), base.config.get_text_config())
    found = [eos_token_id, *(getattr(source, "eos_token_id", None) for source in sources)]
    own = next((ids for ids in found if ids is not None), [])
    ends = {own} if isinstance(own, int) else {*own}
    end = getattr(tokenizer, "eos_token_id", None)
    return ends if end is None else ends | {end}


def through_end(completion: Sequence[int], ends: set[int]) -> list[int]:
    """The completion up to its first end token, that token included."""
    stop = next((i + 1 for i, token in enumerate(completion) if token in ends), len(completion))
    return list(completion[:stop])


def _check_sequences(prompt_ids: Ids, completion_ids: Ids, vocabulary: int) -> None:
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
    everything = itertools.chain(*prompt_ids, *completion_ids)
    stray = next((token for token in everything if not 0 <= token < vocabulary), None)
    if stray is not None:
        raise ValueError(
            f"token id {stray} is outside the model's 0..{vocabulary - 1}: strip padding such as "
            "-100, and use the tokenizer that belongs to this model."
        )


@contextmanager
def scoring(model: nn.Module) -> Iterator[None]:
    """Run the block under `eval()` and `no_grad`, then restore the mode of every submodule."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
