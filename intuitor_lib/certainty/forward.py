"""Hidden states of completions, with each prompt computed once for all its completions.

The G completions of a group share their prompt. A forward pass over whole sequences computes it G
times; here it is computed once, its keys and values are handed to the completions behind it, and
sequences of like length share a batch. Gradients flow through both; they are those of the plain
pass up to rounding.
"""

import inspect
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from .head import causal_model

__all__ = [
    "can_share_prompts",
    "completion_states",
    "distinct_prompts",
    "keeps_all_positions",
    "length_buckets",
    "padded",
    "sharing_pays",
]

# Rows of one batch waste at most this share of it on padding, unless the batch is small anyway.
_PADDING = 0.2
_SMALL_BATCH = 256  # tokens below which a matrix product no longer gets faster by the row


def keeps_all_positions(model: Any) -> bool:
    """Whether every layer attends to all that is before it and keeps its keys and values.

    Not so for sliding windows, recurrent states, encoder-decoders and prompt-learning adapters,
    nor for a model that counts columns instead of taking positions, as MPT does: padding stands
    between a prompt and its completions.
    """
    base = causal_model(model)
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False
    if (
        base.config.is_encoder_decoder
        or not getattr(base, "_supports_default_dynamic_cache", lambda: True)()
    ):
        return False
    backbone = getattr(base, "base_model", base)
    takes = inspect.signature(backbone.forward).parameters
    if not {"past_key_values", "position_ids"} <= takes.keys():
        return False
    layers = DynamicCache(config=base.config.get_text_config()).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def can_share_prompts(model: Any) -> bool:
    """Whether the keys and values of a prompt can stand before each of its completions now.

    True where `keeps_all_positions` is, but under gradient checkpointing, which keeps no cache.
    """
    base = causal_model(model)
    return keeps_all_positions(model) and not (base.training and base.is_gradient_checkpointing)


def sharing_pays(prompt_ids: Sequence[Sequence[int]]) -> bool:
    """Whether prompts stand before two completions each or more, on average."""
    return 2 * len(set(map(tuple, prompt_ids))) <= len(prompt_ids)


def distinct_prompts(prompt_ids: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[int]]:
    """The different prompts in order of appearance, and the place among them of each given one."""
    places = {prompt: i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompt_ids)))}
    return [list(prompt) for prompt in places], [places[tuple(prompt)] for prompt in prompt_ids]


def completion_states(
    backbone: Any,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    *,
    share_prompts: bool,
    device: torch.device,
    pad_token_id: int = 0,
) -> Tensor:
    """Last hidden states that predict the tokens of the completions.

    Args:
        backbone: the transformer under the LM head.
        prompt_ids: N unpadded, non-empty lists of token ids; equal ones are computed once.
        completion_ids: N unpadded lists, empty ones among them.
        share_prompts: allowed by `can_share_prompts`; else every sequence is computed whole.
        device: where the backbone takes token ids.
        pad_token_id: fills up rows; never seen by a real token.

    Returns:
        (T, H), T tokens in all: those of the first completion, then of the second, and so on. The
        state before a token predicts it: the prompt's last one gives the first token.
    """
    run = _Batches(backbone, device, pad_token_id)
    if share_prompts and sharing_pays(prompt_ids):
        return run.shared(*distinct_prompts(prompt_ids), completion_ids)
    return run.whole(prompt_ids, completion_ids)


class _Batches:
    """Runs the backbone over batches of like length and puts the states in order."""

    def __init__(self, backbone: Any, device: torch.device, pad_token_id: int) -> None:
        self.backbone, self.device, self.pad_token_id = backbone, device, pad_token_id

    def whole(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> Any:
        # The last token is not fed: what the model says after it scores nothing.
        inputs = [[*p, *c[:-1]] for p, c in zip(prompts, completions, strict=True)]
        scored = [i for i, completion in enumerate(completions) if completion]
        pieces: list[Tensor] = []
        places: list[int] = []
        starts = [0, *itertools.accumulate(map(len, completions))]
        for rows in length_buckets([len(inputs[i]) for i in scored]):
            chosen = [scored[row] for row in rows]
            ids, attended = padded([inputs[i] for i in chosen], self.pad_token_id)
            hidden = self.backbone(
                input_ids=ids.to(self.device),
                attention_mask=self._mask(attended),
                use_cache=False,
            ).last_hidden_state
            counts = torch.tensor([len(completions[i]) for i in chosen]).unsqueeze(1)
            steps = torch.arange(ids.shape[1])
            lengths = attended.sum(1, keepdim=True)
            predicting = attended & (steps >= lengths - counts)
            pieces.append(hidden[predicting.to(hidden.device)])
            places += [starts[i] + t for i in chosen for t in range(len(completions[i]))]
        return _in_order(pieces, places, self.backbone, self.device)

    def shared(
        self,
        prompts: Sequence[Sequence[int]],
        groups: Sequence[int],
        completions: Sequence[Sequence[int]],
    ) -> Any:
        """`groups[i]` is the place in `prompts` of completion i's prompt."""
        ids, attended = padded(prompts, self.pad_token_id)
        cache = DynamicCache(config=self.backbone.config.get_text_config())
        hidden = self.backbone(
            input_ids=ids.to(self.device),
            attention_mask=self._mask(attended),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        lengths = attended.sum(1)
        starts = [0, *itertools.accumulate(map(len, completions))]
        first = [i for i, completion in enumerate(completions) if completion]
        rows = torch.tensor([groups[i] for i in first], dtype=torch.long)
        pieces = [hidden[rows.to(hidden.device), (lengths[rows] - 1).to(hidden.device)]]
        places = [starts[i] for i in first]
        longer = [i for i, completion in enumerate(completions) if len(completion) > 1]
        inputs = [completions[i][:-1] for i in longer]
        for bucket in length_buckets([len(row) for row in inputs]):
            ids, fed = padded([inputs[row] for row in bucket], self.pad_token_id)
            of = torch.tensor([groups[longer[row]] for row in bucket])
            positions = lengths[of].unsqueeze(1) + torch.arange(ids.shape[1])
            before = torch.cat([attended[of], fed], 1)
            states = self.backbone(
                input_ids=ids.to(self.device),
                attention_mask=self._mask(before),
                position_ids=positions.to(self.device),
                past_key_values=_behind(cache, of.to(self.device), self.backbone.config),
                use_cache=True,
            ).last_hidden_state
            pieces.append(states[fed.to(states.device)])
            for row in bucket:
                start = starts[longer[row]] + 1
                places += range(start, start + len(inputs[row]))
        return _in_order(pieces, places, self.backbone, self.device)

    def _mask(self, attended: Tensor) -> Tensor | None:
        # Without padding none is needed, and attention is faster without.
        return None if attended.all() else attended.long().to(self.device)


def _behind(cache: DynamicCache, rows: Tensor, config: Any) -> DynamicCache:
    """A cache whose row i holds what row `rows[i]` of `cache` holds."""
    copy = DynamicCache(config=config.get_text_config())
    for layer, source in zip(copy.layers, cache.layers, strict=True):
        layer.lazy_initialization(source.keys, source.values)
        layer.keys = source.keys.index_select(0, rows.to(source.keys.device))
        layer.values = source.values.index_select(0, rows.to(source.values.device))
    return copy


def length_buckets(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of `lengths`, longest first, in batches that waste little on padding."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    bucket: list[int] = []
    real = 0
    for i in order:
        size = lengths[bucket[0]] * (len(bucket) + 1) if bucket else 0
        if size > _SMALL_BATCH and real + lengths[i] < (1 - _PADDING) * size:
            yield bucket
            bucket, real = [], 0
        bucket.append(i)
        real += lengths[i]
    if bucket:
        yield bucket


def padded(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids (B, T) and which of them are real (B, T).

    Padding goes to the right, where causal attention, recurrent states and positions counted from
    0, of whatever kind the model has, never meet it.
    """
    lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
    real = torch.arange(int(lengths.max())) < lengths
    ids = torch.full(real.shape, pad_token_id)
    ids[real] = torch.tensor([token for row in rows for token in row], dtype=torch.long)
    return ids, real


def _in_order(
    pieces: Sequence[Tensor], places: Sequence[int], backbone: Any, device: torch.device
) -> Tensor:
    """The rows of `pieces`, row j put at `places[j]`."""
    if not places:
        weight = backbone.get_input_embeddings().weight
        return torch.empty(0, weight.shape[1], dtype=weight.dtype, device=device)
    order = torch.empty(len(places), dtype=torch.long)
    order[torch.tensor(places)] = torch.arange(len(places))
    return torch.cat(list(pieces)).index_select(0, order.to(pieces[0].device))
