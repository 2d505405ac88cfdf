"""The step with room for all tokens, which a GPU records; here it runs unrecorded, on the CPU."""

import pytest
import torch
from models import lora, make_model

from intuitor_lib.rollouts import recorded, sampling
from intuitor_lib.rollouts.sampling import sample_completions

PROMPTS = [[5, 6, 7], [5, 6, 7], [8, 9], [8, 9, 10, 11], [3], [12, 13, 14]]
SAME_LENGTH = [[5, 6, 7], [8, 9, 10]]


@pytest.fixture
def room_for_all(monkeypatch):
    """Steps as on a GPU: with a fixed room, and looks at ended rows once in 8 tokens."""
    made = []

    class Step(recorded.RecordedStep):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    def use():
        monkeypatch.setattr(sampling, "can_record", lambda backbone, layers: True)
        monkeypatch.setattr(sampling, "RecordedStep", Step)
        monkeypatch.setattr(recorded, "RecordedStep", Step)
        monkeypatch.setattr(sampling, "_look_every", lambda device: 8)
        return made

    return use


def sample(model, prompts, **settings):
    torch.manual_seed(0)
    return sample_completions(
        model, prompts, **{"max_new_tokens": 24, "eos_token_id": []} | settings
    )


@pytest.mark.parametrize("prompts", [PROMPTS, SAME_LENGTH])
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "GPT2", "Olmo2"])
def test_completions_are_those_of_growing_keys_and_values(family, prompts, room_for_all):
    model = make_model(family) if family == "GPT2" else lora(make_model(family))
    before = sample(model, prompts, temperature=0.9)
    steps = room_for_all()
    after = sample(model, prompts, temperature=0.9)
    assert len(steps) == 1
    assert [c.ids for c in after] == [c.ids for c in before]
    for own, other in zip(after, before, strict=True):
        torch.testing.assert_close(own.self_certainty, other.self_certainty)
        torch.testing.assert_close(own.log_probs, other.log_probs)


def test_ended_rows_leave_when_half_are_left(room_for_all):
    model = make_model("Qwen2")
    whole = sample(model, PROMPTS, temperature=0.0)
    ends = {c.ids[4] for c in whole[:4]}  # of four rows of six, and maybe of more
    before = sample(model, PROMPTS, temperature=0.0, eos_token_id=[*ends])
    assert {len(c.ids) for c in before} - {24}, "no row ends"
    steps = room_for_all()
    after = sample(model, PROMPTS, temperature=0.0, eos_token_id=[*ends])
    assert [c.ids for c in after] == [c.ids for c in before]
    sizes = [len(step.ids) for step in steps]
    assert sizes == sorted(sizes, reverse=True)
    assert all(b <= a / 2 for a, b in zip(sizes, sizes[1:], strict=False))


@pytest.mark.parametrize(("family", "fits"), [("Qwen2", False), ("Gemma2", False)])
def test_a_cpu_and_sliding_windows_are_not_recorded(family, fits):
    model = make_model(family)
    batch = sampling._Batch(model.base_model, PROMPTS, 4)
    batch.prefill()
    assert recorded.can_record(model.base_model, batch.cache.layers) is fits
