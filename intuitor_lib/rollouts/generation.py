"""Generate completions with any model, by `sample_completions` or by transformers."""

import functools
from collections.abc import Sequence

import torch
import transformers

from ..certainty import completion_log_probs, token_self_certainty
from ..certainty.completions import end_tokens, scoring, through_end
from ..certainty.head import causal_model, head_fault
from ..policy import Policy
from ..policy.linear import speed_up_linears
from ..recipe import InputError
from ..report import track
from .drawing import own_random_state
from .sampling import (
    Completion,
    halve_until_it_fits,
    reason_against,
    require_numbers,
    sample_completions,
)


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
    """One completion for each prompt, up to and with its end token, in the order of the prompts.

    Each token has its self-certainty and log-probability; with `certainty=False` only where these
    need no further forward pass. Temperature 0 is greedy; else the whole distribution is sampled
    (no top-k, no top-p), seeded by `seed` without changing the caller's random state. The texts
    `stop` end a completion, too. `label` is that of a progress bar, None for none. A batch that
    does not fit in memory is halved (`halve_until_it_fits`).

    Raises:
        InputError: self-certainty is asked for, and the model's head does not allow it; or the
            model's logits are NaN.
    """
    order = sorted(range(len(prompt_ids)), key=lambda i: len(prompt_ids[i]))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    completions: dict[int, Completion] = {}
    model, tokenizer = policy
    fault = head_fault(model) if certainty else None
    if fault is not None:
        raise InputError(f"{fault} Or leave it out: certainty=False, --no-certainty")
    sampled = reason_against(model) is None
    if sampled:
        speed_up_linears(model)
    criterion = transformers.StopStringCriteria(tokenizer, list(stop)) if stop else None
    ends = sorted(end_tokens(model, tokenizer))

    def make(prompts: Sequence[Sequence[int]], size: int) -> list[Completion]:
        if sampled:
            return sample_completions(
                model,
                prompts,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                eos_token_id=ends,
                batch_size=size,
                stop=criterion,
            )
        parts = [prompts[i : i + size] for i in range(0, len(prompts), size)]
        settings = (max_new_tokens, temperature, criterion, certainty)
        return [c for part in parts for c in _generate(policy, part, *settings)]

    with own_random_state(model.device, seed):
        for batch in track(batches, total=len(batches), label=label) if label else batches:
            prompts = [prompt_ids[i] for i in batch]
            made = halve_until_it_fits(functools.partial(make, prompts), len(batch))
            completions |= dict(zip(batch, made, strict=True))
    return [completions[i] for i in range(len(prompt_ids))]


def _generate(
    policy: Policy,
    prompt_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    stop: transformers.StopStringCriteria | None,
    certainty: bool,
) -> list[Completion]:
    """Generate with transformers, for models that `sample_completions` does not support."""
    model, tokenizer = policy
    sampling = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    ends = end_tokens(model, tokenizer)
    config = transformers.GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=sorted(ends),
        disable_compile=True,
        do_sample=bool(sampling),
        **sampling,
    )
    prompts = {"input_ids": [list(ids) for ids in prompt_ids]}
    padded = tokenizer.pad(prompts, padding_side="left", return_tensors="pt").to(model.device)
    criteria = [stop] if stop else None
    causal = causal_model(model)
    # What `config` leaves out, transformers takes from here: a repetition penalty, for one.
    own, causal.generation_config = causal.generation_config, transformers.GenerationConfig()
    try:
        with scoring(model):
            output = model.generate(**padded, generation_config=config, stopping_criteria=criteria)
    finally:
        causal.generation_config = own
    completions = []
    for ids in output[:, padded["input_ids"].shape[1] :].tolist():
        completion = through_end(ids, ends)
        # Padding follows a stop text. Elsewhere such a token is one of the completion, its end.
        bare = completion.copy()
        while bare[-1:] == [tokenizer.pad_token_id]:
            bare.pop()
        stopped = stop is not None and bare and stop(torch.tensor([bare]), None).item()
        completions.append(bare if stopped else completion)
    if not certainty:
        return [Completion(ids, torch.empty(0), torch.empty(0)) for ids in completions]
    values = token_self_certainty(model, prompt_ids, completions)
    log_probs = completion_log_probs(model, prompt_ids, completions, temperature=temperature or 1.0)
    made = [*map(Completion, completions, values, log_probs)]
    require_numbers(model, made)
    return made
