"""Hidden states of completions: prompts shared or not, they are those of each sequence alone."""

import pytest
import torch
from models import FAMILIES, fed, gpt1, lora as adapted, make_model, prompt_tuned

from intuitor_lib.certainty import forward
from intuitor_lib.certainty.forward import (
    can_share_prompts,
    completion_states,
    keeps_all_positions,
    length_buckets,
    padded,
)
from intuitor_lib.certainty.head import backbone_and_head

# Three prompts, their completions mixed up: long, short, of one token and empty ones.
A, B, C = [5, 6, 7], [8], [9, 10, 11, 12, 13, 14]
PROMPTS = [A, B, C, A, B, C, A, B, A]
COMPLETIONS = [[21, 22, 23, 24], [25], [26, 27], [], [28, 29, 30, 31, 32, 33], [34], [35], [], [36]]
TOKENS = sum(map(len, COMPLETIONS))


def lora(family, **settings):
    return adapted(make_model(family), **{"lora_dropout": 0.0, **settings}).double()


def alone(model, prompts=PROMPTS, completions=COMPLETIONS):
    """The states before each completion token, one whole sequence at a time, without padding."""
    backbone = backbone_and_head(model)[1]
    return torch.cat(
        [
            backbone(torch.tensor([[*p, *c]]), use_cache=False).last_hidden_state[
                0, len(p) - 1 : -1
            ]
            for p, c in zip(prompts, completions, strict=True)
        ]
    )


def states(model, share, prompts=PROMPTS, completions=COMPLETIONS, **settings):
    backbone = backbone_and_head(model)[1]
    settings = {"share_prompts": share, **settings}
    return completion_states(backbone, prompts, completions, **settings)


def gradients(model, hidden):
    weights = torch.sin(torch.arange(hidden.numel(), dtype=hidden.dtype)).view(hidden.shape)
    wanted = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad((hidden * weights).sum(), wanted)


@pytest.mark.parametrize("small_batch", [1, 256], ids=["buckets", "one"])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "whole"])
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "Olmo2", "GPT2", "OPT"])
def test_values_and_gradients_are_those_of_each_sequence_alone(
    family, share, small_batch, monkeypatch
):
    monkeypatch.setattr(forward, "_SMALL_BATCH", small_batch)
    targets = {"GPT2": ["c_attn"], "OPT": ["q_proj", "fc2"]}
    settings = {"target_modules": targets[family]} if family in targets else {}
    model = lora(family, **settings, fan_in_fan_out=family == "GPT2")
    expected, got = alone(model), states(model, share)
    assert got.shape == (TOKENS, expected.shape[1])
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)
    # RMS norms compute in fp32, whatever the model is in; their backward pass rounds.
    tolerance = 1e-8 if family in ("GPT2", "OPT") else 3e-5
    for ours, theirs in zip(gradients(model, got), gradients(model, expected), strict=True):
        assert theirs.abs().max() > 1e-2
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def test_in_fp32_too():
    model = lora("Llama").float()
    expected = alone(model)
    torch.testing.assert_close(states(model, True), expected, atol=2e-5, rtol=1e-4)
    shared = gradients(model, states(model, True))
    for ours, theirs in zip(shared, gradients(model, expected), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_a_shared_prompt_is_computed_once_and_last_tokens_never():
    model = lora("Llama")
    prompts, longer = fed(model, lambda: states(model, True))
    assert [[t for t in row if t] for row in prompts.tolist()] == [A, B, C]
    assert sorted([t for t in row if t] for row in longer.tolist()) == [
        *([21, 22, 23], [26], [28, 29, 30, 31, 32])
    ]
    (whole,) = fed(model, lambda: states(model, False))
    assert (whole != 0).sum() == sum(
        len(p) + len(c) - 1 for p, c in zip(PROMPTS, COMPLETIONS, strict=True) if c
    )
    # Of two different prompts nothing is shared, and one pass is less work than two.
    assert len(fed(model, lambda: states(model, True, [A, B], [[21, 22], [23, 24]]))) == 1


def test_completions_without_tokens():
    model = lora("Llama")
    for share in (True, False):
        assert states(model, share, [A, A], [[], []]).shape == (0, 32)
        one = states(model, share, [A, A], [[], [21]])
        torch.testing.assert_close(one, alone(model, [A], [[21]]), atol=1e-9, rtol=0)


def test_every_row_is_in_one_batch_and_padding_is_bounded():
    generator = torch.Generator().manual_seed(0)
    for rows in (1, 2, 40, 300):
        lengths = (torch.rand(rows, generator=generator) ** 3 * 500).long().add(1).tolist()
        buckets = list(length_buckets(lengths))
        assert sorted(i for bucket in buckets for i in bucket) == list(range(rows))
        for bucket in buckets:
            area = len(bucket) * max(lengths[i] for i in bucket)
            assert area <= 256 or sum(lengths[i] for i in bucket) >= 0.8 * area
        assert len(buckets) <= max(2, rows / 3)
    assert list(length_buckets([])) == []
    assert list(length_buckets([3, 9, 5])) == [[1, 2, 0]]


def test_padding_goes_to_the_right():
    ids, real = padded([[5], [6, 7, 8], [9, 0]])
    assert ids.tolist() == [[5, 0, 0], [6, 7, 8], [9, 0, 0]]
    assert real.tolist() == [[True, False, False], [True] * 3, [True, True, False]]


@pytest.mark.parametrize(
    ("build", "keeps"),
    [
        *((lambda f=family: make_model(f), True) for family in ("Llama", "Qwen3", "Olmo2", "OPT")),
        (lambda: make_model("Mistral", sliding_window=None), True),
        (lambda: make_model("Mistral"), False),  # a sliding window
        (lambda: make_model("Gemma2"), False),  # in every other layer
        (lambda: make_model("FalconH1"), False),  # a recurrent state
        (lambda: make_model("RecurrentGemma"), False),
        (lambda: make_model("Mpt"), False),  # positions are columns, padding among them
        (lambda: make_model("GPTNeo"), False),  # windows of columns in every other layer
        (gpt1, False),  # no keys and values at all
        (prompt_tuned, False),
        (lambda: lora("Llama"), True),
    ],
)
def test_which_models_keep_all_positions(build, keeps):
    assert keeps_all_positions(build()) is keeps


@pytest.mark.parametrize("family", FAMILIES)
def test_whoever_is_allowed_to_share_computes_the_same(family):
    model = make_model(family).double()
    share = can_share_prompts(model)
    prompts, completions = [A, A, B, B], [[21, 22, 23], [24], [25, 26], [27, 28]]
    with torch.no_grad():
        got = states(model, share, prompts, completions)
        expected = alone(model, prompts, completions)
    # Recurrences in these models compute parts in fp32.
    tolerance = 1e-9 if share else 1e-4
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


def test_gradient_checkpointing_keeps_no_cache_to_share():
    model = lora("Llama")
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    assert can_share_prompts(model.eval())
    assert not can_share_prompts(model.train())
    ours = gradients(model, states(model, can_share_prompts(model)))
    for got, expected in zip(ours, gradients(model, alone(model.eval())), strict=True):
        torch.testing.assert_close(got, expected, atol=3e-5, rtol=3e-5)
