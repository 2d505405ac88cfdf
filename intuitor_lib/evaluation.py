"""Measure a policy on held-out problems: generate, grade, score its confidence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import transformers

from .answers import grade
from .certainty import completion_log_probs, score_completions
from .data import Problem
from .intervals import Estimate, mean_over_problems, proportion
from .policy import Policy, reference_policy
from .progress import track
from .prompts import conversation, prompt_token_ids
from .recipe import Recipe

__all__ = ["generate", "measure", "summarize"]


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
    config = transformers.GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=model.generation_config.eos_token_id,
        disable_compile=True,
        **sampling,
    )
    completions: list[list[int]] = [[] for _ in prompt_ids]
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), _evaluating(model):
        torch.manual_seed(seed)
        for batch in track(batches, total=len(batches), label=label):
            padded = tokenizer.pad(
                {"input_ids": [list(prompt_ids[i]) for i in batch]},
                padding_side="left",
                return_tensors="pt",
            ).to(model.device)
            output = model.generate(**padded, generation_config=config)
            for i, ids in zip(batch, output[:, padded["input_ids"].shape[1] :], strict=True):
                completions[i] = _through_first(ids.tolist(), config.eos_token_id)
    return completions


def _through_first(ids: list[int], eos_token_id: int | list[int] | None) -> list[int]:
    ends = {eos_token_id} if isinstance(eos_token_id, int) else set(eos_token_id or ())
    end = next((i + 1 for i, token in enumerate(ids) if token in ends), len(ids))
    return ids[:end]


@contextlib.contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def measure(
    policy: Policy,
    problems: Sequence[Problem],
    recipe: Recipe,
    *,
    temperature: float,
    num_samples: int = 1,
    seed: int = 0,
    prompt_template: str | None = None,
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
        prompt_template: instead of the recipe's.
        kl: also estimate the KL divergence to the reference policy, per token (k3, at the
            sampling temperature, as in training); one more forward pass.

    Returns:
        Rows of `id`, `sample`, `prompt`, `answer`, `completion`, `tokens`, `clipped`, `correct`
        (None without an answer), `self_certainty` (nats) and, if asked for, `kl` (nats).
    """
    if prompt_template is not None:
        recipe = recipe.replace(prompt_template=prompt_template)
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
    certainty = score_completions(policy.model, prompt_ids, completion_ids).tolist()
    divergence = (
        _kl(policy, prompt_ids, completion_ids, temperature or 1.0) if kl else [None] * len(items)
    )
    rows = []
    for i, (problem, sample) in enumerate(items):
        row = {
            "id": problem.id,
            "sample": sample,
            "prompt": problem.prompt,
            "answer": problem.answer,
            "completion": texts[i],
            "tokens": len(completion_ids[i]),
            "clipped": len(completion_ids[i]) == recipe.max_completion_length
            and not _ends(policy, completion_ids[i]),
            "correct": None,
            "self_certainty": certainty[i] if certainty[i] == certainty[i] else None,
        }
        rows.append(row | ({"kl": divergence[i]} if kl else {}))
    graded = [row for row in rows if row["answer"] is not None]
    verdicts = grade(
        [row["completion"] for row in graded],
        [row["answer"] for row in graded],
        last_number=recipe.last_number,
    )
    for row, verdict in zip(graded, verdicts, strict=True):
        row["correct"] = verdict
    return rows


def _ends(policy: Policy, ids: Sequence[int]) -> bool:
    ends = policy.model.generation_config.eos_token_id
    return bool(ids) and ids[-1] in ({ends} if isinstance(ends, int) else set(ends or ()))


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


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    """Estimates with 95 % intervals: accuracy, self_certainty, tokens, clipped, kl where present.

    Accuracy of one completion per problem has Wilson's interval, everything else a bootstrap
    over problems.
    """
    estimates = {}
    for name, column in (
        ("accuracy", "correct"),
        ("self_certainty", "self_certainty"),
        ("tokens", "tokens"),
        ("clipped", "clipped"),
        ("kl", "kl"),
    ):
        known = [row for row in rows if row.get(column) is not None]
        if not known:
            continue
        ids = [row["id"] for row in known]
        values = [float(row[column]) for row in known]
        if column == "correct" and len(set(ids)) == len(ids):
            estimates[name] = proportion(int(sum(values)), len(values))
        else:
            estimates[name] = mean_over_problems(ids, values)
    return estimates
