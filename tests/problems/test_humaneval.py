"""HumanEval as problems to train on: what is asked, what passes, what is held out."""

import json

import pytest

from intuitor_lib.grading.sandbox.confine import protections
from intuitor_lib.problems.humaneval import humaneval_request, humaneval_rows, humaneval_tests
from intuitor_lib.problems.problems import load_problems
from intuitor_lib.recipe.constants import RecipeError
from intuitor_lib.recipe.recipes import get_recipe
from intuitor_lib.training.rewards.answers import UnitTestReward

ROWS = {row["task_id"]: row for row in humaneval_rows()}


def test_the_request_holds_the_function_and_nothing_of_its_solution_or_tests():
    assert len(ROWS) == 164
    for row in ROWS.values():
        asked = humaneval_request(row)
        assert f"def {row['entry_point']}(" in asked
        assert row["prompt"].strip() in asked
        assert row["canonical_solution"].strip() not in asked
        assert "assert candidate(" not in asked


def test_what_stands_before_the_function_comes_with_the_tests():
    assert humaneval_tests(ROWS["HumanEval/0"])["setup"] == "from typing import List\n\n\n"
    assert "def poly(" in humaneval_tests(ROWS["HumanEval/32"])["setup"]
    for row in ROWS.values():
        start = humaneval_tests(row)["setup"]
        assert row["prompt"].removeprefix(start).startswith(f"def {row['entry_point']}(")


@pytest.mark.parametrize("profile", ["smoke", "cpu"])
def test_recipes_train_on_some_and_hold_others_out(profile):
    recipe = get_recipe("grpo-code", profile)
    problems = load_problems(recipe)
    held_out, train = ({p.id for p in part} for part in (problems.held_out, problems.train))
    assert len(held_out) == recipe.eval_problems == 32
    assert len(train) == min(132, recipe.max_problems or 132)
    assert not held_out & train
    assert held_out | train <= set(ROWS)
    assert {problem.answer for problem in problems.train} == {None}
    assert get_recipe("intuitor-code", profile).dataset == recipe.dataset


def test_the_reward_needs_no_column_of_tests():
    recipe = get_recipe("grpo-code", "smoke")
    assert (recipe.rewards, recipe.tests_column) == (("unit_tests",), None)
    with pytest.raises(RecipeError, match="embedded:humaneval"):
        recipe.replace(dataset="problems.jsonl")


@pytest.mark.skipif(protections().mode == "none", reason="programs cannot be confined here")
def test_solutions_are_rewarded_and_functions_without_a_body_are_not():
    problems = load_problems(get_recipe("grpo-code", "cpu"))
    # The last three call what stands before their function.
    chosen = {"HumanEval/0", "HumanEval/22", "HumanEval/10", "HumanEval/32", "HumanEval/38"}
    asked = [p for p in (*problems.train, *problems.held_out) if p.id in chosen]
    said = {"right": [], "wrong": []}
    for problem in asked:
        row, tests = ROWS[problem.id], json.loads(problem.tests)
        function = row["prompt"].removeprefix(tests["setup"])
        said["right"].append(f"```python\n{function}{row['canonical_solution']}\n```")
        said["wrong"].append(f"```python\n{function}    pass\n```")
    tests = [problem.tests for problem in asked]
    for side, reward in (("right", 1.0), ("wrong", 0.0)):
        completions = [[{"role": "assistant", "content": text}] for text in said[side]]
        assert UnitTestReward()([None] * 5, completions, tests=tests) == [reward] * 5
