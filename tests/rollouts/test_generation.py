"""`generate` by either way: where memory runs out, and what it leaves out or refuses."""

import math
import weakref

import pytest
import torch
from models import lora, make_model

from intuitor_lib.certainty.head import causal_model
from intuitor_lib.policy.loading import load_model
from intuitor_lib.problems.prompts import prompt_token_ids
from intuitor_lib.recipe.constants import InputError
from intuitor_lib.rollouts import generation
from intuitor_lib.rollouts.generation import generate
from intuitor_lib.rollouts.sampling import halve_until_it_fits, sample_completions

OUT = "CUDA out of memory. Tried to allocate 1.00 GiB."
PROMPTS = [[5, 6, 7], [9, 10, 11, 12], [5, 6, 7], [8], [5, 6, 7]]


def test_half_as_many_are_sampled_where_memory_runs_out(caplog):
    llama, sizes = lora(make_model("Llama")).eval(), []

    def sample(size):
        sizes.append(size)
        made = sample_completions(llama, PROMPTS, max_new_tokens=8, batch_size=size)
        if size > 3:  # after it has drawn
            raise torch.OutOfMemoryError(OUT)
        return made

    torch.manual_seed(5)
    made = halve_until_it_fits(sample, 12)
    after = torch.rand(3)
    assert sizes == [12, 6, 3]
    assert "batch_size=6" in caplog.text
    assert "batch_size=3" in caplog.text
    # As if no more than three at a time had ever been asked for.
    torch.manual_seed(5)
    asked = sample_completions(llama, PROMPTS, max_new_tokens=8, batch_size=3)
    assert [c.ids for c in made] == [c.ids for c in asked]
    assert torch.equal(torch.rand(3), after)


@pytest.mark.parametrize(
    ("error", "tried"),
    [
        (torch.OutOfMemoryError(OUT), [5, 2, 1]),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), [5, 2, 1]),
        (RuntimeError("shapes do not match"), [5]),
        (ValueError("out of memory."), [5]),
    ],
)
def test_an_error_that_halving_does_not_mend_goes_on(error, tried):
    sizes = []

    def sample(size):
        sizes.append(size)
        raise error

    with pytest.raises(type(error), match=str(error)[:20]):
        halve_until_it_fits(sample, 5)
    assert sizes == tried


def test_a_failed_attempts_tensors_are_freed_before_the_next():
    held = weakref.WeakSet()

    def sample(size):
        assert not held
        tensor = torch.zeros(10)
        held.add(tensor)
        if size > 1:
            raise torch.OutOfMemoryError(OUT)
        return [tensor]

    assert len(halve_until_it_fits(sample, 4)) == 1


@pytest.mark.parametrize("way", ["sample_completions", "_generate"])
def test_a_batch_that_does_not_fit_is_generated_in_halves(tiny_model, way, monkeypatch):
    policy = load_model(str(tiny_model), dtype="float32")
    turns = [[{"role": "user", "content": text}] for text in ("1+1=", "20+3=", "4+4=", "7+15=")]
    prompts = prompt_token_ids(policy.tokenizer, turns)
    original, sizes = getattr(generation, way), []

    def fits_two(model, prompts, *arguments, **settings):
        size = settings.get("batch_size", len(prompts))
        sizes.append(size)
        made = original(model, prompts, *arguments, **settings)
        if size > 2:
            raise torch.OutOfMemoryError(OUT)
        return made

    if way == "_generate":
        monkeypatch.setattr(generation, "reason_against", lambda model: "none")
    settings = {"max_new_tokens": 6, "temperature": 0.0}
    asked = generate(policy, prompts, batch_size=2, **settings)
    monkeypatch.setattr(generation, way, fits_two)
    made = generate(policy, prompts, batch_size=4, **settings)
    assert sizes == ([4, 2] if way == "sample_completions" else [4, 2, 2])
    assert [c.ids for c in made] == [c.ids for c in asked]


@pytest.mark.parametrize("adapted", [False, True])
def test_penalties_of_the_models_own_do_not_count(tiny_model, adapted, monkeypatch):
    policy = load_model(str(tiny_model), dtype="float32")
    if adapted:
        policy = policy._replace(model=lora(policy.model).eval())
    prompts = prompt_token_ids(policy.tokenizer, [[{"role": "user", "content": "1+1="}]])
    monkeypatch.setattr(generation, "reason_against", lambda model: "none")
    settings = {"max_new_tokens": 12, "temperature": 0.0}
    (plain,) = generate(policy, prompts, **settings)
    config = causal_model(policy.model).generation_config
    config.repetition_penalty = 50.0
    (made,) = generate(policy, prompts, **settings)
    assert made.ids == plain.ids
    assert causal_model(policy.model).generation_config is config


@pytest.mark.parametrize("way", ["sample_completions", "_generate"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_weights_that_are_no_numbers_are_told_of(tiny_model, way, temperature, monkeypatch):
    policy = load_model(str(tiny_model), dtype="float32")
    with torch.no_grad():
        policy.model.get_input_embeddings().weight[7] = math.nan
    if way == "_generate":
        monkeypatch.setattr(generation, "reason_against", lambda model: "none")
    settings = {"max_new_tokens": 4, "temperature": temperature}
    assert generate(policy, [[5, 6]], **settings | {"max_new_tokens": 1})
    what = "model0 are NaN in 1 of 2 completions: its weights are damaged, load them anew$"
    if way == "_generate" and temperature:
        what = "probability tensor contains"  # torch's word for it
    with pytest.raises((InputError, RuntimeError), match=what):
        generate(policy, [[5, 6], [5, 7]], **settings)
