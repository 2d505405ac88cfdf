"""Rewards that measure the policy's confidence: self-certainty and negative entropy.

They have TRL's signature and return one float per completion, None for an empty one. Without
`IntuitorTrainer`, TRL passes neither logits nor prompt ids: the prompts are rendered again with
the chat template and the completions scored by a forward pass, at temperature 1.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import peft
from torch import Tensor, nn

from ...certainty import token_entropy, token_self_certainty
from ...certainty.completions import Ids
from ...policy.adapters import START_ADAPTER, adapter_is_fresh, reference_policy
from .answers import Texts, gathered_groups

SAMPLED_SELF_CERTAINTY = "sampled_self_certainty"
"""The column in which `IntuitorTrainer` passes the self-certainty read while sampling."""


@dataclass(eq=False, repr=False)
class _ForwardReward:
    """A reward that needs forward passes of the model being trained."""

    model: nn.Module
    tokenizer: Any
    _: KW_ONLY
    batch_size: int = 16
    chat_template_kwargs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise ValueError(
                f"model={self.model!r} is not a model instance: load it first and give the same "
                f"instance to the trainer and to {type(self).__name__}, since the reward must see "
                "the weights being trained"
            )
        _refuse_sharded(self.model)

    def __call__(
        self, prompts: Texts, completions: Texts, completion_ids: Ids, **kwargs: Any
    ) -> list[float | None]:
        """One value per completion (nats); None for an empty one."""
        values = self._token_values(self._prompt_ids(prompts), completion_ids)
        return [value.mean().item() if len(value) else None for value in values]

    def _token_values(self, prompt_ids: Ids, completion_ids: Ids) -> list[Tensor]:
        """The values of every completion's tokens, whose mean is its reward."""
        raise NotImplementedError

    def _prompt_ids(self, prompts: Texts) -> list[list[int]]:
        """The prompts as the trainer renders them."""
        _refuse_sharded(self.model)
        if isinstance(prompts[0], str):
            return self.tokenizer(list(prompts))["input_ids"]
        conversations: Any = prompts
        encoded = self.tokenizer.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            return_dict=True,
            **self.chat_template_kwargs or {},
        )
        return [list(ids) for ids in encoded["input_ids"]]


@dataclass(eq=False, repr=False)
class SelfCertaintyReward(_ForwardReward):
    """Mean self-certainty (nats) of each completion under the policy: INTUITOR's reward (eq. 4).

    Works in an unmodified `trl.GRPOTrainer` or `RLOOTrainer` that trains the same model instance:

        reward = SelfCertaintyReward(model, tokenizer)
        GRPOTrainer(model, reward_funcs=reward, processing_class=tokenizer, ...)

    In `IntuitorTrainer` it costs no forward pass: self-certainty comes from the logits sampled
    from.

    Args:
        model: the model instance given to the trainer.
        tokenizer: its tokenizer.
        annotator: "online" scores with the current policy, "offline" with the policy as it is
            now: the adapter off or, if it is trained already, the frozen copy of it that
            `load_policy` keeps. Another model is copied whole.
        certainty_from: "sampling" takes the values of the rollouts, "forward" never does, "auto"
            does where the annotator is online and the rollouts have values.
        batch_size: completions per forward pass.
        chat_template_kwargs: as in the trainer's arguments.

    Raises:
        ValueError: a model given by name, one whose weights are sharded over processes, or
            certainty_from="sampling" for an offline annotator.
    """

    __name__ = "self_certainty"

    _: KW_ONLY
    annotator: str = "online"
    certainty_from: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.annotator not in ("online", "offline"):
            raise ValueError(f"annotator={self.annotator!r}: choose 'online' or 'offline'")
        if self.certainty_from not in ("auto", "sampling", "forward"):
            raise ValueError(
                f"certainty_from={self.certainty_from!r}: choose 'auto', 'sampling' or 'forward'"
            )
        if self.certainty_from == "sampling" and self.annotator == "offline":
            raise ValueError(
                "certainty_from='sampling' with annotator='offline': the logits drawn from are the "
                "current policy's; take 'forward' or 'auto'"
            )
        # The reference of a policy of `load_policy` is its adapter's copy, or the adapter off.
        held = isinstance(self.model, peft.PeftModel) and (
            START_ADAPTER in self.model.peft_config or adapter_is_fresh(self.model)
        )
        copied = self.annotator == "offline" and not held
        self._frozen = copy.deepcopy(self.model).requires_grad_(False) if copied else None

    @property
    def takes_sampled(self) -> bool:
        """Whether self-certainty read while sampling is used where there is any."""
        return self.certainty_from != "forward" and self.annotator == "online"

    def __call__(
        self,
        prompts: Texts,
        completions: Texts,
        completion_ids: Ids,
        log_metric: Callable[[str, float], None] | None = None,
        sampled_self_certainty: Sequence[float | None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        """Mean self-certainty of each completion (nats); None for an empty one.

        Raises:
            ValueError: certainty_from="sampling" and the rollouts have no values.
        """
        if self.certainty_from == "sampling" and sampled_self_certainty is None:
            raise ValueError(
                "certainty_from='sampling', but these rollouts kept no logits: sample with "
                "IntuitorTrainer(rollout='grouped'), or take 'forward' or 'auto'"
            )
        if self.takes_sampled and sampled_self_certainty is not None:
            scores = [None if x is None or math.isnan(x) else x for x in sampled_self_certainty]
        else:
            scores = super().__call__(prompts, completions, completion_ids)
        if log_metric is not None:
            log_metric("self_certainty/group_std", _mean_group_std(prompts, scores))
        return scores

    def _token_values(self, prompt_ids: Ids, completion_ids: Ids) -> list[Tensor]:
        model, size = self._frozen or self.model, self.batch_size
        offline_adapter = self.annotator == "offline" and self._frozen is None
        with reference_policy(model) if offline_adapter else contextlib.nullcontext():
            return token_self_certainty(model, prompt_ids, completion_ids, batch_size=size)


class LateSelfCertaintyReward(_ForwardReward):
    """Self-certainty read one position late, as the paper's public code on open-r1 does.

    The distribution that predicts the first token is left out, and the one after the last token
    counts: a reward to compare with eq. 4, not to use. By a forward pass at temperature 1, in an
    unmodified `trl.GRPOTrainer`, with arguments and errors as `SelfCertaintyReward`.
    """

    __name__ = "late_self_certainty"

    def _token_values(self, prompt_ids: Ids, completion_ids: Ids) -> list[Tensor]:
        # With one more token of any kind, the last distribution is that after the completion.
        longer = [[*ids, ids[-1]] if ids else [] for ids in completion_ids]
        values = token_self_certainty(
            self.model, prompt_ids, longer, batch_size=self.batch_size, eos_token_id=[]
        )
        return [value[1:] for value in values]


class NegativeEntropyReward(_ForwardReward):
    """Minus the mean token entropy (nats) of each completion: entropy minimization, EM (Figure 12).

    Under the current policy at temperature 1, by a forward pass. Works in an unmodified
    `trl.GRPOTrainer`, with arguments and errors as `SelfCertaintyReward`.
    """

    __name__ = "negative_entropy"

    def _token_values(self, prompt_ids: Ids, completion_ids: Ids) -> list[Tensor]:
        values = token_entropy(self.model, prompt_ids, completion_ids, batch_size=self.batch_size)
        return [-value for value in values]


def _mean_group_std(prompts: Sequence[Any], scores: Sequence[float | None]) -> float:
    """Standard deviation (n - 1, as in TRL) within each group of all processes, averaged."""
    values = [np.array(group, float) for group in gathered_groups(prompts, scores)]
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
