"""The plan: arms that exist, the same tests in every suite."""

from intuitor_lib.paper.plan import ARMS, MAIN, PLAN, SAME, SEEDS, SUITES, planned
from intuitor_lib.recipe.recipes import RECIPES, get_recipe


def test_the_plan_names_what_there_is():
    for arm in ARMS:
        assert arm == "base" or arm.removeprefix("base:") in RECIPES
    for names in PLAN.values():
        assert set(names) <= set(ARMS)
    assert len(planned("smoke")) == len({arm for a in PLAN.values() for arm in a} - set(SAME))
    extra = len(MAIN) * (len(SEEDS["cpu"]) - 1)
    assert len(planned("cpu")) == len(planned("smoke")) + extra
    for arm, other in SAME.items():
        assert get_recipe(arm, "cpu").digest == get_recipe(other, "cpu").digest


def test_every_suite_has_the_same_tests_and_smoke_is_small():
    for suite in SUITES.values():
        assert {"in_domain", "in_domain_sampled", "cool", "transfer", "code"} <= set(suite)
        assert [*suite] == [test.name for test in suite.values()]
    real = {"gsm8k", "math500", "structured"}  # from files, which smoke does not need
    assert set(SUITES["cpu"]) - real == set(SUITES["smoke"])
    for test in SUITES["smoke"].values():
        limit = test.max_new_tokens or get_recipe(test.recipe, "smoke").max_completion_length
        assert test.n * test.num_samples * limit <= 200
    for profile in ("smoke", "cpu"):
        assert not any(test.column for test in SUITES[profile].values())


def test_only_the_ground_of_the_protocol_is_trained_on_a_cpu():
    """What docs/protocol.md says of the trainings is what the recipes do."""
    expected = {"main": 16, "online": 48, "offline": 48}
    for recipe in planned("cpu").values():
        assert recipe.max_steps == expected.get(recipe.name, 16)
        assert recipe.temperature == 0.9
        on_words = recipe.name.endswith("-reasoning")
        assert recipe.problems_per_step == (4 if on_words else 8)
        assert recipe.num_generations == 8
        assert recipe.eval_problems == (100 if on_words else 200)
    assert SEEDS["cpu"] == [7, 8, 9]
    assert set(MAIN) == {"grpo", "intuitor", "random", "grpo-pv"}
