"""A recipe that fits a card, and the verdict on prompts of one's own."""

from types import SimpleNamespace

import pytest

from intuitor_lib.lab import fit_recipe, judge_task
from intuitor_lib.recipe import InputError, Recipe, get_recipe
from intuitor_lib.training import estimate_memory


def sampled(
    right, *, answers=None, tokens=5, certainty=9.0, text="one two", clipped=False, temperature=0.9
):
    """An evaluation: for each prompt, how many of its four samples are right."""
    rows = []
    for i, count in enumerate(right):
        for sample in range(4):
            correct = None if count is None else sample < count
            answer = answers[i][sample] if answers else ("7" if correct else f"{sample}")
            row = {"id": f"p{i}", "sample": sample, "correct": correct, "answer": answer}
            row |= {"tokens": tokens, "clipped": clipped, "self_certainty": certainty}
            rows.append(row | {"completion": text, "prompt": "?"})
    spec = {
        "benchmark": {"name": "mine", "items": len(right)},
        "decoding": {"num_samples": 4, "temperature": temperature, "_batch_size": tokens},
    }
    return SimpleNamespace(rows=rows, id="e", spec=spec)


LOW, MIDDLE, HIGH = [1] * 90 + [2] * 30, [2] * 120, [3] * 90 + [4] * 30
UNKNOWN = [None] * 10


@pytest.mark.parametrize(
    ("base", "trained", "coin", "advice"),
    [
        (LOW, HIGH, LOW, "keep: a gain"),
        (LOW, HIGH, HIGH, "discard: no gain"),  # any reward does as much
        (HIGH, LOW, HIGH, "discard: a loss"),
        (MIDDLE, MIDDLE, MIDDLE, "discard: no gain"),
        ([4] * 40, [4] * 40, [4] * 40, "undecided: right answers are too near 0 or 1"),
        ([4] * 40, [1] * 40, [4] * 40, "discard: a loss"),  # from a ceiling
        ([2, 0, 4, 1] * 6, [4, 0, 3, 4] * 6, [1, 2, 2, 3] * 6, "undecided"),
        (LOW[:19], HIGH[:19], LOW[:19], "undecided: 0.50"),  # too few
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
    assert [cell.split()[0] for cell in row[2:4]] == ["0.62", "1.00"]


def test_a_prompt_without_a_stated_answer_has_no_agreement():
    silent = [[None] * 4, *[["4", "4", "4", "4"]] * 9]
    agreed = [["4", "4", "4", "4"]] * 10
    table, _ = judge_task(
        sampled(UNKNOWN, answers=silent),
        sampled(UNKNOWN, answers=agreed),
        sampled(UNKNOWN, answers=[[None] * 4] * 10),
    )
    titles = [row[0] for row in table.rows]
    assert not [title for title in titles if title.startswith("agreement")]  # not of all three
    table, _ = judge_task(sampled(UNKNOWN, answers=silent), *[sampled(UNKNOWN, answers=agreed)] * 2)
    row = next(row for row in table.rows if row[0].startswith("agreement"))
    assert row[1] == "10"
    assert [cell.split()[0] for cell in row[2:4]] == ["0.90", "1.00"]


def test_answers_of_some_prompts_are_counted():
    some = [1] * 25 + [None] * 15
    table, found = judge_task(sampled(some), sampled([3] * 25 + [None] * 15), sampled(some))
    assert table.rows[0][1] == "25"
    assert "25 prompts" in found


@pytest.mark.parametrize("other", [sampled(LOW[:5]), sampled(LOW, temperature=0.3)])
def test_other_prompts_and_other_sampling_are_refused(other):
    with pytest.raises(InputError, match="same prompts, sampled in the same way"):
        judge_task(sampled(LOW), other, sampled(LOW))


def test_a_recipe_is_lowered_until_it_fits_and_says_why():
    wanted = get_recipe("intuitor", "gpu-24gb", dataset="mine.jsonl")
    same, table = fit_recipe(wanted, 80)
    assert same == wanted
    assert table.caption.endswith("Changed: nothing")
    fitted, table = fit_recipe(wanted, 12)
    assert estimate_memory(fitted, device="cuda").total <= 12 * 2**30
    assert fitted.completions_per_step == wanted.completions_per_step
    changed = [row for row in table.rows if "changed so that it fits" in row[3]]
    assert changed
    for key, value, meaning, why in changed:
        assert meaning == Recipe.meaning(key)
        assert str(getattr(fitted, key)) == value
        assert f"was {getattr(wanted, key)}" in why


@pytest.mark.parametrize(("gpu_gb", "told"), [(3, "It fits with: .*model="), (0.5, "no known")])
def test_another_model_or_length_is_advised_and_not_taken(gpu_gb, told):
    with pytest.raises(InputError, match=told):
        fit_recipe(get_recipe("intuitor", "gpu-24gb", dataset="mine.jsonl"), gpu_gb)
