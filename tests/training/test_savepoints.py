"""The order of problems, and when a training is saved."""

from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from trl.trainer.utils import RepeatSampler

from intuitor_lib.recipe.recipe import Recipe
from intuitor_lib.training.savepoints import EpochSampler, SavePoints, StopRequest

SHAPE = {"mini_repeat_count": 2, "batch_size": 3, "repeat_count": 2}


def order(epoch, seed=7, n=10):
    return list(at_epoch(lambda: epoch, seed, n))


def at_epoch(epoch, seed=7, n=10, **settings):
    theirs = RepeatSampler(range(n), **SHAPE, seed=seed, **settings)
    return EpochSampler(theirs, 1, lambda: epoch() * (n // 3))


def test_the_first_epoch_is_trl_s():
    assert order(0) == list(RepeatSampler(range(10), **SHAPE, seed=7))


@pytest.mark.parametrize("seed", [7, None])
def test_without_a_shuffle_every_epoch_is_trl_s(seed):
    theirs = list(RepeatSampler(range(10), **SHAPE, seed=seed, shuffle=False))
    for epoch in (0, 1, 4):
        sampler = at_epoch(lambda epoch=epoch: epoch, seed, shuffle=False)
        assert list(sampler) == theirs


def test_an_epoch_s_order_depends_on_seed_and_epoch_alone():
    sampler = at_epoch(lambda: epoch)
    for epoch in (0, 1, 2, 1):
        assert list(sampler) == order(epoch)
    orders = [order(epoch, seed) for epoch in range(5) for seed in (7, 8)]
    assert len({tuple(o) for o in orders}) == 10


def test_every_epoch_has_whole_groups():
    """Runs of `mini_repeat_count` equal indices; each batch `repeat_count` times."""
    for epoch in range(4):
        found = order(epoch)
        assert found[::2] == found[1::2]
        batches = [tuple(found[i : i + 6]) for i in range(0, len(found), 6)]
        assert batches[::2] == batches[1::2]
        assert len({i for batch in batches for i in batch}) == 9  # the tenth is left over


def test_updates_of_an_epoch():
    theirs = RepeatSampler(range(10), **SHAPE, seed=7)
    for per_rollout, updates in ((1, 3), (2, 6), (Fraction(1, 3), 1), (Fraction(1, 2), 2)):
        sampler = EpochSampler(theirs, per_rollout, lambda: 0)
        assert sampler.updates == updates
        assert len(sampler) == len(theirs)


@pytest.mark.parametrize(
    ("save_steps", "iterations", "asked_at", "saved", "stopped"),
    [
        (3, 1, None, [3, 6, 9, 10], None),
        (100, 1, None, [10], None),
        (3, 2, None, [4, 8, 10], None),  # between two rollouts only
        (100, 1, 4, [4], 4),
        (100, 2, 5, [6], 6),
    ],
)
def test_when_it_is_saved(tmp_path, save_steps, iterations, asked_at, saved, stopped):
    stop = StopRequest()
    recipe = Recipe(save_steps=save_steps, num_iterations=iterations)
    points = SavePoints(recipe, tmp_path, stop)
    state, found = SimpleNamespace(global_step=0, max_steps=10), []
    points.on_train_begin(None, state, None)
    for step in range(1, 11):
        state.global_step = step
        stop.asked = asked_at is not None and step >= asked_at
        control = SimpleNamespace(should_save=False, should_training_stop=False)
        points.on_step_end(None, state, control, model=torch.nn.Linear(1, 1))
        if control.should_save:
            found.append(step)
            folder = tmp_path / f"checkpoint-{step}"
            folder.mkdir()
            (folder / "weights").write_text("w")
            points.on_save(SimpleNamespace(output_dir=tmp_path), state, control)
            assert (folder / "SHA256SUMS").is_file()
        if control.should_training_stop:
            assert step == stopped
            break
    assert found == saved
