"""Sampling, scoring, training and evaluation on a GPU: a real one if there is one, and a mock."""

from unittest import mock

import pytest
import torch
from mock_cuda import CUDA, MockCuda
from models import FAMILIES, lora, make_model

from intuitor_lib import evaluate, train
from intuitor_lib.certainty.completions import (
    completion_log_probs,
    score_completions,
    token_entropy,
    token_self_certainty,
)
from intuitor_lib.rollouts import recorded, sampling
from intuitor_lib.rollouts.sampling import sample_completions

pytestmark = pytest.mark.slow

PROMPTS = [[5, 6, 7], [5, 6, 7], [8, 9], [8, 9, 10, 11]]
COMPLETIONS = [[5, 2], [9, 8, 7, 6], [4], [3, 3, 3]]


@pytest.fixture(
    params=[
        "mock",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
        ),
    ]
)
def cuda(request):
    """The mock device while a test runs; None on a real one."""
    if request.param == "cuda":
        yield None
        return
    with MockCuda() as device:
        yield device


def near(cuda, ours, theirs):
    """Equal on the mock, which computes on the CPU; up to rounding on a GPU."""
    torch.testing.assert_close(ours, theirs, **({} if cuda else {"rtol": 1e-3, "atol": 1e-3}))


def test_a_new_tensor_is_on_the_device(cuda):
    tensor = torch.arange(3, device="cuda")
    assert tensor.device.type == (tensor + 1).device.type == "cuda"
    assert tensor.is_cuda
    assert tensor.cpu().device.type == "cpu"
    assert torch.ones(3).to(tensor.device).sum().item() == 3
    with pytest.raises(TypeError, match="numpy"):
        tensor.numpy()
    with pytest.raises(RuntimeError):
        tensor + torch.ones(3)
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device="cuda", generator=torch.Generator())


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "GPT2", "Gemma2"])
def test_greedy_completions_are_those_of_the_cpu(cuda, family):
    settings = {"max_new_tokens": 12, "temperature": 0.0, "eos_token_id": [4]}
    theirs = sample_completions(make_model(family), PROMPTS, **settings)
    ours = sample_completions(make_model(family).to(CUDA), PROMPTS, **settings)
    assert [c.ids for c in ours] == [c.ids for c in theirs]
    for own, other in zip(ours, theirs, strict=True):
        near(cuda, own.self_certainty, other.self_certainty)
    if not cuda:
        steps = torch.cuda.CUDAGraph.replay
        with mock.patch.object(torch.cuda.CUDAGraph, "replay", autospec=True) as replay:
            replay.side_effect = steps
            sample_completions(make_model(family).to(CUDA), PROMPTS, **settings)
        assert bool(replay.mock_calls) is (family != "Gemma2")  # which has sliding windows
    assert not recorded._given_up


@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_p": 0.8}, {"top_k": 9, "top_p": 0.5}])
def test_sampled_completions_draw_on_the_device(cuda, settings):
    model = lora(make_model("Qwen2")).to(CUDA)
    completions = sample_completions(
        model, PROMPTS * 4, max_new_tokens=16, temperature=0.9, batch_size=8, **settings
    )
    scores = completion_log_probs(model, PROMPTS * 4, [c.ids for c in completions], temperature=0.9)
    for completion, score in zip(completions, scores, strict=True):
        assert completion.self_certainty.device.type == score.device.type == "cpu"
        if not settings:  # the distribution drawn from is the model's
            near(None, completion.log_probs, score)


@pytest.mark.parametrize("settings", [{}, {"top_k": 5, "top_p": 0.8}])
def test_sampling_waits_for_the_device_once_in_eight_tokens(settings):
    with MockCuda() as cuda:
        model = lora(make_model("Qwen2")).to(CUDA)
        waits = []
        for tokens in (16, 64):
            cuda.waits.clear()
            sample_completions(
                model, PROMPTS, max_new_tokens=tokens, eos_token_id=[], temperature=0.9, **settings
            )
            waits.append(cuda.synchronizations)
    assert waits[1] - waits[0] <= (64 - 16) / 8, cuda.waits


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("FalconH1",)])
def test_scores_are_those_of_the_cpu(cuda, family):
    functions = (token_self_certainty, completion_log_probs, token_entropy, score_completions)
    model = make_model(family)
    theirs = [list(f(model, PROMPTS, COMPLETIONS)) for f in functions]
    model = make_model(family).to(CUDA)
    for function, expected in zip(functions, theirs, strict=True):
        for own, other in zip(function(model, PROMPTS, COMPLETIONS), expected, strict=True):
            near(cuda, own, other)


CHANGES = {
    "LoRA": {},
    "LoRA, plain": {"rollout": "generate", "update": "plain"},
    "LoRA, from the forward": {"certainty_from": "forward", "gradient_checkpointing": True},
    "all weights": {"use_lora": False, "beta": 0.01},
    "rewards": {"rewards": ("accuracy", "random", "plurality", "negative_entropy")},
}


@pytest.mark.parametrize("change", CHANGES)
def test_trainings_and_evaluations_run(
    cuda, tiny_recipe, tmp_path, change, benchmark_files, monkeypatch
):
    monkeypatch.setattr(sampling, "_look_every", lambda device: 8)  # as on a GPU
    recipe = tiny_recipe.replace(
        quantization="none", preflight_problems=4, eval_problems=4, eval_steps=1, **CHANGES[change]
    )
    run = train(recipe, runs=tmp_path / "cuda")
    assert run.steps == 2
    assert run.environment["device"] == "cuda:0"
    assert run.metrics[0]["kl"] == pytest.approx(0, abs=1e-6)
    folders = {"runs": tmp_path / "cuda", "benchmarks": benchmark_files}
    record = evaluate(run, "gsm8k", n=3, max_new_tokens=4, system_prompt=None, **folders)
    assert len(record.rows) == 3
    if cuda:  # it draws the CPU's random numbers
        with cuda.away():
            other = train(recipe, runs=tmp_path / "cpu")
        for row, theirs in zip(run.metrics, other.metrics, strict=True):
            for name in ("loss", "reward", "kl", "grad_norm", "completions/mean_length"):
                near_0 = 5e-5 if name == "loss" else 1e-6  # advantages cancel up to rounding
                assert row[name] == pytest.approx(theirs[name], rel=1e-4, abs=near_0), name
