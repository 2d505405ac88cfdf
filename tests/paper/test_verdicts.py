"""Verdicts by the rules of docs/protocol.md, from made-up trials."""

import dataclasses

import pytest

from intuitor_lib.paper.comparison import in_short
from intuitor_lib.paper.numbers import CLAIMS
from intuitor_lib.paper.plan import ARMS, SUITES
from intuitor_lib.paper.trials import Trial
from intuitor_lib.paper.verdicts import (
    QUESTIONS,
    answers_table,
    ask,
    change,
    conclude,
    estimate,
    question_text,
    rows_of,
)
from intuitor_lib.recipe.recipes import get_recipe

TESTS = ("in_domain", "in_domain_sampled")


def trial(label, right, *, seed=7, profile="cpu", test="in_domain", step=None):
    """A policy that is right on the first `right` of 100 problems."""
    arm = next(arm for arm, name in ARMS.items() if name == label)
    rows = [
        {"id": i, "sample": 0, "correct": i < right, "answer": str(i < right), "tokens": 4}
        for i in range(100)
    ]
    done = None if label.startswith("base") else {"metrics": [], "rows": []}
    recipe = get_recipe("intuitor", profile, seed=seed)
    return Trial(arm, label, profile, recipe, done, {(test, step): rows})


def trials(profile="cpu", **right):
    names = {"pv": "GRPO-PV", "grpo": "GRPO", "intuitor": "INTUITOR"}
    return {
        names.get(key, key): [trial(names.get(key, key), n, profile=profile)]
        for key, n in right.items()
    }


@pytest.mark.parametrize(
    ("base", "coin", "arm", "verdict"),
    [
        (40, 42, 70, "gain"),
        (60, 58, 30, "loss"),
        (60, 20, 30, "no gain"),  # the setting hurts, whatever is rewarded
        (40, 75, 70, "no gain"),  # any reward does as much
        (40, 41, 40, "no gain"),
        (40, 38, 42, "undecided"),
        (2, 3, 60, "withheld"),
        (97, 97, 99, "withheld"),
        (90, 97, 99, "withheld"),  # both sides of a difference are above the ceiling
    ],
)
def test_a_gain_is_one_over_the_base_and_the_random_reward(base, coin, arm, verdict):
    (answer,) = ask(["gain"], trials(base=base, random=coin, intuitor=arm), "cpu")
    assert answer["verdict"] == verdict
    assert answer["decoding"] == "greedy"  # nothing was sampled
    assert answer["levels"]["INTUITOR"]["value"] == arm / 100
    assert answer["differences"]["random"]["value"] == pytest.approx((arm - coin) / 100)


@pytest.mark.parametrize(
    ("grpo", "arm", "verdict"),
    [
        (80, 95, "yes"),
        (80, 78, "yes"),
        (80, 45, "no"),
        (80, 68, "undecided"),
        (41, 70, "undecided"),
    ],
)
def test_close_is_a_share_of_the_gain_and_more_is_a_yes(grpo, arm, verdict):
    (answer,) = ask(["close"], trials(base=40, grpo=grpo, intuitor=arm), "cpu")
    assert answer["verdict"] == verdict


def test_a_difference_has_a_direction():
    made = trials(base=40, random=20)
    assert [a["verdict"] for a in ask(["coin"], made, "cpu")] == ["lower"]
    made = trials(base=40, random=41)
    assert [a["verdict"] for a in ask(["coin"], made, "cpu")] == ["undecided"]


def test_two_steps_are_no_result():
    (answer,) = ask(["gain"], trials("smoke", base=40, random=40, intuitor=90), "smoke")
    assert answer["verdict"] == "not tested here"
    assert "two steps" in answer["reason"]


def test_what_was_not_collected_is_not_answered():
    assert ask(["gain"], trials(base=40, intuitor=60), "cpu") == []  # without its control
    with pytest.raises(KeyError, match="speed"):
        ask(["speed"], trials(base=40), "cpu")


def test_a_question_that_trials_cannot_answer_names_what_does():
    with pytest.raises(ValueError, match="separation_answer"):
        ask(["separates"], trials(base=40, intuitor=50), "cpu")


def test_trainings_are_paired_by_seed():
    before = [trial("GRPO", 40, seed=7), trial("GRPO", 90, seed=8)]
    after = [trial("INTUITOR", 60, seed=7)]
    assert change(before, after, "in_domain").value == pytest.approx(0.2)
    with pytest.raises(ValueError, match="share none"):
        change(before, [trial("INTUITOR", 60, seed=9)], "in_domain")


def test_a_snapshot_is_compared_with_the_base_at_its_start():
    made = {
        "base": [trial("base", 40, step=0)],
        "GRPO": [trial("GRPO", 40, step=4)],
        "INTUITOR": [trial("INTUITOR", 70, step=4)],
    }
    (answer,) = ask(["early"], made, "cpu", step=4)
    assert (answer["verdict"], answer["step"]) == ("higher", 4)
    assert ask(["early"], made, "cpu") == []


def test_several_samples_give_a_vote_and_what_is_solvable():
    rows = [
        {"id": i, "sample": s, "answer": answer, "correct": answer == "1"}
        for i, answers in enumerate((["1", "1", "2"], ["1", "2", "2"], [None, None, "1"], [None]))
        for s, answer in enumerate(answers)
    ]
    recipe = get_recipe("intuitor", "cpu")
    base = [Trial("base", "base", "cpu", recipe, None, {("in_domain_sampled", None): rows})]
    assert estimate(base, "in_domain_sampled:any").value == 0.75
    assert estimate(base, "in_domain_sampled:vote").value == 0.5
    with pytest.raises(ValueError, match="'any' or 'vote'"):
        estimate(base, "in_domain_sampled:best")


def test_questions_name_what_there_is():
    claims = {claim.id for claim in CLAIMS}
    for question in QUESTIONS.values():
        assert {question.arm, question.other} <= {*ARMS.values()}
        assert question.claim is None or question.claim in claims
        for test in (*question.tests.values(), *question.other_tests.values()):
            assert test.partition(":")[0] in SUITES["cpu"]


@pytest.mark.parametrize(
    ("profile", "title"), [("cpu", "three-digit sums"), ("gpu-12gb", "LiveCodeBench v6")]
)
def test_an_answer_names_the_test_of_its_profile(profile, title):
    arms = {
        label: [trial(label, n, profile=profile, test="transfer")]
        for label, n in {
            "base": 40,
            "random": 42,
            "INTUITOR": 70,
            "β = 0": 50,
            "β = 0.005": 50,
        }.items()
    }
    said, changed = ask(["sums", "kl-0"], arms, profile)
    assert f"Does it help with another task, {title}?" in str(answers_table([said]))
    assert changed["decoding"] == f"{title}, greedy"
    for question in QUESTIONS.values():
        names = {*question.tests.values(), *question.other_tests.values()}
        if {name.partition(":")[0] for name in names} <= {*SUITES[profile]}:
            assert "{" not in question_text({"question": question.id, "profile": profile})


def test_a_question_can_be_asked_of_other_tests():
    found = trials(base=40, random=20, intuitor=70)
    renamed = {
        label: [
            dataclasses.replace(t, tables={("own", None): t.rows("in_domain")}) for t in several
        ]
        for label, several in found.items()
    }
    answers = ask(["gain", "coin"], renamed, "cpu", tests={"dates, greedy": "own"})
    assert [(a["question"], a["decoding"], a["verdict"]) for a in answers] == [
        ("gain", "dates, greedy", "gain"),
        ("coin", "dates, greedy", "lower"),
    ]
    assert ask(["gain"], renamed, "cpu") == []


def test_the_words_follow_from_the_numbers():
    answers = ask(["gain", "coin"], trials(base=40, random=20, intuitor=70), "cpu")
    text = conclude(answers)
    assert text.splitlines()[0].startswith("- Does self-certainty alone raise held-out accuracy?")
    assert "greedy **gain** (INTUITOR 0.70, +0.30 [" in text
    assert "greedy **lower** (random 0.20, -0.20 [" in text
    table = answers_table(answers)
    assert [row[-1] for row in table.rows] == ["gain", "lower"]
    assert "Qwen2.5-Coder-0.5B-Instruct (NF4 + LoRA)" in table.caption
    assert table.rows[0][4] == "100 / 1"


def test_a_difference_between_devices_is_marked():
    """One side was trained or tested on a GPU, the other on a CPU; a base is tested only."""

    def on(device, label, right):
        one, where = trial(label, right), {"device": device}
        done = one.training and one.training | {"environment": where}
        return [dataclasses.replace(one, training=done, environments={("in_domain", None): where})]

    made = {"base": on("cpu", "base", 40), "random": on("cpu", "random", 41)}
    made["INTUITOR"] = on("cuda:0", "INTUITOR", 70)
    (answer,) = ask(["gain"], made, "cpu")
    assert answer["elsewhere"] == ["base", "random"]
    text = conclude([answer])
    assert "(other device) to random" in text
    assert "(other device): one side was trained or tested" in answers_table([answer]).caption
    made |= {"random": on("cuda:1", "random", 41), "base": on("cuda:0", "base", 40)}
    (answer,) = ask(["gain"], made, "cpu")
    assert answer["elsewhere"] == []
    assert "other device" not in answers_table([answer]).caption


def test_levels_and_differences_are_of_the_same_seeds_and_problems():
    arm = [trial("mixed", 65, seed=s) for s in (7, 8)]
    other = [trial("online", right, seed=s) for s, right in ((9, 90), (8, 60), (7, 60))]
    (answer,) = ask(["mixed"], {"base": [trial("base", 40)], "mixed": arm, "online": other}, "cpu")
    assert answer["seeds"] == [7, 8]
    assert answer["levels"]["online"]["value"] == pytest.approx(0.6)
    assert answer["differences"]["online"]["value"] == pytest.approx(0.05)


def test_a_vote_counts_equal_answers_not_equal_texts():
    answers = {"0.5": True, "1/2": True, "\\frac{1}{2}": True, "3": False, " 3": False}
    rows = [{"id": "a", "answer": a, "correct": c} for a, c in answers.items()]
    base = dataclasses.replace(trial("base", 40), tables={("in_domain_sampled", None): rows})
    assert rows_of(base, "in_domain_sampled:vote") == [{"id": "a", "correct": True}]


@pytest.mark.parametrize(
    ("base", "coin", "arm", "shown"),
    [(40, 50, 70, "to random"), (50, 40, 70, "to base"), (50, 60, 30, "to base")],
)
def test_in_short_the_difference_that_decides_is_shown(base, coin, arm, shown):
    (answer,) = ask(["gain"], trials(base=base, random=coin, intuitor=arm), "cpu")
    assert in_short(answer).endswith(shown)


@pytest.mark.parametrize(
    ("verdict", "base", "random", "shown"),
    [
        ("gain", (0.10, 0.01), (0.05, 0.03), "base"),
        ("undecided", (0.03, 0.01), (0.04, -0.01), "random"),
        ("no gain", (-0.01, -0.10), (0.00, -0.02), "random"),
        ("loss", (-0.10, -0.19), (-0.05, -0.06), "base"),
    ],
)
def test_in_short_the_end_of_an_interval_decides(verdict, base, random, shown):
    gaps = {
        label: {"value": v, "low": low, "high": 2 * v - low, "n": 100, "samples": 100}
        for label, (v, low) in {"base": base, "random": random}.items()
    }
    entry = {"question": "gain", "decoding": "greedy", "verdict": verdict, "differences": gaps}
    assert in_short(entry).endswith(f" to {shown}")


def test_tests_of_parts_of_a_benchmark_are_compared_where_they_overlap():
    """A vote of some samples on few problems, beside one answer on more of them."""

    def parts(sampled):
        base = trial("base", 40)
        few = [{**row, "sample": k} for row in base.rows("in_domain")[sampled] for k in range(2)]
        tables = {**base.tables, ("in_domain_sampled", None): few}
        other = Trial(base.arm, base.label, "cpu", base.recipe, None, tables)
        return {"base": [other], "INTUITOR": [trial("INTUITOR", 60)]}

    (found,) = ask(["voting"], parts(slice(30, 80)), "cpu")
    assert found["n"] == 50
    assert found["differences"]["base"]["value"] == pytest.approx(20 / 50)
    assert ask(["voting"], parts(slice(0, 0)), "cpu") == []
