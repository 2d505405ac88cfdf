"""Reward functions with TRL's signature: `reward(prompts, completions, completion_ids, ...)`.

Each returns one float per completion, or None for a completion it cannot judge.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import peft
from torch import nn

from ...certainty.completions import score_completions, token_entropy
from ...policy.adapters import adapter_is_fresh, add_start_adapter, reference_policy
from ...problems.prompts import prompt_token_ids
from .answers import Conversation

__all__ = ["SAMPLED_SELF_CERTAINTY", "NegativeEntropyReward", "SelfCertaintyReward"]

SAMPLED_SELF_CERTAINTY = "sampled_self_certainty"
"""Under this name `IntuitorTrainer` hands over what the rollouts read while sampling."""


class SelfCertaintyReward:
    """Mean self-certainty (nats) of each completion under the policy: INTUITOR's reward (eq. 4).

    Works in an unmodified `trl.GRPOTrainer` or `RLOOTrainer` that trains the same model instance:

        reward = SelfCertaintyReward(model, tokenizer)
        GRPOTrainer(model, reward_funcs=reward, processing_class=tokenizer, ...)

    `IntuitorTrainer` reads self-certainty from the logits it samples from, and the reward costs
    nothing. Elsewhere TRL hands over no logits and no prompt ids: the prompts are rendered again
    with the chat template and the completions scored by one more forward pass, at temperature 1.

    Args:
        model: the model instance given to the trainer.
        tokenizer: its tokenizer.
        annotator: "online" scores with the current policy, "offline" with the policy as it is
            now: the adapter off or, if it is trained already, a frozen copy of it. A model
            without adapters is copied whole.
        certainty_from: "sampling" takes the values of the rollouts, "forward" never does, "auto"
            does where the annotator is online and there are any.
        batch_size: completions per forward pass.
        chat_template_kwargs: as in the trainer's arguments.

    Raises:
        ValueError: a model given by name, one whose weights are sharded over processes, or
            certainty_from="sampling" for an offline annotator.
    """

    __name__ = "self_certainty"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        annotator: str = "online",
        certainty_from: str = "auto",
        batch_size: int = 16,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        _check_model(model, type(self).__name__)
        if annotator not in ("online", "offline"):
            raise ValueError(f"annotator={annotator!r}: choose 'online' or 'offline'")
        if certainty_from not in ("auto", "sampling", "forward"):
            raise ValueError(
                f"certainty_from={certainty_from!r}: choose 'auto', 'sampling' or 'forward'"
            )
        if certainty_from == "sampling" and annotator == "offline":
            raise ValueError(
                "certainty_from='sampling' with annotator='offline': the logits drawn from are the "
                "current policy's; take 'forward' or 'auto'"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.annotator = annotator
        self.certainty_from = certainty_from
        self.batch_size = batch_size
        self.chat_template_kwargs = chat_template_kwargs or {}
        self._frozen: nn.Module | None = None
        if annotator == "offline" and not isinstance(model, peft.PeftModel):
            self._frozen = copy.deepcopy(model).requires_grad_(False)
        elif annotator == "offline" and not adapter_is_fresh(model):
            add_start_adapter(model)

    @property
    def takes_sampled(self) -> bool:
        """Whether values read while sampling are taken where there are any."""
        return self.certainty_from != "forward" and self.annotator == "online"

    def __call__(
        self,
        prompts: Sequence[str | Conversation],
        completions: Sequence[str | Conversation],
        completion_ids: Sequence[Sequence[int]],
        log_metric: Callable[[str, float], None] | None = None,
        sampled_self_certainty: Sequence[float | None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Mean self-certainty of each completion (nats); None for an empty one.

        Raises:
            ValueError: certainty_from="sampling" and the rollouts brought none.
        """
        if self.certainty_from == "sampling" and sampled_self_certainty is None:
            raise ValueError(
                "certainty_from='sampling', but these rollouts kept no logits: sample with "
                "IntuitorTrainer(rollout='grouped'), or take 'forward' or 'auto'"
            )
        if self.takes_sampled and sampled_self_certainty is not None:
            scores = [math.nan if x is None else x for x in sampled_self_certainty]
        else:
            scores = self._score(prompts, completion_ids)
        if log_metric is not None:
            log_metric("self_certainty/group_std", _mean_group_std(prompts, scores))
        return [None if score != score else score for score in scores]

    def _score(
        self, prompts: Sequence[str | Conversation], completion_ids: Sequence[Sequence[int]]
    ) -> list[float]:
        """One forward pass over prompts and completions; NaN for an empty one."""
        _refuse_sharded(self.model)
        prompt_ids = _prompt_ids(prompts, self.tokenizer, self.chat_template_kwargs)
        model = self._frozen or self.model
        offline_adapter = self.annotator == "offline" and self._frozen is None
        with reference_policy(model) if offline_adapter else contextlib.nullcontext():
            return score_completions(
                model, prompt_ids, completion_ids, batch_size=self.batch_size
            ).tolist()


class NegativeEntropyReward:
    """Minus the mean token entropy (nats) of each completion: entropy minimization, EM (Figure 12).

    Of the current policy at temperature 1, by a forward pass. Works in an unmodified
    `trl.GRPOTrainer` as `SelfCertaintyReward` does.

    Args:
        model: the model instance given to the trainer.
        tokenizer: its tokenizer.
        batch_size: completions per forward pass.
        chat_template_kwargs: as in the trainer's arguments.

    Raises:
        ValueError: a model given by name, or one whose weights are sharded over processes.
    """

    __name__ = "negative_entropy"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        batch_size: int = 16,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        _check_model(model, type(self).__name__)
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.chat_template_kwargs = chat_template_kwargs or {}

    def __call__(
        self,
        prompts: Sequence[str | Conversation],
        completions: Sequence[str | Conversation],
        completion_ids: Sequence[Sequence[int]],
        **kwargs: Any,
    ) -> list[float | None]:
        """One value per completion (nats, at most 0); None for an empty one."""
        _refuse_sharded(self.model)
        prompt_ids = _prompt_ids(prompts, self.tokenizer, self.chat_template_kwargs)
        values = token_entropy(self.model, prompt_ids, completion_ids, batch_size=self.batch_size)
        return [-value.mean().item() if len(value) else None for value in values]


def _check_model(model: Any, reward: str) -> None:
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model={model!r} is not a model instance: load it first and give the same instance "
            f"to the trainer and to {reward}, since the reward must see the weights being trained"
        )
    _refuse_sharded(model)


def _prompt_ids(
    prompts: Sequence[str | Conversation], tokenizer: Any, template_kwargs: dict[str, Any]
) -> list[list[int]]:
    """The prompts as the trainer renders them."""
    if isinstance(prompts[0], str):
        return tokenizer(list(prompts))["input_ids"]
    conversations: Any = prompts
    return prompt_token_ids(tokenizer, conversations, **template_kwargs)


def _mean_group_std(prompts: Sequence[Any], scores: Sequence[float]) -> float:
    """Standard deviation (n - 1, as in TRL) within each run of equal prompts, averaged."""
    groups = groupby(zip(prompts, scores, strict=True), key=lambda pair: pair[0])
    values = [np.array([score for _, score in group]) for _, group in groups]
    stds = [np.nanstd(v, ddof=1) for v in values if np.isfinite(v).sum() > 1]
    return float(np.mean(stds)) if stds else float("nan")


def _refuse_sharded(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        sharded = (
            hasattr(parameter, "ds_id")  # DeepSpeed ZeRO-3
            or type(parameter).__name__ == "DTensor"  # FSDP2
            or "FlatParameter" in type(parameter).__name__  # FSDP1
        )
        if sharded:
            raise ValueError(
                f"parameter {name!r} is sharded over processes (DeepSpeed ZeRO-3 or FSDP): the "
                "reward's forward pass needs whole weights. Train with DDP, or with LoRA on a "
                "4-bit model, which fits one device"
            )
