"""Sample completions, and read the policy's confidence from the very logits drawn from.

What `generate` of transformers does for a group of completions to one prompt, with less work: each
distinct prompt is computed once, completions that have ended leave the batch, keys and values grow
in place, and what is drawn from the logits comes with its self-certainty.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from .certainty import end_tokens, scoring
from .forward import distinct_prompts, keeps_all_positions, padded
from .head import backbone_and_head, head_fault, head_logits, head_settings
from .linear import merged_adapters

__all__ = [
    "Completion",
    "draw",
    "make_warpers",
    "own_random_state",
    "reason_against",
    "room_for",
    "sample_completions",
]

_COMPACT = 7 / 8  # ended rows leave when no more than this share of the batch goes on
_BLOCK = 128  # tokens of the vocabulary that are summed before one of them is chosen


class Completion(NamedTuple):
    """A sampled completion: its token ids through its end token, and two values of each token.

    `self_certainty` (nats) is eq. 4's term, from the raw logits at temperature 1; `log_probs`
    (nats) are those of the distribution drawn from.
    """

    ids: list[int]
    self_certainty: Tensor
    log_probs: Tensor


def reason_against(model: Any) -> str | None:
    """Why `sample_completions` cannot serve a model; None where it can."""
    fault = head_fault(model)
    if fault is None and not keeps_all_positions(model):
        return "its layers do not keep the keys and values of all positions, or take no positions"
    return fault


def sample_completions(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int = 0,
    batch_size: int | None = None,
    self_certainty: bool = True,
    stop: Callable[[Tensor, Any], Tensor] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> list[Completion]:
    """One completion for each prompt, in their order; equal prompts are computed once.

    The same distribution as `model.generate`; at temperature 0 the same tokens, up to the rounding
    that another shape of the batch brings. Draws from torch's global random state.

    Args:
        model: a causal language model that `reason_against` has nothing against.
        prompt_ids: N unpadded, non-empty lists of token ids.
        max_new_tokens: at which a completion is cut.
        temperature: divides the logits; 0 takes the most likely token.
        top_k: how many of the most likely tokens are drawn from; 0 is all.
        top_p: the least probability that the tokens drawn from hold together.
        eos_token_id: tokens that end a completion; the model's own by default.
        pad_token_id: fills up rows.
        batch_size: completions made at a time; all of them by default.
        self_certainty: read it; else it is NaN.
        stop: `stop(ids, None)` says which rows (B,) of the completions so far (B, T) have ended,
            as a `transformers.StoppingCriteria` does.
        on_batch: called with the number of completions done after each batch.
    """
    base, backbone, head = backbone_and_head(model)
    logit_scale, softcap = head_settings(model)
    warpers = make_warpers(top_k, top_p)
    ends = torch.tensor(sorted(end_tokens(base, eos_token_id)), device=head.weight.device)
    # Equal prompts side by side, so that a batch computes few of them.
    order = sorted(range(len(prompt_ids)), key=lambda i: (len(prompt_ids[i]), tuple(prompt_ids[i])))
    size = batch_size or max(1, len(order))
    completions: list[Completion | None] = [None] * len(order)

    def logits_of(hidden: Tensor) -> Tensor:
        hidden = hidden.to(head.weight.device, head.weight.dtype)
        return head_logits(hidden, head.weight, head.bias, logit_scale, softcap)

    with scoring(model), merged_adapters(model):
        for batch in (order[i : i + size] for i in range(0, len(order), size)):
            rollout = _Batch(backbone, [prompt_ids[i] for i in batch], max_new_tokens, pad_token_id)
            hidden = rollout.prefill()
            for step in range(max_new_tokens):
                drawn = draw(
                    logits_of(hidden),
                    temperature=temperature,
                    warpers=warpers,
                    self_certainty=self_certainty,
                )
                if not rollout.add(*drawn, ends, stop) or step == max_new_tokens - 1:
                    break
                hidden = rollout.step()
            for i, completion in zip(batch, rollout.completions(), strict=True):
                completions[i] = completion
            if on_batch is not None:
                on_batch(len(batch))
    return [completion for completion in completions if completion is not None]


@contextlib.contextmanager
def own_random_state(device: torch.device, seed: int) -> Iterator[None]:
    """Within it torch draws from `seed` on; afterwards the caller's random state is as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def make_warpers(top_k: int, top_p: float) -> LogitsProcessorList:
    """What cuts a distribution down before it is drawn from; nothing for 0 and 1."""
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
    """A token from each row of raw logits (B, V) in fp32: `(tokens, self_certainty, log_probs)`.

    Each (B,). Self-certainty (nats) is of the raw logits, NaN where it is not wanted; the
    log-probability is of the distribution drawn from, greedy at temperature 0. `logits` are
    overwritten.
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
    """A column of each row (B, V), drawn with probability proportional to its weight.

    By inversion: one uniform number for each row chooses a block of the vocabulary, then a token
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
    # Rounding at the edge of a block may point at a token that cannot be drawn.
    possible = chosen.gather(-1, within) > 0
    within = torch.where(possible, within, chosen.argmax(-1, keepdim=True))
    return (block * _BLOCK + within).squeeze(-1)


def _first_above(until: Tensor, target: Tensor) -> Tensor:
    """The first column of each row whose running sum exceeds the target (B, 1)."""
    return torch.searchsorted(until, target, right=True).clamp_(max=until.shape[-1] - 1)


class _Batch:
    """Completions in the making: their tokens, and the keys and values before them."""

    def __init__(
        self,
        backbone: Any,
        prompt_ids: Sequence[Sequence[int]],
        max_new_tokens: int,
        pad_token_id: int,
    ) -> None:
        self.backbone, self.pad_token_id = backbone, pad_token_id
        self.prompts, groups = distinct_prompts(prompt_ids)
        self.groups = torch.tensor(groups)
        self.device = backbone.get_input_embeddings().weight.device
        self.cache = DynamicCache(config=backbone.config.get_text_config())
        self.cache.layers = [_GrowingLayer() for _ in self.cache.layers]
        # All completions, by column: what an ended one is given later is cut off by its length.
        shape, device = (len(prompt_ids), max_new_tokens), self.device
        self.tokens = torch.full(shape, pad_token_id, device=device)
        self.values = torch.zeros(2, *shape, device=device)
        self.lengths = torch.zeros(len(prompt_ids), dtype=torch.long, device=device)
        self.made = 0
        # Of the rows still in the batch:
        self.rows = torch.arange(len(prompt_ids), device=device)
        self.going = torch.ones(len(prompt_ids), dtype=torch.bool, device=device)

    def prefill(self) -> Tensor:
        """Hidden states (B, H) that predict the first tokens."""
        ids, real = padded(self.prompts, self.pad_token_id)
        hidden = self.backbone(
            input_ids=ids.to(self.device),
            attention_mask=None if real.all() else real.long().to(self.device),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        lengths = real.sum(1)
        self._keep_rows(self.groups.to(self.device))
        self.mask = None if real.all() else real[self.groups].to(self.device)
        self.positions = lengths[self.groups].to(self.device)
        rows = self.groups.to(hidden.device)
        return hidden[rows, lengths.to(hidden.device)[rows] - 1]

    def add(
        self,
        tokens: Tensor,
        self_certainty: Tensor,
        log_probs: Tensor,
        ends: Tensor,
        stop: Callable[[Tensor, Any], Tensor] | None,
    ) -> bool:
        """Take the next token (B,) of every row in the batch; whether any row goes on."""
        tokens = tokens.to(self.device)
        self.tokens[self.rows, self.made] = tokens
        self.values[0, self.rows, self.made] = self_certainty.to(self.device)
        self.values[1, self.rows, self.made] = log_probs.to(self.device)
        self.lengths[self.rows] += self.going
        self.made += 1
        ended = torch.isin(tokens, ends)
        if stop is not None:
            ended |= stop(self.tokens[self.rows, : self.made], None).to(self.device)
        self.going &= ~ended
        left = int(self.going.sum())
        if 0 < left <= _COMPACT * len(self.going):
            keep = self.going.nonzero().squeeze(-1)
            self._keep_rows(keep)
            self.rows, self.going = self.rows[keep], self.going[keep]
            self.positions = self.positions[keep]
            self.mask = None if self.mask is None else self.mask[keep]
        return left > 0

    def step(self) -> Tensor:
        """Feed the last tokens; hidden states (B, H) that predict the next ones."""
        if self.mask is not None:
            new = torch.ones(len(self.rows), 1, dtype=torch.bool, device=self.device)
            self.mask = torch.cat([self.mask, new], 1)
        hidden = self.backbone(
            input_ids=self.tokens[self.rows, self.made - 1].unsqueeze(1),
            attention_mask=None if self.mask is None else self.mask.long(),
            position_ids=self.positions.unsqueeze(1),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self.positions = self.positions + 1
        return hidden[:, -1]

    def completions(self) -> list[Completion]:
        tokens, values = self.tokens.tolist(), self.values.cpu()
        return [
            Completion(tokens[i][:n], values[0, i, :n].clone(), values[1, i, :n].clone())
            for i, n in enumerate(self.lengths.tolist())
        ]

    def _keep_rows(self, rows: Tensor) -> None:
        for layer in self.cache.layers:
            layer.batch_select_indices(rows)


class _GrowingLayer(DynamicLayer):
    """Keys and values with room to grow, so that a step writes its own and copies no others."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.keys = self._room = key_states[..., :0, :]
        self.values = self._value_room = value_states[..., :0, :]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        if end > self._room.shape[-2]:
            capacity = room_for(start, end)
            self._room = _with_room(self.keys, key_states, capacity)
            self._value_room = _with_room(self.values, value_states, capacity)
        self._room[..., start:end, :] = key_states
        self._value_room[..., start:end, :] = value_states
        self.keys, self.values = self._room[..., :end, :], self._value_room[..., :end, :]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices.to(self.keys.device))
        self._room, self._value_room = self.keys, self.values  # grows at the next step


def room_for(held: int, needed: int) -> int:
    """Tokens to make room for when `needed` outgrow the room of the `held` ones."""
    return max(needed, held + held // 2, held + 64)


def _with_room(held: Tensor, like: Tensor, capacity: int) -> Tensor:
    room = like.new_empty(*like.shape[:-2], capacity, like.shape[-1])
    room[..., : held.shape[-2], :] = held
    return room
