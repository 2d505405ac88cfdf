"""Reading completions blind."""

import itertools
from types import SimpleNamespace

import pytest

from intuitor_lib.lab import display, read_blind
from intuitor_lib.recipe import InputError


def evaluation(name, texts):
    rows = [
        {"id": i, "sample": sample, "prompt": f"ask {i}", "completion": f"{text}{sample}"}
        for i, text in enumerate(texts)
        for sample in range(2)
    ]
    return SimpleNamespace(rows=rows, id=name)


BEFORE = evaluation("before", ["same", *(f"old{i}" for i in range(9))])
AFTER = evaluation("after", ["same", *(f"new{i}" for i in range(9))])


def test_equal_texts_are_left_out_and_sides_are_mixed(shown):
    reading = read_blind(BEFORE, AFTER, n=50)
    assert len(reading.pairs) == 9
    assert {prompt for prompt, _, _ in reading.pairs} == {f"ask {i}" for i in range(1, 10)}
    assert set(reading.swapped) == {True, False}
    static, widget = shown[0]
    assert widget is None
    assert static.count("<details>") == 1
    key = static.partition("<details>")[2]
    for i, (_, before, after) in enumerate(reading.pairs):
        left, right = (after, before) if reading.swapped[i] else (before, after)
        assert static.index(left) < static.index(right)
        assert f"{i + 1} {'left' if reading.swapped[i] else 'right'}" in key


def test_judgements_are_counted_for_the_policy_not_the_side(shown, monkeypatch):
    monkeypatch.setattr(display, "person_there", lambda: True)
    seconds = itertools.count()
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    reading = read_blind(BEFORE, AFTER, n=8, seed=3)
    text, buttons = shown[0][1].children
    by_name = {button.description: button for button in buttons.children}
    for swapped in reading.swapped[:-1]:  # always for the trained policy
        by_name["left is better" if swapped else "right is better"].click()
    by_name["no difference"].click()
    assert reading.judgements == ["after"] * 7 + ["neither"]
    assert "better in 7, the base in 0, neither in 1" in text.value
    assert "p = 0.016" in text.value
    assert "1 more pairs are the same text" in text.value
    assert all(button.disabled for button in buttons.children)


def test_nothing_to_choose_between_is_told():
    with pytest.raises(InputError, match="no prompt with different completions"):
        read_blind(BEFORE, BEFORE)


def test_nothing_decided_is_no_result(shown):
    assert read_blind(BEFORE, AFTER).result() == "0 pairs read, none decided"
