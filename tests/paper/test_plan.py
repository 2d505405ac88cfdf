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
    names = {"in_domain", "in_domain_sampled", "transfer", "structured", "instructions", "code"}
    for suite in SUITES.values():
        assert names <= set(suite)
        assert [*suite] == [test.name for test in suite.values()]
    for test in SUITES["smoke"].values():
        assert test.n * test.num_samples * test.max_new_tokens <= 200
        assert test.column is None  # a stand-in is no column of the paper's
    assert not any(test.column for test in SUITES["cpu"].values())
