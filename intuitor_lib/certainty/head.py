"""The LM head: from a model's last hidden states to logits, and to log-probabilities in chunks."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

CHUNK_LOGITS = 2**25
"""Logits held at a time: 128 MiB in fp32, 220 tokens of Qwen2.5's 151,936-word vocabulary."""

# Settings of model configurations that change the LM head's output.
_MULTIPLIERS = ("logit_scale", "lm_head_multiplier", "output_multiplier")
_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")
_UNSUPPORTED = ("logits_mup_width_multiplier", "output_logit_soft_cap", "unpadded_vocab_size")


class Head(NamedTuple):
    """An LM head: `softcap * tanh(z / softcap)` with `z = scale * (hidden @ weight.T + bias)`.

    `weight` is (V, H) and `bias` (V,); without a soft cap the logits are z.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    @property
    def trained(self) -> bool:
        """Whether a parameter of the head gets a gradient."""
        return any(part is not None and part.requires_grad for part in (self.weight, self.bias))

    @property
    def rows(self) -> int:
        """Hidden states, at least one, that have `CHUNK_LOGITS` logits."""
        return max(1, CHUNK_LOGITS // self.weight.shape[0])

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (n, V) in fp32 or float64 of hidden states (n, H).

        The product runs in the dtype of the weight, as in the model.
        """
        rows = hidden.to(self.weight.device, self.weight.dtype)
        logits = functional.linear(rows, self.weight, self.bias).to(accumulator(self.weight.dtype))
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def _refusal(model: nn.Module, reason: str) -> ValueError:
    return ValueError(
        f"{type(model).__name__} cannot be scored from its hidden states: {reason}. "
        "Pass its logits to self_certainty, or unwrap it, merge its adapter or dequantize its head."
    )


def causal_model(model: Any) -> Any:
    """The causal language model itself, inside PEFT or not."""
    return getattr(model, "get_base_model", lambda: model)()


def backbone_and_head(model: nn.Module) -> tuple[Any, Any, Head]:
    """The causal language model, inside PEFT or not, its transformer and its LM head.

    Scale and soft cap are read from its configuration: Cohere, Falcon-H1, HyperCLOVA X and Muse
    Glimmer multiply their logits, Granite and MiniCPM3 divide them, Gemma and others cap them.

    Raises `ValueError` for a model whose logits are not its backbone's last hidden state through
    one linear layer: an encoder-decoder, or a transformed, quantized, adapted or padded head.
    """
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise _refusal(model, "its adapter adds virtual tokens outside the backbone")
    base = causal_model(model)
    head = getattr(base, "get_output_embeddings", lambda: None)()
    backbone = getattr(base, "base_model", base)
    if not isinstance(head, nn.Linear) or not head.weight.is_floating_point():
        raise _refusal(base, f"its LM head is a {type(head).__name__}, not a floating-point Linear")
    others = [name for name, part in base.named_children() if part not in (backbone, head)]
    if others or backbone is base or base.config.is_encoder_decoder:
        raise _refusal(base, f"it is not one backbone under one LM head ({others} beside them)")
    config = base.config.get_text_config()
    for name in _UNSUPPORTED:
        if getattr(config, name, None) is not None:
            raise _refusal(base, f"its configuration sets {name}={getattr(config, name)}")
    scale = 1.0
    # transformers' MPT has a logit_scale in its configuration and leaves it unused.
    for name in _MULTIPLIERS if config.model_type != "mpt" else ():
        value = getattr(config, name, None)
        scale *= 1.0 if value is None else float(value)
    divisor = getattr(config, "logits_scaling", None)
    if divisor is not None:
        scale = scale * divisor if config.model_type.startswith("hyperclovax") else scale / divisor
    caps = [cap for name in _SOFTCAPS if (cap := getattr(config, name, None)) is not None]
    return base, backbone, Head(head.weight, head.bias, scale, float(caps[0]) if caps else None)


def head_fault(model: nn.Module) -> str | None:
    """Why `backbone_and_head` refuses a model; None where it does not."""
    try:
        backbone_and_head(model)
    except ValueError as error:
        return str(error)
    return None


def head_log_probs(
    hidden: Tensor, head: Head, token_ids: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N,) of `token_ids` (N,) and entropies (N,), both in nats and fp32.

    At most `CHUNK_LOGITS` logits exist at a time, and nothing of their size is kept for the
    backward pass: the gradient of a log-probability with respect to its hidden state (H,),
    (W[token] - sum_v p_v W[v]) / temperature, is computed with the probabilities in the forward
    pass. Entropies and the head get no gradient. `hidden` (N, H) are the states that predict the
    tokens.

    Raises `ValueError` for a trained head, which needs TRL's own function.
    """
    if head.trained:
        raise ValueError(
            "the LM head is trained, and head_log_probs gives it no gradient: freeze it, or use "
            "trl.kernels.ChunkedLogProbFunction"
        )
    log_probs, entropies = _HeadLogProbs.apply(hidden, head, token_ids, temperature)
    return log_probs, entropies


class _HeadLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Head, token_ids: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        needs_gradient, weight = ctx.needs_input_grad[0], head.weight
        rows = hidden.detach().to(weight.device, weight.dtype)
        token_ids = token_ids.to(weight.device)
        log_probs, entropies, directions = [], [], []
        for block, ids in zip(rows.split(head.rows), token_ids.split(head.rows), strict=True):
            logits = head.logits(block)  # [n, V]
            # The derivative of the soft cap, before the logits are overwritten.
            slope = None if head.softcap is None else 1 - (logits / head.softcap) ** 2
            picked = ids.unsqueeze(-1)
            probs = torch.softmax(logits.div_(temperature), -1)
            log_z = torch.logsumexp(logits, -1)
            log_probs.append(logits.gather(-1, picked).squeeze(-1) - log_z)
            entropies.append(log_z - torch.linalg.vecdot(probs, logits))
            if not needs_gradient:
                continue
            probs.neg_().scatter_add_(-1, picked, probs.new_ones(picked.shape))
            if slope is not None:
                probs.mul_(slope)
            factor = head.scale / temperature
            directions.append((probs.to(weight.dtype) @ weight).to(logits.dtype) * factor)
        if needs_gradient:
            ctx.save_for_backward(torch.cat(directions).to(hidden.device))
            ctx.dtype = hidden.dtype
        entropy = torch.cat(entropies) if entropies else rows.new_empty(0)
        ctx.mark_non_differentiable(entropy)
        return (torch.cat(log_probs) if log_probs else rows.new_empty(0)), entropy

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> Any:
        (directions,) = ctx.saved_tensors
        gradient = gradient.to(directions.device, directions.dtype)
        return (gradient.unsqueeze(-1) * directions).to(ctx.dtype), *[None] * 3


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums over logits of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32
