"""What notebooks show of trials, from made-up ones."""

import pytest
from test_verdicts import trial

from intuitor_lib.paper.trials import Trial
from intuitor_lib.paper.views import (
    completions_table,
    contrasts,
    curves,
    describe,
    forms_table,
    gains_table,
    kept_without_labels,
    levels,
    levels_over_steps,
    token_examples,
    update_table,
)
from intuitor_lib.recipe.recipes import get_recipe


def over_steps(label, right, **settings):
    """A policy with snapshots: `right` by step, None for the result."""
    first = trial(label, 0, **settings)
    tables = {
        ("in_domain", step): trial(label, n, **settings).rows("in_domain")
        for step, n in right.items()
    }
    where = {"device_name": "CPU" if settings.get("seed", 7) == 7 else "a card"}
    training = {"metrics": [], "rows": [], "seconds": 60.0, "environment": where}
    training = None if label == "base" else training
    return Trial(first.arm, label, "cpu", first.recipe, training, tables, {}, True)


@pytest.fixture
def trials():
    return {
        "base": [over_steps("base", {None: 40, 0: 40})],
        "INTUITOR": [
            over_steps("INTUITOR", {8: 60, None: 50}, seed=7),
            over_steps("INTUITOR", {8: 80, None: 70}, seed=8),
        ],
    }


def test_a_table_says_which_trainings_these_are(trials):
    rows = {row[0]: row[1:] for row in describe(trials).rows}
    assert rows["base"][:3] == ["-", "-", "-"]
    assert rows["INTUITOR"][:3] == ["7, 8", "16", "CPU 60, a card 60"]
    assert {row[-1] for row in rows.values()} == {"read from records"}
    training = {"rows": [], "seconds": 9.0, "environment": {"device_name": "CPU"}}
    made = Trial("grpo", "GRPO", "cpu", get_recipe("grpo", "cpu"), training)
    assert describe({"GRPO": [made]}).rows[0][-1] == "made now"


def test_levels_are_those_of_tests_and_steps(trials):
    (panel,) = levels(trials, ["in_domain"], "cpu").values()
    assert {label: e.value for label, e in panel.items()} == {"base": 0.4, "INTUITOR": 0.6}
    points = levels_over_steps(trials, "in_domain", [8])
    assert {s: e.value for s, e in points["INTUITOR"].items()} == {0: 0.4, 8: 0.7, 16: 0.6}
    assert list(curves(trials)) == ["INTUITOR"]


def test_contrasts_are_to_the_base_and_to_the_coin(trials):
    panels = contrasts(trials, ["in_domain"], "cpu")
    (title,) = panels
    assert title.endswith(", less base")
    assert {label: round(e.value, 6) for label, e in panels[title].items()} == {"INTUITOR": 0.2}
    trials["random"] = [over_steps("random", {None: n}, seed=s) for s, n in ((7, 30), (8, 20))]
    to_base, to_coin = contrasts(trials, ["in_domain"], "cpu").values()
    found = {label: round(e.value, 6) for label, e in to_base.items()}
    assert found == {"INTUITOR": 0.2, "random": -0.15}
    assert {label: round(e.value, 6) for label, e in to_coin.items()} == {"INTUITOR": 0.35}


def test_gains_before_and_after_the_middle(trials):
    (row,) = gains_table(trials, "cpu", ["in_domain"], middle=8).rows
    assert row[2].startswith("0.30 [")
    assert row[3].startswith("-0.10 [")


def completion(step, text, *, problem="a", right=1.0, nats=9.0):
    return {
        "step": step,
        "problem": problem,
        "prompt": f"{problem}?",
        "completion": text,
        "accuracy": right,
        "self_certainty": nats,
    }


def test_equal_completions_of_a_group_are_counted():
    made = [completion(step, text) for step in (1, 8, 16) for text in ("4", "4", "5")]
    made += [completion(1, "9", problem="b")]
    recipe = get_recipe("intuitor", "cpu")
    trial = Trial("intuitor", "INTUITOR", "cpu", recipe, {"metrics": [], "rows": made})
    rows = completions_table({"INTUITOR": [trial]}).rows
    assert [row[1] for row in rows] == ["1", "8", "16"]
    assert rows[0][2:] == ["a?", "2 × '4' (right, 9.0 nats); 1 × '5' (right, 9.0 nats)"]


@pytest.mark.parametrize(
    ("alarms", "kept"),
    [
        ({}, "step 16: 0.50"),
        ({"kl": 12}, "step 8: 0.60"),
        ({"rewards/accuracy/mean": 12}, "step 16: 0.50"),  # needs labels
        ({"kl": 4}, "the base"),
    ],
)
def test_the_monitor_keeps_what_came_before_its_first_alarm(monkeypatch, alarms, kept):
    """From a step on KL is high, or accuracy is gone."""
    before, after = {"kl": 0.0, "rewards/accuracy/mean": 0.9}, {"kl": 9.0}
    metrics = [
        {"step": s, **before, **{k: after.get(k, 0.0) for k, at in alarms.items() if s >= at}}
        for s in range(1, 17)
    ]
    monkeypatch.setattr(Trial, "metrics", metrics)
    several = [over_steps("INTUITOR", {8: 60, None: 50})]
    (row,) = kept_without_labels({"INTUITOR": several}, "in_domain", [8]).rows
    assert row[3].startswith(kept)
    assert row[4].startswith("step 16: 0.50")
    assert row[5].startswith("step 8: 0.60")


def test_the_form_of_an_answer_is_tabulated():
    rows = [
        {"id": i, "completion": text, "correct": True, "tokens": 9}
        for i, text in enumerate(["First add three and four: \\boxed{7}", "7"])
    ]
    recipe = get_recipe("intuitor-reasoning", "cpu")
    tables = {("reasoning_sampled", None): rows}
    made = Trial("intuitor-reasoning", "x", "cpu", recipe, {"rows": []}, tables)
    (row,) = forms_table({"x": [made]}, "cpu", "reasoning_sampled").rows
    assert row[:2] == ["x", "16"]
    assert row[2].startswith("0.50 [")  # one of two has a box
    assert row[3].startswith("2.50 [")  # five words and none


def test_an_update_is_shown_surest_first():
    rows = [
        {**completion(1, "4", nats=8.0), "token_self_certainty": [8.0], "advantage": -0.7,
         "log_prob": -1.0, "log_prob_after": -1.2},
        {**completion(1, "5", right=0.0, nats=9.0), "token_self_certainty": [9.5, 8.5],
         "advantage": 0.7, "log_prob": -2.0, "log_prob_after": -1.5},
    ]  # fmt: skip
    shown = update_table({"rows": rows}).rows
    assert shown[0] == ["'5'", "wrong", "9.5 8.5", "9.00", "+0.70", "-2.00", "-1.50", "+0.50"]
    assert shown[1][-1] == "-0.20"


def test_examples_name_their_policy_and_whether_they_are_right():
    one = {"correct": False, "prompt": "3?", "text": ["4"], "self_certainty": [1.0]}
    found = token_examples({"tokens": {"base → base": [one] * 3}}, ["base → base"])
    assert found == [("base, wrong: 3?", ["4"], [1.0])] * 2
