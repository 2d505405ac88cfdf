"""Measure a policy on problems as it is trained on them: the rows of a before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..certainty.completions import completion_log_probs, end_tokens
from ..grading.answers import grade_labelled
from ..policy.adapters import reference_policy
from ..policy.loading import Policy
from ..problems.problems import Problem
from ..problems.prompts import conversation, prompt_token_ids
from ..recipe.recipe import Recipe
from ..rollouts.generation import generate
from ..rollouts.sampling import Completion

__all__ = ["measure"]


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
        certainty: also keep self-certainty.
        kl: also estimate the KL divergence to the reference policy, per token (k3, at the
            sampling temperature, as in training), on the first sample of each problem; one
            forward pass.
        label: what the progress bar says.

    Returns:
        Rows of `id`, `sample`, `prompt`, `answer`, `completion`, `tokens`, `clipped`, `correct`
        (None without an answer) and, where asked for, `self_certainty` and `kl` (nats).
    """
    ends = end_tokens(policy.model)
    items = [(problem, sample) for problem in problems for sample in range(num_samples)]
    conversations = [conversation(problem.prompt, recipe) for problem, _ in items]
    prompt_ids = prompt_token_ids(policy.tokenizer, conversations)
    completions = generate(
        policy,
        prompt_ids,
        max_new_tokens=recipe.max_completion_length,
        temperature=temperature,
        seed=seed,
        certainty=certainty or kl,
        label=label,
    )
    completion_ids = [completion.ids for completion in completions]
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
        for row, completion in zip(rows, completions, strict=True):
            row["self_certainty"] = completion.mean_certainty
    if kl:
        first = [i for i, row in enumerate(rows) if row["sample"] == 0]
        values = _kl(
            policy,
            [prompt_ids[i] for i in first],
            [completions[i] for i in first],
            temperature,
        )
        for i, value in zip(first, values, strict=True):
            rows[i]["kl"] = value
    return rows


def _kl(
    policy: Policy,
    prompt_ids: Sequence[Sequence[int]],
    completions: Sequence[Completion],
    temperature: float,
) -> list[float | None]:
    arguments = ([completion.ids for completion in completions],)
    with reference_policy(policy.model):
        reference = completion_log_probs(
            policy.model, prompt_ids, *arguments, temperature=temperature or 1.0
        )
    ratios = [r - c.log_probs for r, c in zip(reference, completions, strict=True)]
    return [float((x.exp() - x - 1).mean()) if len(x) else None for x in ratios]
