"""Sampling a prompt from a policy and its base."""

import pytest

from intuitor_lib.lab import display, playground
from intuitor_lib.recipe import InputError
from intuitor_lib.training import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def run(tiny_recipe, store):
    return train(tiny_recipe, runs=store)


def test_both_policies_are_sampled_in_batch(run, store, shown):
    playground(run, "2+3=", num_samples=3, runs=store)
    ((text, _),) = shown
    assert text.count("<tr>") == 2 * (1 + 3)
    assert text.index("untrained") < text.index(run.id)
    playground(run, "2+3=", num_samples=3, base=False, seed=1, runs=store)
    assert shown[1][0].count("<tr>") == 1 + 3


def refuse(*_, **__):
    raise ValueError("a prompt too long")


def test_the_button_samples_what_is_typed(run, store, shown, monkeypatch):
    monkeypatch.setattr(display, "person_there", lambda: True)
    playground(run.id, num_samples=2, runs=store)
    asked, button, samples = shown[0][1].children
    button.click()
    assert "Type a problem" in samples.value
    asked.value = "1+1="
    button.click()
    first = samples.value
    assert first.count("<tr>") == 2 * (1 + 2)
    assert not button.disabled
    button.click()
    assert samples.value != first
    monkeypatch.setattr("intuitor_lib.training.samples.sample_problems", refuse)
    button.click()
    assert "ValueError: a prompt too long" in samples.value
    assert not button.disabled


def test_a_batch_needs_a_prompt(run, store):
    with pytest.raises(InputError, match="nobody can type"):
        playground(run, runs=store)
