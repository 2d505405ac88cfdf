"""What tells one evaluated policy from another."""

import shutil

import pytest
import torch
from damage import flip
from models import with_own_code

from intuitor_lib.evaluation.subjects import find_subject
from intuitor_lib.policy.loading import load_model, load_policy
from intuitor_lib.recipe.constants import SMOLLM2, InputError
from intuitor_lib.store.run_store import RunStore
from intuitor_lib.store.stored import DamagedError
from intuitor_lib.training.training import train


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


def kept(subject):
    """The part of a specification that tells it apart."""
    return {key: value for key, value in subject.spec.items() if not key.startswith("_")}


def test_a_folder_is_known_by_what_it_holds(tiny_model, tmp_path, store):
    moved = tmp_path / "elsewhere"
    shutil.copytree(tiny_model, moved)
    here, there = (find_subject(str(folder), store) for folder in (tiny_model, moved))
    assert kept(here) == kept(there)
    assert str(tmp_path) not in str(kept(there))
    config = moved / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert kept(find_subject(str(moved), store)) != kept(here)


@pytest.mark.parametrize(
    "change", [{"quantization": "nf4"}, {"dtype": "float32"}, {"revision": "abc"}]
)
def test_how_a_model_is_loaded_tells_it_apart(change, tiny_model, store):
    plain = find_subject(str(tiny_model), store)
    assert kept(find_subject(str(tiny_model), store, **change)) != kept(plain)
    assert kept(find_subject(str(tiny_model), store, quantization="none")) == kept(plain)


def test_a_recipe_is_the_policy_its_training_starts_from(tiny_recipe, tiny_model, store):
    subject = find_subject(tiny_recipe, store)
    asked = find_subject(str(tiny_model), store, quantization="nf4", dtype="float32")
    assert kept(subject) == kept(asked)
    assert subject.spec["_name"].endswith("-nf4")
    ids = torch.tensor([[10, 20, 30, 40]])
    start = load_policy(tiny_recipe).model.eval()  # a fresh adapter changes nothing
    assert torch.equal(subject.load().model.eval()(ids).logits, start(ids).logits)


def test_a_run_is_evaluated_as_it_was_trained(tiny_recipe, tmp_path):
    runs = tmp_path / "runs"
    run = train(tiny_recipe, runs=runs)
    store = RunStore(runs)
    subject = find_subject(run.id, store)
    assert kept(subject) == {"run": run.id}
    assert subject.spec["_name"] == run.id
    assert kept(find_subject(run.path, store)) == kept(subject)
    assert kept(find_subject(run, store)) == kept(subject)
    assert len(subject.trained_on) == run.problems["train"]
    assert "0+0=" in subject.trained_on
    # The same weights by hand: the base in 4 bits and the adapter on it.
    model = str(tiny_recipe.model)
    by_hand = load_model(
        model, adapter=str(run.adapter), quantization="nf4", dtype="float32"
    ).model.eval()
    ids = torch.tensor([[10, 20, 30, 40]])
    trained = subject.load().model
    assert not any(parameter.requires_grad for parameter in trained.parameters())
    assert torch.equal(trained.eval()(ids).logits, by_hand(ids).logits)
    base = load_model(model, quantization="nf4", dtype="float32").model.eval()
    assert not torch.equal(base(ids).logits, by_hand(ids).logits)
    adapted = find_subject(model, store, adapter=run.adapter, quantization="nf4", dtype="float32")
    assert kept(adapted) != kept(find_subject(tiny_recipe, store))
    assert adapted.spec["_name"].endswith("-nf4+adapter")
    config = run.adapter / "adapter_config.json"
    config.write_text(config.read_text(encoding="utf-8") + " ", encoding="utf-8")
    settings = {"adapter": run.adapter, "quantization": "nf4", "dtype": "float32"}
    assert kept(find_subject(model, store, **settings)) != kept(adapted)


def test_the_step_that_a_run_was_restored_to_is_its_result(tiny_recipe, tmp_path):
    run = train(tiny_recipe.replace(snapshot_steps=1), runs=tmp_path)
    store = RunStore(tmp_path)
    assert kept(find_subject(run, store, step=2)) == {"run": run.id}
    assert kept(find_subject(run, store, step=1)) == {"run": run.id, "step": 1}
    run.set_status("finished", restored=1)
    assert kept(find_subject(run, store, step=1)) == {"run": run.id}
    assert kept(find_subject(run, store, step=2)) == {"run": run.id, "step": 2}


@pytest.mark.parametrize("whole", [False, True])
def test_a_run_of_a_model_with_code_of_its_own(whole, tiny_recipe, tiny_model, tmp_path):
    folder = with_own_code(shutil.copytree(tiny_model, tmp_path / "model"))
    changes = {"use_lora": False, "quantization": "none"} if whole else {}
    recipe = tiny_recipe.replace(model=str(folder), trust_remote_code=True, max_steps=1, **changes)
    run = train(recipe, runs=tmp_path / "runs")
    store = RunStore(tmp_path / "runs")
    for policy in (run, recipe):
        model = find_subject(policy, store).load().model
        assert type(getattr(model, "get_base_model", lambda m=model: m)()).__name__.startswith(
            "Odd"
        )
    # What is computed does not depend on it, so it identifies nothing.
    trusted = find_subject(str(folder), store, trust_remote_code=True)
    assert kept(trusted) == kept(find_subject(str(folder), store))
    assert trusted.load()
    with pytest.raises(InputError, match="trust_remote_code=true"):
        find_subject(str(folder), store).load()


def test_a_damaged_run_is_not_loaded(tiny_recipe, tmp_path):
    run = train(tiny_recipe, runs=tmp_path)
    subject = find_subject(run, RunStore(tmp_path))
    flip(run.adapter / "adapter_model.safetensors")
    with pytest.raises(DamagedError, match="adapter_model"):
        subject.load()


def test_a_loaded_policy_is_known_by_its_weights(tiny_model, store):
    policy = load_model(str(tiny_model), dtype="float32")
    before = kept(find_subject(policy, store))
    assert before == kept(find_subject(load_model(str(tiny_model), dtype="float32"), store))
    with torch.no_grad():
        next(policy.model.parameters())[0, 0] += 1
    assert kept(find_subject(policy, store)) != before
    assert find_subject(policy, store).load() is policy


def test_what_cannot_be_meant_is_refused(tiny_recipe, tiny_model, store, tmp_path):
    with pytest.raises(InputError, match="choose 'none' or 'nf4'"):
        find_subject(SMOLLM2, store, quantization="int8")
    with pytest.raises(InputError, match="only a model given by name or folder takes these"):
        find_subject(tiny_recipe, store, quantization="nf4")
    with pytest.raises(InputError, match="could not be loaded"):
        find_subject(str(tiny_model), store, adapter=tmp_path).load()
    subject = find_subject(SMOLLM2, store)
    for other in ("org/model", str(tiny_model), tiny_recipe, subject):
        with pytest.raises(InputError, match=r"step=3: only a run has steps, and .* is none of"):
            find_subject(other, store, step=3)
    with pytest.raises(InputError, match="only a model given by name or folder takes these"):
        find_subject(subject, store, dtype="float32")
    unfinished = store.open(tiny_recipe, {"fingerprint": "0"})
    with pytest.raises(InputError, match="is new, not finished"):
        find_subject(unfinished, store)
