"""Evaluate a policy: generate, grade, score its confidence.

`evaluate` runs a benchmark and keeps every completion in the run store; `measure` makes the rows
of a notebook's before and after on a recipe's held-out problems.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import transformers

from ..certainty.completions import (
    completion_log_probs,
    end_tokens,
    scoring,
    through_end,
    token_self_certainty,
)
from ..policy.linear import speed_up_linears
from ..policy.loading import Policy
from ..report.progress import track
from .drawing import own_random_state
from .sampling import Completion, reason_against, sample_completions

__all__ = ["generate"]

NO_COMPLETION = Completion([], torch.empty(0), torch.empty(0))


def generate(
    policy: Policy,
    prompt_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int = 0,
    batch_size: int = 128,
    stop: Sequence[str] = (),
    certainty: bool = True,
    label: str | None = "generate",
) -> list[Completion]:
    """Completions, each up to and with its end token, in the order of the prompts.

    With the self-certainty and the log-probability of each token; under `certainty=False` only
    where they cost nothing. Temperature 0 is greedy; else the whole distribution is sampled (no
    top-k, no top-p), from a random state of its own: the caller's is left as it was. A completion
    that says one of `stop` ends there. A bar shows the batches under `label`.
    """
    order = sorted(range(len(prompt_ids)), key=lambda i: len(prompt_ids[i]))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    completions: list[Completion] = [NO_COMPLETION] * len(prompt_ids)
    sampled = reason_against(policy.model) is None
    if sampled:
        speed_up_linears(policy.model)
    with own_random_state(policy.model.device, seed):
        for batch in track(batches, total=len(batches), label=label) if label else batches:
            arguments = ([prompt_ids[i] for i in batch], max_new_tokens, temperature, stop)
            if sampled:
                made = _sample(policy, *arguments)
            else:
                made = _generate(policy, *arguments, certainty)
            for i, completion in zip(batch, made, strict=True):
                completions[i] = completion
    return completions


def _sample(
    policy: Policy,
    prompt_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    stop: Sequence[str],
) -> list[Completion]:
    criterion = transformers.StopStringCriteria(policy.tokenizer, list(stop)) if stop else None
    return sample_completions(
        policy.model,
        prompt_ids,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        pad_token_id=policy.tokenizer.pad_token_id,
        stop=criterion,
    )


def _generate(
    policy: Policy,
    prompt_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    stop: Sequence[str],
    certainty: bool,
) -> list[Completion]:
    """By transformers, for models that `sample_completions` cannot serve."""
    model, tokenizer = policy
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature
        else {"do_sample": False}
    )
    ends = end_tokens(model)
    config = transformers.GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=sorted(ends),
        disable_compile=True,
        **({"stop_strings": list(stop)} if stop else {}),
        **sampling,
    )
    padded = tokenizer.pad(
        {"input_ids": [list(ids) for ids in prompt_ids]}, padding_side="left", return_tensors="pt"
    ).to(model.device)
    with scoring(model):
        # transformers needs the tokenizer to find stop texts in tokens.
        output = model.generate(
            **padded, generation_config=config, **({"tokenizer": tokenizer} if stop else {})
        )
    completions = []
    for ids in output[:, padded["input_ids"].shape[1] :].tolist():
        completion = through_end(ids, ends)
        while stop and completion[-1:] == [tokenizer.pad_token_id]:
            completion.pop()  # what fills the row after a stop text
        completions.append(completion)
    if not certainty:
        return [NO_COMPLETION._replace(ids=ids) for ids in completions]
    arguments = (model, prompt_ids, completions)
    return [
        Completion(*parts)
        for parts in zip(
            completions,
            token_self_certainty(*arguments),
            completion_log_probs(*arguments, temperature=temperature or 1.0),
            strict=True,
        )
    ]
