"""A recipe that fits a card, and the verdict on prompts of one's own."""

from types import SimpleNamespace

import pytest

from intuitor_lib.lab import fit_recipe, judge_task
from intuitor_lib.recipe import InputError, get_recipe
from intuitor_lib.training import estimate_memory


def sampled(right, *, answers=None, tokens=5, certainty=9.0, text="one two", clipped=False):
    """An evaluation: for each prompt, how many of its four samples are right."""
    rows = []
    for i, count in enumerate(right):
        for sample in range(4):
            correct = None if count is None else sample < count
            answer = answers[i][sample] if answers else ("7" if correct else f"{sample}")
            row = {"id": f"p{i}", "sample": sample, "correct": correct, "answer": answer}
            row |= {"tokens": tokens, "clipped": clipped, "self_certainty": certainty}
            rows.append(row | {"completion": text, "prompt": "?"})
    return SimpleNamespace(rows=rows, id="e")


LOW, MIDDLE, HIGH = [1] * 90 + [2] * 30, [2] * 120, [3] * 90 + [4] * 30
UNKNOWN = [None] * 10


@pytest.mark.parametrize(
    ("base", "trained", "coin", "advice"),
    [
        (LOW, HIGH, LOW, "keep: a gain"),
        (LOW, HIGH, HIGH, "discard: no gain"),  # any reward does as much
        (HIGH, LOW, HIGH, "discard: a loss"),
        (MIDDLE, MIDDLE, MIDDLE, "discard: no gain"),
        ([4] * 40, [4] * 40, [4] * 40, "undecided: the base is at 1.00"),
        ([2, 0, 4, 1], [4, 0, 3, 4], [1, 2, 2, 3], "undecided"),
    ],
)
def test_with_answers_the_protocol_decides(base, trained, coin, advice):
    table, found = judge_task(sampled(base), sampled(trained), sampled(coin))
    assert found.startswith(advice)
    assert table.rows[0][0].startswith("right answers")


def test_differences_are_paired_by_prompt():
    table, _ = judge_task(sampled(LOW), sampled(HIGH), sampled(LOW))
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert row["base"].startswith("0.31")
    assert row["trained"].startswith("0.81")
    assert row["trained - base"] == row["trained - random"]
    assert row["trained - base"].startswith("0.50")


def test_without_answers_nothing_is_called_a_gain():
    table, found = judge_task(sampled(UNKNOWN), sampled(UNKNOWN, certainty=12.0), sampled(UNKNOWN))
    assert found.startswith("undecided: no sign of harm, self-certainty 3.00")
    assert "blind" in found
    assert not [row for row in table.rows if row[0].startswith("right")]


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ({"text": "a b c d " * 20}, "repeated 4-grams"),
        ({"clipped": True}, "cut off"),
        ({"tokens": 1}, "shrank from 5.0 to 1.0 tokens"),
    ],
)
def test_without_answers_harm_is_found(harm, told):
    _, found = judge_task(sampled(UNKNOWN), sampled(UNKNOWN, **harm), sampled(UNKNOWN))
    assert found.startswith("discard")
    assert told in found


def test_agreement_is_the_share_of_the_most_frequent_answer():
    split = [["1", "2", "2", "2"]] * 5 + [["1", "1", "2", "3"]] * 5
    agreed = [["4", "4", "4", "4"]] * 10
    table, _ = judge_task(
        sampled(UNKNOWN, answers=split), sampled(UNKNOWN, answers=agreed), sampled(UNKNOWN)
    )
    row = next(row for row in table.rows if row[0].startswith("agreement"))
    assert [cell.split()[0] for cell in row[1:3]] == ["0.62", "1.00"]


def test_other_prompts_are_refused():
    with pytest.raises(InputError, match="same prompts"):
        judge_task(sampled(LOW), sampled(LOW[:5]), sampled(LOW))


def test_a_recipe_is_lowered_until_it_fits_and_says_why():
    wanted = get_recipe("intuitor", "gpu-24gb", dataset="mine.jsonl")
    same, table = fit_recipe(wanted, 80)
    assert same == wanted
    assert table.caption.endswith("Changed: -")
    fitted, table = fit_recipe(wanted, 12)
    assert estimate_memory(fitted, device="cuda").total <= 12 * 2**30
    assert fitted.completions_per_step == wanted.completions_per_step
    changed = [row for row in table.rows if "changed so that it fits" in row[2]]
    assert changed
    for key, value, why in changed:
        assert str(getattr(fitted, key)) == value
        assert f"was {getattr(wanted, key)}" in why


def test_what_fits_nowhere_is_refused():
    with pytest.raises(InputError, match="needs"):
        fit_recipe(get_recipe("intuitor", "gpu-24gb", dataset="mine.jsonl"), 0.5)
