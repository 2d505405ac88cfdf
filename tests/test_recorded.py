"""The step that a GPU records; here it runs unrecorded, on the CPU."""

import itertools

import pytest
import torch
from mock_cuda import MockCuda
from models import lora, make_model

from intuitor_lib.rollouts import recorded, sampling
from intuitor_lib.rollouts.sampling import sample_completions

PROMPTS = [[5, 6, 7], [5, 6, 7], [8, 9], [8, 9, 10, 11], [3], [12, 13, 14]]
SAME_LENGTH = [[5, 6, 7], [8, 9, 10]]


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Take the step of a GPU from here on; returns the (rows, room) of each."""
    shapes = []
    step = recorded.RecordedStep._step

    def noted(self):
        shapes.append((self.mask.shape[0], self.mask.shape[-1]))
        step(self)

    def begin():
        monkeypatch.setattr(recorded.RecordedStep, "_step", noted)
        monkeypatch.setattr(sampling, "can_record", lambda backbone: True)
        monkeypatch.setattr(sampling, "_look_every", lambda device: 8)
        return shapes

    return begin


def sample(model, prompts, **settings):
    torch.manual_seed(0)
    settings = {"max_new_tokens": 24, "eos_token_id": []} | settings
    return sample_completions(model, prompts, **settings)


def alike(ours, theirs, **tolerance):
    assert [c.ids for c in ours] == [c.ids for c in theirs]
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.self_certainty, other.self_certainty, **tolerance)
        torch.testing.assert_close(own.log_probs, other.log_probs, **tolerance)


@pytest.mark.parametrize("prompts", [PROMPTS, SAME_LENGTH])
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "GPT2", "Olmo2"])
def test_completions_are_those_of_growing_keys_and_values(family, prompts, as_on_a_gpu):
    model = make_model(family) if family == "GPT2" else lora(make_model(family))
    before = sample(model, prompts, temperature=0.9)
    shapes = as_on_a_gpu()
    alike(sample(model, prompts, temperature=0.9), before)
    assert len(shapes) == 23


def test_keys_and_values_of_two_dtypes_keep_them(as_on_a_gpu):
    model = make_model("Llama")  # in fp32: autocast rotates keys in fp32, values are bf16
    with torch.autocast("cpu", torch.bfloat16):
        before = sample(model, PROMPTS, temperature=0.0, max_new_tokens=2)
        as_on_a_gpu()
        after = sample(model, PROMPTS, temperature=0.0, max_new_tokens=2)
    alike(after, before, rtol=0.05, atol=0.05)


def test_room_is_made_when_it_is_full(as_on_a_gpu, monkeypatch):
    model = make_model("Qwen2")
    before = sample(model, PROMPTS, temperature=0.9)
    shapes = as_on_a_gpu()
    monkeypatch.setattr(recorded, "room_for", lambda held, needed: needed + 3)
    alike(sample(model, PROMPTS, temperature=0.9), before)
    assert [room for _, room in shapes] == [8] * 4 + [16] * 8 + [24] * 8 + [32] * 3


def test_ended_rows_leave_when_half_are_left(as_on_a_gpu):
    model = make_model("Qwen2")
    whole = sample(model, PROMPTS, temperature=0.0)
    ends = [*({token for c in whole[:4] for token in c.ids} - {*whole[5].ids})]
    before = sample(model, PROMPTS, temperature=0.0, eos_token_id=ends)
    assert 24 in {len(c.ids) for c in before}, "no row goes on"
    shapes = as_on_a_gpu()
    alike(sample(model, PROMPTS, temperature=0.0, eos_token_id=ends), before)
    sizes = [rows for rows, _ in itertools.groupby(rows for rows, _ in shapes)]
    assert len(sizes) > 1
    assert all(b <= a / 2 for a, b in itertools.pairwise(sizes))


@pytest.mark.parametrize(
    ("family", "changes", "fits"),
    [
        ("Qwen2", {}, True),
        ("Gemma2", {}, False),  # sliding windows
        ("Llama", {"attn_implementation": "eager"}, False),
        (
            "Llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            False,
        ),
    ],
)
def test_what_is_recorded(family, changes, fits):
    model = make_model(family)
    assert not recorded.can_record(model.base_model)  # on a CPU
    model = make_model(family, **changes)
    with MockCuda() as cuda:
        assert recorded.can_record(cuda.move(model).base_model) is fits
