"""Measure a policy on held-out problems: generate, grade, score its confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers

from .answers import grade_labelled
from .certainty import (
    completion_log_probs,
    end_tokens,
    score_completions,
    scoring,
    through_end,
)
from .data import Problem
from .policy import Policy, reference_policy
from .progress import track
from .prompts import conversation, prompt_token_ids
from .recipe import Recipe

__all__ = ["generate", "measure"]


def generate(
    policy: Policy,
    prompt_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int = 0,
    batch_size: int = 128,
    label: str = "generate",
) -> list[list[int]]:
    """Completions as token ids, each up to and with its end token, in the order of the prompts.

    Temperature 0 is greedy; else the whole distribution is sampled (no top-k, no top-p), from a
    random state of its own: the caller's is left as it was.
    """
    model, tokenizer = policy
    order = sorted(range(len(prompt_ids)), key=lambda i: len(prompt_ids[i]))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
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
        **sampling,
    )
    completions: list[list[int]] = [[] for _ in prompt_ids]
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), scoring(model):
        torch.manual_seed(seed)
        for batch in track(batches, total=len(batches), label=label):
            padded = tokenizer.pad(
                {"input_ids": [list(prompt_ids[i]) for i in batch]},
                padding_side="left",
                return_tensors="pt",
            ).to(model.device)
            output = model.generate(**padded, generation_config=config)
            for i, ids in zip(batch, output[:, padded["input_ids"].shape[1] :], strict=True):
                completions[i] = through_end(ids.tolist(), ends)
    return completions


def measure(
    policy: Policy,
    problems: Sequence[Problem],
    recipe: Recipe,
    *,
    temperature: float,
    num_samples: int = 1,
    seed: int = 0,
    certainty: bool = True,
    kl: bool = False,
    label: str = "measure",
) -> list[dict[str, Any]]:
    """One row per completion: what was said, whether it is right, and how certain the policy was.

    Args:
        policy: as from `load_policy` or `load_run`.
        problems: problems, with answers where accuracy is wanted.
        recipe: gives the prompt's form and the token limit.
        temperature: of sampling; 0 is greedy.
        num_samples: completions per problem.
        seed: of the sampling.
        certainty: also score self-certainty; one forward pass.
        kl: also estimate the KL divergence to the reference policy, per token (k3, at the
            sampling temperature, as in training), on the first sample of each problem; two
            forward passes.
        label: what the progress bar says.

    Returns:
        Rows of `id`, `sample`, `prompt`, `answer`, `completion`, `tokens`, `clipped`, `correct`
        (None without an answer) and, where asked for, `self_certainty` and `kl` (nats).
    """
    ends = end_tokens(policy.model)
    items = [(problem, sample) for problem in problems for sample in range(num_samples)]
    conversations = [conversation(problem.prompt, recipe) for problem, _ in items]
    prompt_ids = prompt_token_ids(policy.tokenizer, conversations)
    completion_ids = generate(
        policy,
        prompt_ids,
        max_new_tokens=recipe.max_completion_length,
        temperature=temperature,
        seed=seed,
        label=label,
    )
    texts = policy.tokenizer.batch_decode(completion_ids, skip_special_tokens=True)
    verdicts = grade_labelled(
        texts, [problem.answer for problem, _ in items], last_number=recipe.last_number
    )
    rows: list[dict[str, Any]] = [
        {
            "id": problem.id,
            "sample": sample,
            "prompt": problem.prompt,
            "answer": problem.answer,
            "completion": text,
            "tokens": len(ids),
            "clipped": ids[-1] not in ends,
            "correct": verdict,
        }
        for (problem, sample), text, ids, verdict in zip(
            items, texts, completion_ids, verdicts, strict=True
        )
    ]
    if certainty:
        scores = score_completions(policy.model, prompt_ids, completion_ids).tolist()
        for row, score in zip(rows, scores, strict=True):
            row["self_certainty"] = score if score == score else None
    if kl:
        first = [i for i, row in enumerate(rows) if row["sample"] == 0]
        prompts, completions = ([ids[i] for i in first] for ids in (prompt_ids, completion_ids))
        for i, value in zip(
            first, _kl(policy, prompts, completions, temperature or 1.0), strict=True
        ):
            rows[i]["kl"] = value
    return rows


def _kl(
    policy: Policy,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    temperature: float,
) -> list[float | None]:
    arguments = (policy.model, prompt_ids, completion_ids)
    ours = completion_log_probs(*arguments, temperature=temperature)
    with reference_policy(policy.model):
        reference = completion_log_probs(*arguments, temperature=temperature)
    ratios = [r - o for r, o in zip(reference, ours, strict=True)]
    return [float((x.exp() - x - 1).mean()) if len(x) else None for x in ratios]
