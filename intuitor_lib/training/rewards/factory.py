"""The reward functions of a recipe and their weights."""

import logging
from collections.abc import Callable

from ...grading.sandbox import SandboxError
from ...policy import Policy
from ...recipe import InputError, Recipe
from .answers import AccuracyReward, PluralityReward, RandomReward, StatedReward, UnitTestReward
from .confidence import LateSelfCertaintyReward, NegativeEntropyReward, SelfCertaintyReward

logger = logging.getLogger(__name__)

_Reward = Callable[..., list[float | None]]


def reward_functions(
    recipe: Recipe, policy: Policy, *, labelled: bool, tested: bool = False
) -> tuple[list[_Reward], list[float]]:
    """The recipe's rewards and weights, followed by those only monitored, at weight 0.

    Self-certainty is always monitored, accuracy where problems have answers (`labelled`), unit
    tests where problems have them (`tested`) and programs can be confined.

    Raises:
        InputError: accuracy or unit tests are rewarded and no problem has any.
        SandboxError: unit tests are rewarded and programs cannot be confined.
    """
    for name, present, missing, column in (
        ("accuracy", labelled, "answer", "the column of the answers with answer_column"),
        ("unit_tests", tested, "unit tests", "their column with tests_column"),
    ):
        if name in recipe.rewards and not present:
            raise InputError(
                f"rewards={recipe.rewards!r} with no {missing} in the problems: name {column}, or "
                "reward self_certainty, which needs none"
            )
    size = recipe.per_device_train_batch_size
    make: dict[str, Callable[[], _Reward]] = {
        "self_certainty": lambda: SelfCertaintyReward(
            *policy,
            annotator=recipe.annotator,
            certainty_from=recipe.certainty_from,
            batch_size=size,
        ),
        "accuracy": lambda: AccuracyReward(extraction=recipe.answer_extraction),
        "plurality": lambda: PluralityReward(extraction=recipe.answer_extraction),
        "stated": lambda: StatedReward(extraction=recipe.answer_extraction),
        "late_self_certainty": lambda: LateSelfCertaintyReward(*policy, batch_size=size),
        "negative_entropy": lambda: NegativeEntropyReward(*policy, batch_size=size),
        "unit_tests": UnitTestReward,
        "random": lambda: RandomReward(seed=recipe.seed),
    }
    watched = {"self_certainty": True, "accuracy": labelled, "unit_tests": tested}
    monitored = [name for name, can in watched.items() if can and name not in recipe.rewards]
    rewards = [make[name]() for name in recipe.rewards]
    for name in monitored:
        try:
            rewards.append(make[name]())
        except SandboxError as error:
            logger.warning("%s are not monitored: %s", name, error)
    weights = [*(recipe.reward_weights or [1.0] * len(recipe.rewards))]
    return rewards, weights + [0.0] * (len(rewards) - len(weights))
