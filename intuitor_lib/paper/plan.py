"""The plan behind the notebooks, kept in `plan.yaml`: trainings (arms), seeds, suites of tests."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..recipe import InputError, Recipe, get_recipe
from ..recipe.constants import read_yaml

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Test:
    """A benchmark and the decoding with which a policy is evaluated."""

    __test__ = False  # for pytest

    name: str  # in the suite
    benchmark: str  # a name of `BENCHMARKS`, or `HELD_OUT`
    title: str  # in tables
    n: int | None = None  # None: all items
    temperature: float = 0.0
    num_samples: int = 1
    max_new_tokens: int | None = None  # None: the benchmark's
    column: str | None = None  # of the paper's tables; None for a problem of ours
    batch_size: int | None = None
    recipe: str | None = "intuitor"  # whose problems are held out, for `HELD_OUT`; None: the arm's
    changes: Mapping[str, Any] = field(default_factory=dict)  # of its settings

    @property
    def heading(self) -> str:
        """The title, which names what is sampled, with the decoding of what is not."""
        return self.title if self.temperature else f"{self.title}, greedy"


@dataclass(frozen=True)
class Collection:
    """The trials that a notebook collects under any profile; see `asked`."""

    arms: Sequence[str]
    tests: Sequence[str] = ()  # `main` stands for the profile's `MAIN_TESTS`
    base_tests: Sequence[str] = ()  # of bases, besides
    at_steps: Sequence[str] = ()  # tests of every snapshot
    halfway: bool = False  # of the one in the middle alone
    first_seed: bool = False  # of the profile's; else all of them


@dataclass(frozen=True)
class Task:
    """A family of problems on which arms are trained, beside the ground of the other notebooks.

    `settings` are those of its recipes.
    """

    title: str
    settings: Mapping[str, Any]
    smoke: bool = False  # whether notebooks also train on it under that profile
    held_back: bool = False  # from what notebook 12 makes its recommendation of


PLAN_FILE = read_yaml(__file__, "plan.yaml")
"""The plan as it is in the file."""

TASKS: Mapping[str, Task] = {
    name: Task(**entry) for name, entry in read_yaml(__file__, "tasks.yaml")["tasks"].items()
}
"""Families of problems by name; the arm "intuitor/dates" is `intuitor` trained on the task."""

ARMS: Mapping[str, str] = PLAN_FILE["arms"] | {
    f"{arm}/{name}": f"{PLAN_FILE['arms'][arm]}, {task.title}"
    for name, task in TASKS.items()
    for arm in PLAN_FILE["on_tasks"]
}
"""Labels of the arms: recipes, and the bases that they start from; with a task behind a slash."""

SEEDS: Mapping[str, Sequence[int]] = PLAN_FILE["seeds"]
"""Seeds by profile; bases have the first one, the arms in `SEEDS_AT_MOST` the first ones."""

SAME: Mapping[str, str] = PLAN_FILE["same"]
"""Arms that are the same training as another arm."""

SEEDS_AT_MOST: Mapping[str, int] = PLAN_FILE["seeds_at_most"]
"""The number of seeds of arms that are not trained with all of them; "random/" on all tasks."""

PLAN: Mapping[str, Collection] = {
    name: Collection(**entry) for name, entry in PLAN_FILE["notebooks"].items()
}
"""What each notebook collects, by its name, or by "name:parameter" for more; most is shared."""

SUITES: Mapping[str, Mapping[str, Test]] = {
    profile: {name: Test(name, **t) for name, t in suite.items()}
    for profile, suite in PLAN_FILE["suites"].items()
}
"""The tests of each profile, by name."""

MAIN_TESTS: Mapping[str, Sequence[str]] = PLAN_FILE["main_tests"]
"""The tests of the main comparison by profile."""

PLANS: Mapping[str, Mapping[str, Any]] = PLAN_FILE["plans"]
"""Sizes of a batch: its notebooks with their parameters, and its profile if it has its own."""

PAPER_MODELS: Mapping[str, str] = PLAN_FILE["paper_models"]
"""The model of the paper's tables that a profile trains."""


def is_base(arm: str) -> bool:
    """Whether an arm is a base, which is evaluated and not trained."""
    return arm.startswith("base")


def arm_seeds(arm: str, profile: str, seeds: Sequence[int] | None = None) -> Sequence[int]:
    """Seeds to train an arm with, of `seeds` or the profile's."""
    given = SEEDS[profile] if seeds is None else seeds
    reward, slash, _ = arm.partition("/")
    return given[: 1 if is_base(arm) else SEEDS_AT_MOST.get(reward + slash, len(given))]


def arms_of(notebook: str, profile: str) -> Sequence[str]:
    """The arms of a notebook; "intuitor/" in the plan is one arm for each task of the profile."""
    tasks = [name for name, task in TASKS.items() if task.smoke or profile != "smoke"]
    return [
        name
        for arm in PLAN[notebook].arms
        for name in ([f"{arm}{task}" for task in tasks] if arm.endswith("/") else [arm])
    ]


def asked(
    notebook: str,
    profile: str,
    *,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The arguments of `collect` for a notebook; tests that the profile's suite lacks are left out.

    Args:
        notebook: a name in `PLAN`.
        arms: train these instead of the plan's.
        seeds: train with these instead of the plan's.

    Raises:
        InputError: `arms` or `seeds` is not a list.
    """
    for name, given in (("arms", arms), ("seeds", seeds)):
        if given is not None and (isinstance(given, str) or not isinstance(given, Sequence)):
            raise InputError(f"{name}={given!r}: give a list, as [{given!r}]")
    plan, suite = PLAN[notebook], SUITES[profile]
    planned_arms = arms_of(notebook, profile)
    trained = [arm for arm in planned_arms if not is_base(arm)] if arms is None else arms
    steps = snapshot_steps(trained[0], profile) if plan.at_steps and trained else []
    names = [t for name in plan.tests for t in (MAIN_TESTS[profile] if name == "main" else [name])]
    return {
        "arms": planned_arms if arms is None else ["base", *arms],
        "profile": profile,
        "tests": [name for name in names if name in suite],
        "base_tests": [name for name in plan.base_tests if name in suite],
        "steps": steps[len(steps) // 2 :][:1] if plan.halfway else steps,
        "step_tests": plan.at_steps,
        "seeds": seeds or (SEEDS[profile][:1] if plan.first_seed else None),
    }


def planned(profile: str) -> dict[str, Recipe]:
    """Every training of the notebooks under a profile, once each, by recipe digest."""
    named = (arm for notebook in PLAN for arm in arms_of(notebook, profile))
    arms = dict.fromkeys(SAME.get(arm, arm) for arm in named if not is_base(arm))
    recipes = [arm_recipe(arm, profile, seed) for arm in arms for seed in arm_seeds(arm, profile)]
    return {recipe.digest: recipe for recipe in recipes}


def arm_recipe(arm: str, profile: str, seed: int) -> Recipe:
    """The recipe of an arm; for a base, the recipe that starts from it."""
    reward, _, task = arm.partition("/")
    name = reward.partition(":")[2] or ("intuitor" if reward == "base" else reward)
    settings = TASKS[task].settings if task else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # beta = 0 is intended in its arm
        recipe = get_recipe(name, profile, seed=seed, **settings)
        # Notebooks look at the way there, under every profile.
        every = recipe.snapshot_steps or max(1, recipe.max_steps // 6)
        return recipe.replace(snapshot_steps=every)


def snapshot_steps(arm: str, profile: str) -> list[int]:
    """The steps before the last after which an arm keeps a snapshot."""
    recipe = arm_recipe(arm, profile, SEEDS[profile][0])
    every = recipe.snapshot_steps or recipe.max_steps
    return [*range(every, recipe.max_steps, every)]
