"""Advice, the check before a training, and the memory that is available."""

import types

import pytest

from intuitor_lib.policy import load_policy
from intuitor_lib.recipe import InputError, get_recipe
from intuitor_lib.training import memory, memory_advice
from intuitor_lib.training.memory import estimate_memory
from intuitor_lib.training.memory_advice import advice, available_memory, require_memory
from intuitor_lib.training.training import train


def test_advice_really_fits(tiny_recipe):
    recipe = tiny_recipe.replace(max_completion_length=150, gradient_accumulation_steps=8)
    now = estimate_memory(recipe, device="cuda")
    assert advice(recipe, now.total, device="cuda") == []
    for budget in (now.total - 1, memory.CUDA_RUNTIME + 10**6):
        found = advice(recipe, budget, device="cuda")
        assert found
        for one in found:
            changed = recipe.replace(**one.changes)
            total = estimate_memory(changed, device="cuda").total
            assert (one.total, one.saves) == (total, now.total - total)
            assert one.fits == (total <= budget)
            assert one.saves > 0
            if "per_device_train_batch_size" in one.changes:
                assert changed.completions_per_step == recipe.completions_per_step
    assert any(one.fits for one in advice(recipe, now.total - 1, device="cuda"))


def test_advice_is_the_mildest_that_fits_and_harmless_first():
    recipe = get_recipe("intuitor", "gpu-12gb")
    found = advice(recipe, 6 * 2**30, device="cuda")
    assert [*found[0].changes.items()] == [("rollout_batch_size", 56)]
    assert [next(iter(one.changes)) for one in found[1:]] == ["max_completion_length", "model"]
    assert (
        estimate_memory(recipe.replace(rollout_batch_size=112), device="cuda").total
        > 6 * 2**30
        >= found[0].total
    )
    assert str(found[0]).startswith("rollout_batch_size=56: ")
    assert str(found[0]).endswith("less (fits)")


def test_advice_combines_settings_where_one_is_not_enough():
    recipe = get_recipe("intuitor", "gpu-24gb")
    budget = 9 * 2**30
    found = advice(recipe, budget, device="cuda")
    alone = recipe.replace(rollout_batch_size=56)
    assert found[0].changes == {"rollout_batch_size": 56}
    estimate = estimate_memory(alone, device="cuda")
    assert estimate.phase_total("rollout") <= budget < estimate.phase_total("update")
    # The largest micro-batches that fit; nothing changes the training.
    assert found[-1].changes == {
        "rollout_batch_size": 56,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 56,
    }
    assert [one.fits for one in (found[0], found[-1])] == [False, True]


def test_no_smaller_model_for_an_adapter(tiny_recipe, tmp_path):
    load_policy(tiny_recipe).model.save_pretrained(tmp_path)
    recipe = get_recipe("intuitor", "gpu-12gb", adapter=str(tmp_path))
    assert not any("model" in one.changes for one in advice(recipe, 10**9, device="cuda"))


def test_the_preflight_refuses(tiny_recipe, tmp_path, monkeypatch):
    assert require_memory(tiny_recipe, device="cpu") is not None
    recipe = tiny_recipe.replace(max_completion_length=150)
    needed = estimate_memory(recipe, device="cuda").total
    with pytest.raises(InputError, match=r"Lower one of: .*max_completion_length=.*fits"):
        require_memory(recipe, device="cuda", available=needed - 1000)

    def loaded(recipe):
        raise AssertionError("the policy was loaded")

    monkeypatch.setattr("intuitor_lib.training.training.load_policy", loaded)
    monkeypatch.setattr(memory_advice, "available_memory", lambda device: 0)
    monkeypatch.setattr(memory_advice, "advice", lambda *_, **__: [])
    with pytest.raises(InputError, match=r"0.00 GiB are free on cpu.*INTUITOR_MEMORY_CHECK=0"):
        train(tiny_recipe, runs=tmp_path)
    monkeypatch.setenv(memory.SKIP, "0")
    with pytest.raises(AssertionError, match="the policy was loaded"):
        train(tiny_recipe, runs=tmp_path)


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
    assert shared.total == estimate_memory(half, device="cuda").total < one


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


@pytest.mark.parametrize(
    ("line", "top", "names"),
    [
        ("0::/a/b", "", ("memory.max", "memory.current", "inactive_file", "max")),
        (
            "5:cpu,cpuacct:/x\n4:hugetlb,memory:/a/b",
            "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", str(2**63)),
        ),
    ],
)
def test_memory_that_is_available(tmp_path, line, top, names):
    assert 0 < available_memory("cpu") < 2**50
    groups = tmp_path / "cgroup"
    groups.write_text(line + "\n")
    limit, used, pages, none = names
    inner = tmp_path / top / "a" / "b"
    inner.mkdir(parents=True)
    for folder, size in ((inner, none), (inner.parent, str(3 * 2**20))):
        (folder / limit).write_text(size)
        (folder / used).write_text(str(2**20))
        (folder / "memory.stat").write_text(f"anon 5\n{pages} 1024\n")
    assert min(memory_advice._cgroup_room(groups, tmp_path)) == 2 * 2**20 + 1024
    assert [*memory_advice._cgroup_room(tmp_path / "none", tmp_path)] == []


def test_in_a_container_the_limit_is_at_the_top(tmp_path):
    groups = tmp_path / "cgroup"
    groups.write_text("0::/of/the/host\n")
    for name, text in {"max": "5000", "current": "1000", "stat": "inactive_file 10\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert [*memory_advice._cgroup_room(groups, tmp_path)] == [4010]
