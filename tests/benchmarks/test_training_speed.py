"""The benchmark measures what it says, at a size where the figures themselves mean nothing."""

import json

import pytest
import training_speed
from scoring_memory import scoring_peak
from training_speed import Figure, measure_speed, write_figures

from intuitor_lib.recipe.constants import InputError

pytestmark = pytest.mark.slow


@pytest.fixture
def small(tiny_recipe, monkeypatch):
    """Every measure on the tiny model."""

    def recipe(quantization, **changes):
        return tiny_recipe.replace(quantization=quantization, **changes)

    monkeypatch.setattr(training_speed, "_recipe", recipe)
    monkeypatch.setattr(training_speed, "_COMPLETIONS", 4)
    monkeypatch.setattr(training_speed, "_MICRO_BATCHES", (2, 4))
    monkeypatch.setattr(training_speed, "_LENGTHS", (4, 8))


def test_a_goal_is_met_or_not():
    assert training_speed._figure("x", 2.5, ">= 2.5").met
    assert not training_speed._figure("x", 2.4, ">= 2.5").met
    assert training_speed._figure("x", 1.0, "<= 1.03").met
    assert not training_speed._figure("x", 1.04, "<= 1.03").met


def test_unknown_measures_are_refused():
    with pytest.raises(InputError, match=r"'speed'.*choose from machine, memory"):
        measure_speed(["speed"])


def test_the_file_is_a_list_with_machine_and_versions(tmp_path):
    path = tmp_path / "figures.json"
    write_figures([Figure("a", 1.5, ">= 1", True)], path)
    first, machine, versions = json.loads(path.read_text())
    assert first == {"name": "a", "value": 1.5, "goal": ">= 1", "met": True, "detail": ""}
    assert machine["name"] == "machine"
    assert machine["value"]["fast_dtype"] in ("float32", "bfloat16")
    assert versions["value"]["trl"]


def test_a_step_beside_stock_trl(small, monkeypatch):
    steps = []
    original = training_speed.train_step

    def train_step(recipe, **kwargs):
        step = original(recipe, **kwargs)
        steps.append((kwargs["stock"], recipe.per_device_train_batch_size, step))
        return step

    monkeypatch.setattr(training_speed, "train_step", train_step)
    ratio, *shares = measure_speed(["step-nf4"], say=lambda text: None)
    assert ratio.goal == ">= 2.0"
    # Both ways at every micro-batch, then once more at the fastest.
    assert [(stock, size) for stock, size, _ in steps[:4]] == [
        *((True, 2), (True, 4)),
        *((False, 2), (False, 4)),
    ]
    best = {
        stock: min((s for s in steps[:4] if s[0] is stock), key=lambda s: s[2].seconds)
        for stock in (True, False)
    }
    last = {stock: (size, step) for stock, size, step in steps[4:]}
    assert {stock: size for stock, (size, _) in last.items()} == {k: v[1] for k, v in best.items()}
    seconds = {k: best[k][2].seconds + last[k][1].seconds for k in best}
    assert ratio.value == pytest.approx(seconds[True] / seconds[False])
    # Stock TRL pays for its reward with a forward pass; ours reads it while sampling.
    parts = {figure.name: figure.value for figure in shares}
    assert parts["share of stock TRL's step, NF4: reward"] > 0
    for name in ("stock TRL", "ours"):
        of_it = [value for key, value in parts.items() if key.startswith(f"share of {name}'s")]
        assert sum(of_it) == pytest.approx(1)


def test_completions_all_reach_the_cap_where_growth_is_measured(small):
    step = training_speed.train_step(
        training_speed._recipe("nf4", max_completion_length=8), stock=False, full_length=True
    )
    assert step.mean_length == 8
    (figure,) = measure_speed(["growth"], say=lambda text: None)
    assert figure.goal == "<= 1.15"


def test_the_accuracy_step_reads_no_self_certainty(small, monkeypatch):
    seen = []
    original = training_speed.IntuitorTrainer._generate_single_turn

    def generate(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        seen.append((self._sampled_certainty is not None, result[0]))
        return result

    monkeypatch.setattr(training_speed.IntuitorTrainer, "_generate_single_turn", generate)
    (figure,) = measure_speed(["reward"], say=lambda text: None)
    assert figure.goal == "<= 1.03"
    assert [read for read, _ in seen] == [True, False] * 3
    # The same completions, so that the ratio compares the rewards alone.
    assert seen[0][1] == seen[1][1]


def test_rollouts_count_what_was_sampled(small):
    figures = measure_speed(["rollouts"], say=lambda text: None)
    assert [figure.name for figure in figures] == [
        "rollouts, ours ÷ generate, unquantized",
        "rollouts, ours ÷ generate, NF4",
    ]
    assert all(figure.value > 0 for figure in figures)


def test_scoring_peak_is_of_the_logits():
    """4,096 tokens of a vocabulary of 20,000 are 328 MB of logits, more than two chunks."""
    logits = 4096 * 20_000 * 4
    assert scoring_peak("certainty", "full", 4096, 20_000) > 1.5 * logits
    assert scoring_peak("certainty", "ours", 4096, 20_000) < 1.5 * logits
