"""Measure a policy on problems as training asks them, for a before and after."""

import contextlib
from collections.abc import Sequence
from typing import Any

import peft

from ..certainty.completions import completion_log_probs, end_tokens
from ..grading import grade_labelled
from ..policy import Policy, load_model, reference_policy
from ..policy.trained import base_settings
from ..problems import Problem, conversation, prompt_token_ids
from ..recipe import Recipe
from ..rollouts import generate


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
    """Sample completions of some problems and measure correctness, self-certainty and KL.

    Args:
        policy: from `load_policy` or `load_run`.
        problems: problems; accuracy needs their answers.
        recipe: gives the form of the prompt and the token limit.
        temperature: sampling temperature; 0 is greedy.
        certainty: also record self-certainty.
        kl: also estimate the KL divergence to the reference policy, per token (k3, at the
            sampling temperature, as in training), for the first sample of each problem. Of a model
            without adapters the reference is loaded: the policy that the recipe starts from.
        label: text of the progress bar.

    Returns:
        A row per completion with `id`, `sample`, `prompt`, `answer`, `completion`, `tokens`,
        `clipped`, `correct` (None without an answer) and, if requested, `self_certainty` and `kl`
        (nats).
    """
    ends = end_tokens(*policy)
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
        texts, [problem.answer for problem, _ in items], extraction=recipe.answer_extraction
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
            **({"self_certainty": completion.mean_certainty} if certainty else {}),
        }
        for (problem, sample), text, ids, verdict, completion in zip(
            items, texts, completion_ids, verdicts, completions, strict=True
        )
    ]
    if kl:
        first = slice(None, None, num_samples)
        sampled = (prompt_ids[first], completion_ids[first])
        adapted = isinstance(policy.model, peft.PeftModel)
        model = (policy if adapted else load_model(recipe.model, **base_settings(recipe))).model
        with reference_policy(model) if adapted else contextlib.nullcontext():
            reference = completion_log_probs(model, *sampled, temperature=temperature or 1.0)
        for row, completion, expected in zip(
            rows[first], completions[first], reference, strict=True
        ):
            ratio = expected - completion.log_probs
            row["kl"] = float((ratio.exp() - ratio - 1).mean()) if len(ratio) else None
    return rows
