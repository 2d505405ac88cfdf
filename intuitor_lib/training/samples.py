"""Completions sampled beside a training, as it samples its own, without affecting it."""

import logging
from collections.abc import Callable, Sequence

from ..certainty.completions import end_tokens
from ..grading import grade
from ..policy import Policy
from ..problems import Problem, conversation, prompt_token_ids
from ..recipe import Recipe
from ..rollouts import own_random_state
from ..rollouts.sampling import Completion, halve_until_it_fits, reason_against, sample_completions

logger = logging.getLogger(__name__)


def sample_problems(
    policy: Policy, problems: Sequence[Problem], recipe: Recipe, *, group: int = 1, seed: int = 0
) -> tuple[list[Completion], list[str]]:
    """`group` completions of each problem, one problem after the other, and their texts.

    With the recipe's sampling, from a random state of its own.
    """
    conversations = [conversation(problem.prompt, recipe) for problem in problems]
    prompt_ids = prompt_token_ids(policy.tokenizer, conversations)
    rows = [ids for ids in prompt_ids for _ in range(group)]
    most = recipe.rollout_batch_size or recipe.completions_per_step
    with own_random_state(policy.model.device, seed):
        completions = halve_until_it_fits(
            lambda size: sample_completions(
                policy.model,
                rows,
                max_new_tokens=recipe.max_completion_length,
                temperature=recipe.temperature,
                top_k=recipe.top_k,
                top_p=recipe.top_p,
                eos_token_id=sorted(end_tokens(*policy)),
                batch_size=size,
            ),
            min(most, len(rows)),
        )
    ids = [completion.ids for completion in completions]
    return completions, policy.tokenizer.batch_decode(ids, skip_special_tokens=True)


def held_out_accuracy(
    recipe: Recipe, problems: Sequence[Problem], policy: Policy
) -> Callable[[], tuple[float, int]] | None:
    """A function that returns accuracy and its number of completions, one per labelled problem.

    None if the recipe has `eval_steps` 0 or the accuracy cannot be measured.
    """
    if not recipe.eval_steps:
        return None
    conversations = [conversation(problem.prompt, recipe) for problem in problems]
    lengths = map(len, prompt_token_ids(policy.tokenizer, conversations))
    short = [p for p, n in zip(problems, lengths, strict=True) if n <= recipe.max_prompt_length]
    if len(short) < len(problems):
        text = "%d of %d held-out prompts are longer than max_prompt_length=%d and not measured"
        dropped = len(problems) - len(short)
        logger.warning(text, dropped, len(problems), recipe.max_prompt_length)
    labelled = [problem for problem in short if problem.answer is not None]
    answers = [problem.answer for problem in labelled if problem.answer is not None]
    reason = reason_against(policy.model) or (None if labelled else "no held-out answers")
    if reason:
        logger.warning("no held-out accuracy during training: %s", reason)
        return None

    def measure() -> tuple[float, int]:
        _, texts = sample_problems(policy, labelled, recipe, seed=recipe.seed)
        verdicts = grade(texts, answers, extraction=recipe.answer_extraction)
        return sum(verdicts) / len(verdicts), len(verdicts)

    return measure
