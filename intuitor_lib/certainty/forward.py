"""Hidden states of completions, with each prompt computed once for all its completions.

The G completions of a group share their prompt. A forward pass over whole sequences computes it G
times. Here it is computed once, the completions behind it get its keys and values, and sequences
of like length share a batch. Gradients flow through both and are those of the plain pass up to
rounding.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from .head import causal_model

Ids = Sequence[Sequence[int]]

# Rows of one batch waste at most this share of it on padding, unless the batch is small anyway.
_PADDING = 0.2
_SMALL_BATCH = 256  # tokens below which a matrix product no longer gets faster by the row


def keeps_all_positions(model: Any) -> bool:
    """Whether every layer attends to all earlier positions and keeps their keys and values.

    False for sliding windows, recurrent states, encoder-decoders, prompt-learning adapters, and
    models that count columns instead of taking positions (MPT), since padding stands between a
    prompt and its completions.
    """
    base = causal_model(model)
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False
    takes_cache = getattr(base, "_supports_default_dynamic_cache", lambda: True)()
    if base.config.is_encoder_decoder or not takes_cache:
        return False
    backbone = getattr(base, "base_model", base)
    takes = inspect.signature(backbone.forward).parameters
    if not {"past_key_values", "position_ids"} <= takes.keys():
        return False
    if "local" in (getattr(base.config, "attention_layers", None) or ()):
        return False  # GPT-Neo's windows count columns, padding too
    layers = DynamicCache(config=base.config.get_text_config()).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def can_share_prompts(model: Any) -> bool:
    """Whether completions can share the keys and values of their prompt now.

    As `keeps_all_positions`, but False under gradient checkpointing, which keeps no cache.
    """
    base = causal_model(model)
    return keeps_all_positions(model) and not (base.training and base.is_activation_checkpointing)


def sharing_pays(prompt_ids: Ids) -> bool:
    """Whether a prompt has two completions or more, on average."""
    return 2 * len(set(map(tuple, prompt_ids))) <= len(prompt_ids)


def distinct_prompts(prompt_ids: Ids) -> tuple[list[list[int]], list[int]]:
    """The distinct prompts in order of appearance, and the place of each given prompt in them."""
    places = {prompt: i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompt_ids)))}
    return [list(prompt) for prompt in places], [places[tuple(prompt)] for prompt in prompt_ids]


def completion_states(
    backbone: Any, prompt_ids: Ids, completion_ids: Ids, *, share_prompts: bool
) -> Tensor:
    """Last hidden states (T, H) that predict the T tokens of the completions, one after another.

    The state before a token predicts it: the prompt's last state predicts the first token. Prompts
    and completions are N unpadded lists of token ids each; completions may be empty. With
    `share_prompts` (`can_share_prompts`) equal prompts are computed once.
    """
    run = _Batches(backbone, completion_ids)
    if share_prompts and sharing_pays(prompt_ids):
        run.shared(*distinct_prompts(prompt_ids))
    else:
        run.whole(prompt_ids)
    parts = [part for own in run.states for part in own]
    return torch.cat(parts) if parts else run.embedding.new_empty(0, run.embedding.shape[1])


class _Batches:
    """Runs the backbone over batches of like length; `states` are those of each completion."""

    def __init__(self, backbone: Any, completions: Ids) -> None:
        self.backbone, self.completions = backbone, completions
        self.embedding = backbone.get_input_embeddings().weight  # token ids go to its device
        self.states: list[list[Tensor]] = [[] for _ in completions]

    def whole(self, prompts: Ids) -> None:
        """Compute every sequence from its first token."""
        # The last token is not fed: its state predicts nothing.
        inputs = [[*p, *c[:-1]] for p, c in zip(prompts, self.completions, strict=True)]
        scored = [i for i, completion in enumerate(self.completions) if completion]
        for rows in length_buckets([len(inputs[i]) for i in scored]):
            chosen = [scored[row] for row in rows]
            ids, attended = padded([inputs[i] for i in chosen])
            hidden = self._forward(ids, attended, use_cache=False)
            counts = [len(self.completions[i]) for i in chosen]
            first = attended.sum(1) - torch.tensor(counts)
            predicting = attended & (torch.arange(ids.shape[1]) >= first.unsqueeze(1))
            self._add(chosen, hidden[predicting.to(hidden.device)], counts)

    def shared(self, prompts: Ids, groups: Sequence[int]) -> None:
        """Compute each prompt once; `groups[i]` is the place of completion i's prompt in them."""
        ids, attended = padded(prompts)
        cache = DynamicCache(config=self.backbone.config.get_text_config())
        hidden = self._forward(ids, attended, past_key_values=cache, use_cache=True)
        device = self.embedding.device
        lengths = attended.sum(1)
        first = [i for i, completion in enumerate(self.completions) if completion]
        rows = torch.tensor([groups[i] for i in first], dtype=torch.long)
        last = hidden[rows.to(hidden.device), (lengths[rows] - 1).to(hidden.device)]
        self._add(first, last, [1] * len(first))
        longer = [i for i, completion in enumerate(self.completions) if len(completion) > 1]
        for bucket in length_buckets([len(self.completions[i]) - 1 for i in longer]):
            chosen = [longer[row] for row in bucket]
            ids, fed = padded([self.completions[i][:-1] for i in chosen])
            of = torch.tensor([groups[i] for i in chosen])
            positions = lengths[of].unsqueeze(1) + torch.arange(ids.shape[1])
            hidden = self._forward(
                ids,
                torch.cat([attended[of], fed], 1),
                position_ids=positions.to(device),
                past_key_values=_behind(cache, of.to(device), self.backbone.config),
                use_cache=True,
            )
            counts = [len(self.completions[i]) - 1 for i in chosen]
            self._add(chosen, hidden[fed.to(hidden.device)], counts)

    def _add(self, chosen: Sequence[int], states: Tensor, counts: list[int]) -> None:
        for i, part in zip(chosen, states.split(counts), strict=True):
            self.states[i].append(part)

    def _forward(self, ids: Tensor, attended: Tensor, **inputs: Any) -> Tensor:
        # Attention is faster without a mask, so none is given where nothing is padded.
        device = self.embedding.device
        mask = None if attended.all() else attended.long().to(device)
        output = self.backbone(input_ids=ids.to(device), attention_mask=mask, **inputs)
        return output.last_hidden_state


def _behind(cache: DynamicCache, rows: Tensor, config: Any) -> DynamicCache:
    """A copy of `cache` whose row i is row `rows[i]` of it."""
    copy = DynamicCache(config=config.get_text_config())
    for layer, source in zip(copy.layers, cache.layers, strict=True):
        layer.lazy_initialization(source.keys, source.values)
        layer.keys = source.keys.index_select(0, rows.to(source.keys.device))
        layer.values = source.values.index_select(0, rows.to(source.values.device))
    return copy


def length_buckets(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of `lengths`, longest first, in batches with little padding."""
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


def padded(rows: Ids) -> tuple[Tensor, Tensor]:
    """Token ids (B, T), filled up with 0, and which of them are real (B, T).

    No real token attends to padding. It is on the right, where neither causal attention nor
    recurrent states nor positions counted from 0 are affected by it.
    """
    lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
    real = torch.arange(int(lengths.max())) < lengths
    ids = torch.zeros(real.shape, dtype=torch.long)
    ids[real] = torch.tensor([token for row in rows for token in row], dtype=torch.long)
    return ids, real
