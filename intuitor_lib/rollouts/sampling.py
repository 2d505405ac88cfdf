"""Sample completions, and read the policy's confidence from the logits drawn from.

This does the work of transformers' `generate` for groups of completions with less computation:
each distinct prompt is computed once, completions that have ended leave the batch, keys and values
grow in place, a GPU replays a recorded step, and each token comes with its self-certainty.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor
from transformers.cache_utils import DynamicCache

from ..certainty.completions import end_tokens, scoring
from ..certainty.forward import distinct_prompts, keeps_all_positions, padded
from ..certainty.head import backbone_and_head, causal_model, head_fault
from ..policy.linear import fixed_weights
from ..recipe import InputError
from .cache import GrowingLayer, cache_bytes
from .drawing import draw, make_warpers
from .recorded import RecordedStep, can_record

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LOGITS_BYTES = 24  # of memory for each logit of a step: in fp32, copied, and sorted for top-p
_COMPACT = 7 / 8  # ended rows are dropped when at most this share of the batch is unfinished
_COMPACT_RECORDED = 1 / 2  # the same where the step has to be recorded anew for it


class Completion(NamedTuple):
    """A sampled completion: its token ids up to and with its end token, and values of each token.

    `self_certainty` (nats) is eq. 4's term, from the raw logits at temperature 1; `log_probs`
    (nats) belong to the distribution drawn from.
    """

    ids: list[int]
    self_certainty: Tensor
    log_probs: Tensor

    @property
    def mean_certainty(self) -> float | None:
        """Mean self-certainty (nats) over the tokens; None for an empty completion."""
        return self.self_certainty.mean().item() if self.ids else None


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
    batch_size: int | None = None,
    self_certainty: bool = True,
    stop: Callable[[Tensor, Any], Tensor] | None = None,
) -> list[Completion]:
    """One completion for each prompt, in their order; equal prompts are computed once.

    The same distribution as `model.generate`; at temperature 0 the same tokens, up to rounding in
    a batch of another shape. Draws from torch's global random state. On a GPU the host waits once
    in 8 tokens, for prompts and completions of a batch, and to record a step; rows that have ended
    stay until then.

    Args:
        model: a causal language model for which `reason_against` returns None.
        prompt_ids: N unpadded, non-empty lists of token ids.
        max_new_tokens: limit of a completion.
        temperature: divides the logits; 0 takes the most likely token.
        top_k: draw from this many of the most likely tokens; 0 draws from all.
        top_p: draw from the most likely tokens with this probability in total.
        eos_token_id: tokens that end a completion; the model's by default.
        batch_size: completions sampled at a time; all by default.
        self_certainty: compute it; else it is NaN.
        stop: a `transformers.StoppingCriteria`: `stop(ids, None)` returns which rows (B,) of the
            completions so far (B, T) have ended.

    Raises:
        InputError: the model's logits are NaN.
    """
    base, backbone, head = backbone_and_head(model)
    warpers = make_warpers(top_k, top_p)
    end_ids = sorted(end_tokens(base, eos_token_id=eos_token_id))
    ends = torch.tensor(end_ids, device=backbone.get_input_embeddings().weight.device)
    # Equal prompts side by side, so that a batch computes few of them.
    order = sorted(range(len(prompt_ids)), key=lambda i: (len(prompt_ids[i]), tuple(prompt_ids[i])))
    size = batch_size or max(1, len(order))
    completions: dict[int, Completion] = {}

    rows = min(size, len(prompt_ids))
    longest = max(map(len, prompt_ids), default=0) + max_new_tokens
    reserve = cache_bytes(backbone, rows, longest) + _LOGITS_BYTES * rows * head.weight.shape[0]
    with scoring(model), fixed_weights(model, reserve=reserve):
        for batch in (order[i : i + size] for i in range(0, len(order), size)):
            rollout = _Batch(backbone, [prompt_ids[i] for i in batch], max_new_tokens)
            hidden = rollout.prefill()
            for step in range(max_new_tokens):
                drawn = draw(
                    head.logits(hidden),
                    temperature=temperature,
                    warpers=warpers,
                    self_certainty=self_certainty,
                )
                if not rollout.add(*drawn, ends, stop) or step == max_new_tokens - 1:
                    break
                hidden = rollout.step()
            completions |= dict(zip(batch, rollout.completions(), strict=True))
    made = [completions[i] for i in range(len(order))]
    require_numbers(model, made)
    return made


def require_numbers(model: Any, completions: Sequence[Completion]) -> None:
    """Refuse completions drawn from NaN, which are the first tokens of the vocabulary.

    Raises:
        InputError: a log-probability is NaN.
    """
    broken = sum(bool(one.log_probs.isnan().any()) for one in completions)
    if broken:
        base = causal_model(model)
        overflow = ", or too large for float16: take dtype=float32"
        raise InputError(
            f"the logits of {base.name_or_path or type(base).__name__} are NaN in {broken} of "
            f"{len(completions)} completions: its weights are damaged, load them anew"
            f"{overflow if base.dtype == torch.float16 else ''}"
        )


def _look_every(device: torch.device) -> int:
    """Tokens between two looks at which rows have ended; for a look, the host waits for a GPU."""
    return 1 if device.type == "cpu" else 8


class _Batch:
    """Unfinished completions: their tokens, and the keys and values of earlier positions."""

    def __init__(
        self, backbone: Any, prompt_ids: Sequence[Sequence[int]], max_new_tokens: int
    ) -> None:
        self.backbone = backbone
        self.prompts, groups = distinct_prompts(prompt_ids)
        self.groups = torch.tensor(groups)
        self.device = backbone.get_input_embeddings().weight.device
        self.cache = DynamicCache(config=backbone.config.get_text_config())
        self.cache.layers = [GrowingLayer() for _ in self.cache.layers]
        self.look_every = _look_every(self.device)
        # Of all completions; `lengths` cuts off the tokens that an ended one still gets.
        shape, device = (len(prompt_ids), max_new_tokens), self.device
        self.tokens = torch.zeros(shape, dtype=torch.long, device=device)
        self.values = torch.zeros(2, *shape, device=device)
        self.lengths = torch.zeros(len(prompt_ids), dtype=torch.long, device=device)
        self.made = 0
        self.recorded: RecordedStep | None = None
        # Of the rows still in the batch: their completion, and whether it is unfinished.
        self.rows = torch.arange(len(prompt_ids), device=device)
        self.going = torch.ones(len(prompt_ids), dtype=torch.bool, device=device)

    def prefill(self) -> Tensor:
        """Feed the prompts; return the hidden states (B, H) that predict the first tokens."""
        ids, real = padded(self.prompts)
        hidden = self.backbone(
            input_ids=ids.to(self.device),
            attention_mask=None if real.all() else real.long().to(self.device),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        lengths = real.sum(1)
        self._keep_rows(self.groups.to(self.device))
        self.mask = None if real.all() else real[self.groups].to(self.device)
        for layer in self.cache.layers:
            # transformers then takes the mask as it is, instead of waiting to see if it has a use.
            layer.is_compileable = self.mask is not None and self.look_every > 1
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
        """Add the next token (B,) of every row in the batch; whether to go on with it."""
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
        return self.made % self.look_every != 0 or self._drop_ended()

    def _drop_ended(self) -> bool:
        """Drop the rows that have ended, where there are enough of them; whether any is left."""
        keep = self.going.nonzero().squeeze(-1)
        share = _COMPACT if self.recorded is None else _COMPACT_RECORDED
        if 0 < len(keep) <= share * len(self.going):
            self.rows, self.going = self.rows[keep], self.going[keep]
            if self.recorded is not None:
                self.recorded.keep(keep)
                return True
            self._keep_rows(keep)
            self.positions = self.positions[keep]
            self.mask = None if self.mask is None else self.mask[keep]
        return len(keep) > 0

    def step(self) -> Tensor:
        """Feed the last tokens; return the hidden states (B, H) that predict the next ones."""
        last = self.tokens[self.rows, self.made - 1]
        if self.made == 1 and can_record(self.backbone):
            most = self.cache.layers[0].keys.shape[-2] + self.tokens.shape[1]
            self.recorded = RecordedStep(self.backbone, self.cache, self.mask, self.positions, most)
        if self.recorded is not None:
            return self.recorded(last)
        if self.mask is not None:
            new = torch.ones(len(self.rows), 1, dtype=torch.bool, device=self.device)
            self.mask = torch.cat([self.mask, new], 1)
        hidden = self.backbone(
            input_ids=last.unsqueeze(1),
            attention_mask=None if self.mask is None else self.mask.long(),
            position_ids=self.positions.unsqueeze(1),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self.positions = self.positions + 1
        return hidden[:, -1]

    def completions(self) -> list[Completion]:
        """All completions, cut to their lengths."""
        tokens, values = self.tokens.tolist(), self.values.cpu()
        return [
            Completion(tokens[i][:n], values[0, i, :n].clone(), values[1, i, :n].clone())
            for i, n in enumerate(self.lengths.tolist())
        ]

    def _keep_rows(self, rows: Tensor) -> None:
        for layer in self.cache.layers:
            layer.batch_select_indices(rows)


def halve_until_it_fits(sample: Callable[[int], T], batch_size: int) -> T:
    """`sample(batch_size)`, tried again with half the size each time that memory runs out.

    Every attempt starts from the same random state. A smaller batch draws other random numbers for
    a completion than a larger one, so these completions differ from those of the same request with
    enough memory: the size is halved only where sampling would fail otherwise.
    """
    state = torch.get_rng_state()
    gpu_state = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    while True:
        try:
            return sample(batch_size)
        except RuntimeError as error:
            if batch_size <= 1 or not should_reduce_batch_size(error):
                raise
        # Here the error, which holds the tensors of the failed attempt, is gone.
        clear_device_cache(garbage_collection=True)
        torch.set_rng_state(state)
        if gpu_state is not None:
            torch.cuda.set_rng_state(gpu_state)
        batch_size //= 2
        logger.warning("memory ran out: sampling again with batch_size=%d", batch_size)
