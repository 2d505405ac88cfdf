"""The plan: arms that exist, the same tests in every suite."""

import pytest

from intuitor_lib.cli.notebooks import find_notebooks
from intuitor_lib.paper.plan import (
    ARMS,
    MAIN_TESTS,
    PAPER_MODELS,
    PLAN,
    PLANS,
    SAME,
    SEEDS,
    SEEDS_AT_MOST,
    SUITES,
    TASKS,
    arm_recipe,
    arm_seeds,
    arms_of,
    asked,
    planned,
)
from intuitor_lib.recipe.recipes import PROFILES, RECIPES, get_recipe


def test_the_plan_names_what_there_is():
    for arm in ARMS:
        assert arm.partition("/")[0].removeprefix("base:") in {"base", *RECIPES}
    for profile in ("smoke", "cpu"):
        arms = {arm for notebook in PLAN for arm in arms_of(notebook, profile)}
        assert arms <= set(ARMS)
        trained = {arm for arm in arms if not arm.startswith("base")} - set(SAME)
        number = sum(len(arm_seeds(arm, profile)) for arm in trained)
        same = {"online": "intuitor", "random-longer": "random", "vote-longer": "grpo-pv"}
        shared = len(same) if profile == "smoke" else 0  # two steps, as the shorter ones
        assert len(planned(profile)) == number - shared
        assert same.keys() <= trained
    for arm, other in SAME.items():
        assert get_recipe(arm, "cpu").digest == get_recipe(other, "cpu").digest


def test_the_plan_has_every_notebook_profile_and_plan():
    stems = {path.stem for path in find_notebooks()}
    assert {name.partition(":")[0] for name in PLAN} == stems
    assert set(SUITES) == set(SEEDS) == set(MAIN_TESTS) == set(PROFILES)
    assert set(PAPER_MODELS) == set(PROFILES) - {"smoke", "cpu"}
    for plan in PLANS.values():
        assert set(plan.get("notebooks", {})) <= stems
        assert plan.get("profile", "cpu") in PROFILES
    extending = {name for name, profile in PROFILES.items() if profile.extends}
    assert not any(extending & set(named.under) for named in RECIPES.values())


@pytest.mark.parametrize("profile", [*PROFILES])
@pytest.mark.parametrize("name", [*PLAN])
def test_what_a_notebook_asks_for_is_in_the_suite(name, profile):
    found = asked(name, profile)
    wanted = {*found["tests"], *found["base_tests"], *found["step_tests"]}
    assert wanted <= set(SUITES[profile])
    named = {*PLAN[name].tests, *PLAN[name].base_tests, *PLAN[name].at_steps}
    assert named <= {"main", *(test for suite in SUITES.values() for test in suite)}
    assert bool(found["steps"]) == bool(PLAN[name].at_steps)


def test_what_a_notebook_asks_for_can_be_changed():
    found = asked("07_kl_penalty", "cpu", arms=["kl-0"], seeds=[8])
    assert (found["arms"], found["seeds"]) == (["base", "kl-0"], [8])
    assert asked("03_early_learning", "cpu")["seeds"] == [7]
    assert asked("02_main_results", "cpu")["seeds"] is None  # all of the profile's
    assert "cool" in asked("02_main_results", "cpu")["base_tests"]
    assert "gsm8k" not in asked("05_emergent_reasoning", "smoke")["tests"]


def test_every_suite_has_the_same_tests_and_smoke_is_small():
    for suite in SUITES.values():
        assert {"in_domain", "in_domain_sampled", "cool", "transfer", "code"} <= set(suite)
        assert [*suite] == [test.name for test in suite.values()]
    real = {"gsm8k", "math500", "structured"}  # from files, which smoke does not need
    assert set(SUITES["cpu"]) - real == set(SUITES["smoke"])
    for test in SUITES["smoke"].values():
        recipe = get_recipe(test.recipe or "intuitor", "smoke")
        limit = test.max_new_tokens or recipe.max_completion_length
        assert test.n * test.num_samples * limit <= 200
    for profile in ("smoke", "cpu"):
        assert not any(test.column for test in SUITES[profile].values())


def test_only_the_ground_of_the_protocol_is_trained_on_a_cpu():
    """What docs/protocol.md says of the trainings is what the recipes do."""
    longer = {"online", "offline", "random-longer", "mixed-longer", "vote-longer", "stated-longer"}
    on_tasks = {arm_recipe(arm, "cpu", s).digest for arm in ARMS for s in (7, 8) if "/" in arm}
    for recipe in planned("cpu").values():
        too_fast, on_words = recipe.name == "too-fast", recipe.name.endswith("-reasoning")
        assert recipe.max_steps == (48 if too_fast or recipe.name in longer else 16)
        assert recipe.learning_rate == (3e-5 if too_fast else 5e-6)
        assert recipe.temperature == 0.9
        assert recipe.problems_per_step == (4 if on_words else 8)
        assert recipe.num_generations == 8
        held_out = 128 if recipe.digest in on_tasks else 100 if on_words else 200
        assert recipe.eval_problems == held_out
    assert SEEDS["cpu"] == [7, 8, 9]
    assert {arm for arm, most in SEEDS_AT_MOST.items() if most == 1} == {
        *("grpo-reasoning", "intuitor-reasoning", "random-reasoning", "intuitor-code"),
        *("grpo-code", "random/"),
    }
    assert {*SEEDS_AT_MOST.values()} == {1, 2}


def test_tasks_are_those_of_the_protocol():
    """Families without an echo; three are held back, and every one is trained on but in smoke."""
    assert len(TASKS) == 12
    assert [name for name, task in TASKS.items() if task.held_back] == [
        *("sums", "percentages", "next-days")
    ]
    assert {arm for arm in arms_of("12_when_does_it_work", "gpu-12gb") if arm[0] == "b"} == {
        f"base/{name}" for name in TASKS
    }
    assert [arm for arm in arms_of("12_when_does_it_work", "smoke") if arm[0] == "r"] == [
        *("random/differences", "random/first-letters")
    ]
    assert list(arm_seeds("intuitor/dates", "cpu")) == [7, 8]
    assert list(arm_seeds("random/dates", "cpu")) == list(arm_seeds("base/dates", "cpu")) == [7]
