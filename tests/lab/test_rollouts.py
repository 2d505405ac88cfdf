"""The rollout browser on recorded rows."""

import pytest

from intuitor_lib.lab import browse_rollouts
from intuitor_lib.lab.rollouts import _Rollouts
from intuitor_lib.recipe import InputError


def row(step, problem, completion, accuracy=0.0, certainty=9.0):
    return {
        "step": step,
        "problem": problem,
        "prompt": f"What is {problem}?",
        "completion": completion,
        "tokens": 1,
        "self_certainty": certainty,
        "accuracy": accuracy,
    }


ROWS = [
    *(row(1, "1+1", text) for text in ("3", "3", "2")),
    *(row(1, "2+2", text) for text in ("4", "5", "6")),
    *(row(4, "1+1", text, 1.0, 12.0) for text in ("2", "2", "2")),
]


def test_in_batch_the_last_step_is_shown_without_widgets(shown):
    browse_rollouts(ROWS)
    ((static, widget),) = shown
    assert widget is None
    assert "step 4, problem 1+1" in static


def test_what_became_of_a_problem_stands_below_its_group(shown):
    browse_rollouts(ROWS, step=1, problem="1+1")
    below = shown[0][0].partition("every step that sampled it")[2]
    assert "1 (shown)" in below
    assert "0 of 3" in below
    assert "2 × " in below
    assert "3 of 3" in below
    assert "12.00" in below


def test_a_problem_sampled_once_says_so(shown):
    browse_rollouts(ROWS, step=1, problem="2+2")
    assert "No other step sampled this problem" in shown[0][0]


@pytest.mark.parametrize(
    ("step", "problem", "told"),
    [
        (2, None, "step=2: completions are recorded of steps 1 to 4"),
        (4, "2+2", r"'2\+2' is not of step 4: it was sampled at steps \[1\]"),
        (4, "9", "no step sampled it"),
    ],
)
def test_an_unknown_step_or_problem_is_refused(step, problem, told):
    with pytest.raises(InputError, match=told):
        browse_rollouts(ROWS, step=step, problem=problem)


def test_nothing_to_show_is_said():
    with pytest.raises(InputError, match="first step"):
        browse_rollouts([])


def test_the_widgets_move_between_steps_and_problems():
    box = _Rollouts(ROWS, None).widget(1, "2+2")
    (steps, problems), text = box.children[0].children, box.children[1]
    assert "problem 2+2" in text.value
    problems.value = "1+1"
    assert "step 1, problem 1+1" in text.value
    steps.value = 4
    assert problems.options == ("1+1",)
    assert "step 4, problem 1+1" in text.value
    steps.value = 1
    assert problems.options == ("1+1", "2+2")
    assert "step 1, problem 1+1" in text.value


@pytest.mark.slow
def test_a_run_is_shown_with_its_advantages_and_coloured_tokens(tiny_recipe, tmp_path, shown):
    from intuitor_lib.training import train

    run = train(tiny_recipe, runs=tmp_path)
    browse_rollouts(run.id, step=1, runs=tmp_path)
    text = shown[0][0]
    assert "nats</small>" in text
    first = [r for r in run.completions if r["step"] == 1][:2]
    for made in first:
        assert f"{made['advantage']:+.2f}" in text
    assert sum(made["advantage"] for made in first) == pytest.approx(0, abs=1e-3)
