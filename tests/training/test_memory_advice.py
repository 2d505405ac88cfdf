"""Advice, the check before a training, and the memory that is available."""

import json
import types

import pytest

from intuitor_lib.policy import load_policy
from intuitor_lib.problems import load_problems
from intuitor_lib.recipe import InputError, get_recipe
from intuitor_lib.training import memory, memory_advice
from intuitor_lib.training.memory import estimate_memory
from intuitor_lib.training.memory_advice import advice, require_memory
from intuitor_lib.training.training import train


def settings(text):
    """The settings of an advice, as a recipe's changes."""
    pairs = (part.split("=") for part in text.split())
    return {key: json.loads(value) if value[0] in "0123456789tf" else value for key, value in pairs}


def test_advice_really_fits(tiny_recipe):
    recipe = tiny_recipe.replace(max_completion_length=150, gradient_accumulation_steps=8)
    now = estimate_memory(recipe, device="cuda")
    found = advice(recipe, now.total - 1, device="cuda")
    assert found
    for text, peak in found.items():
        changed = recipe.replace(**settings(text))
        assert peak == estimate_memory(changed, device="cuda").total < now.total
        assert changed.completions_per_step == recipe.completions_per_step
    assert advice(recipe, memory.CUDA_RUNTIME, device="cuda") == {}


def test_advice_is_the_mildest_that_fits_and_harmless_first():
    recipe = get_recipe("intuitor", "gpu-12gb")
    ((text, peak),) = advice(recipe, 6 * 2**30, device="cuda").items()
    assert text == "rollout_batch_size=56"
    larger = estimate_memory(recipe.replace(rollout_batch_size=112), device="cuda")
    assert larger.total > 6 * 2**30 >= peak


def test_advice_combines_settings_where_one_is_not_enough():
    recipe = get_recipe("intuitor", "gpu-24gb")
    budget = 9 * 2**30
    estimate = estimate_memory(recipe.replace(rollout_batch_size=56), device="cuda")
    assert estimate.phase_total("rollout") <= budget < estimate.phase_total("update")
    # The largest micro-batches that fit; nothing changes the training.
    assert [*advice(recipe, budget, device="cuda")] == [
        "per_device_train_batch_size=4 gradient_accumulation_steps=56 rollout_batch_size=56"
    ]


def test_where_no_other_way_is_left_the_training_changes():
    recipe = get_recipe("intuitor", "gpu-12gb")
    budget = int(2.5 * 2**30)
    found = [settings(text) for text in advice(recipe, budget, device="cuda")]
    assert found
    for changes in found:
        assert len(changes.keys() & {"use_lora", "max_completion_length", "model"}) == 1
        assert estimate_memory(recipe.replace(**changes), device="cuda").total <= budget


def test_no_smaller_model_for_an_adapter(tiny_recipe, tmp_path):
    load_policy(tiny_recipe).model.save_pretrained(tmp_path)
    recipe = get_recipe("intuitor", "gpu-12gb", adapter=str(tmp_path))
    assert not any("model=" in text for text in advice(recipe, 2 * 10**9, device="cuda"))


def test_the_preflight_refuses(tiny_recipe, tmp_path, monkeypatch):
    assert require_memory(tiny_recipe, device="cpu") is not None
    recipe = tiny_recipe.replace(max_completion_length=150)
    needed = estimate_memory(recipe, device="cuda").total
    with pytest.raises(InputError, match=r"It fits with [a-z_]+=\d+.* GiB"):
        require_memory(recipe, device="cuda", available=needed - 1000)

    def loaded(recipe):
        raise AssertionError("the policy was loaded")

    monkeypatch.setattr("intuitor_lib.training.training.load_policy", loaded)
    monkeypatch.setattr(memory_advice, "available_memory", lambda device: 0)
    monkeypatch.setattr(memory_advice, "advice", lambda *_, **__: {})
    with pytest.raises(InputError, match=r"0.00 GiB are free on cpu.*INTUITOR_MEMORY_CHECK=0"):
        train(tiny_recipe, runs=tmp_path)
    monkeypatch.setenv(memory.SKIP, "0")
    with pytest.raises(AssertionError, match="the policy was loaded"):
        train(tiny_recipe, runs=tmp_path)


def test_memory_that_is_given_back_meanwhile_makes_no_room(tiny_recipe, monkeypatch):
    """A policy that was trained before leaves the memory when a training seems not to fit."""
    taken = [4 * 2**30, 2 * 2**30]
    real = memory.psutil.Process().memory_info()
    info = lambda _: real._replace(rss=taken.pop(0) if len(taken) > 1 else taken[0])  # noqa: E731
    monkeypatch.setattr(memory.psutil.Process, "memory_info", info)
    monkeypatch.setattr(memory_advice, "available_memory", lambda device: 0)
    monkeypatch.setattr(memory_advice, "advice", lambda *_, **__: {})
    with pytest.raises(InputError, match=r"0\.00 GiB are free"):
        require_memory(tiny_recipe, device="cpu", problems=load_problems(tiny_recipe).train)


def test_memory_in_use_is_not_counted_again(tiny_recipe):
    estimate = estimate_memory(tiny_recipe, device="cpu")
    more = estimate.total - estimate.parts["runtime"]
    assert require_memory(tiny_recipe, device="cpu", available=more + 2**20) is not None
    with pytest.raises(InputError, match=r"0\.00 GiB are free"):
        require_memory(tiny_recipe, device="cpu", available=more - 1000)


def test_processes_share_an_update(tiny_recipe):
    recipe = tiny_recipe.replace(max_completion_length=150)
    one = estimate_memory(recipe, device="cuda").total
    shared = require_memory(recipe, device="cuda", available=one, processes=2)
    half = recipe.replace(per_device_train_batch_size=2)
    assert shared.total == estimate_memory(half, device="cuda", processes=2).total < one


def test_the_preflight_takes_the_longest_prompt_of_the_problems(tiny_recipe):
    long = tiny_recipe.replace(max_prompt_length=240)
    needed = estimate_memory(long, device="cuda").total
    short = estimate_memory(long, device="cuda", prompt_tokens=30).total
    assert short < needed
    problems = [types.SimpleNamespace(prompt="1+1=")]
    estimate = require_memory(
        long, device="cuda", available=(needed + short) // 2, problems=problems
    )
    assert estimate is not None
    assert estimate.prompt_tokens < 30


def test_what_cannot_be_estimated_passes(tiny_recipe, caplog):
    unknown = tiny_recipe.replace(model="nobody/knows-this")
    with pytest.raises(InputError, match="configuration of model='nobody/knows-this'"):
        estimate_memory(unknown, device="cpu")
    assert require_memory(unknown, device="cpu") is None
    assert "memory was not estimated" in caplog.text
