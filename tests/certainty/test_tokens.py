"""Self-certainty, entropy and log-probabilities of logits against their definitions in float64."""

import math

import pytest
import torch
from models import LargestTensor, kl_from_uniform

from intuitor_lib.certainty.head import Head
from intuitor_lib.certainty.tokens import (
    chunked_self_certainty,
    entropy,
    self_certainty,
    token_log_probs,
)


def test_four_words_worked_by_hand():
    # p = (.7, .1, .1, .1), U = 1/4 each:
    # KL(U || p) = 1/4 [ln(.25/.7) + 3 ln(.25/.1)] = 1/4 [-1.0296194 + 3 x 0.9162907] = 0.4298132
    # entropy    = -(.7 ln .7 + 3 x .1 ln .1)      = 0.2496724 + 0.6907755             = 0.9404480
    logits = torch.tensor([[[0.7, 0.1, 0.1, 0.1]]]).log()
    assert self_certainty(logits).item() == pytest.approx(0.4298132, abs=1e-6)
    assert entropy(logits).item() == pytest.approx(0.9404480, abs=1e-6)
    assert token_log_probs(logits, torch.tensor([[0]])).item() == pytest.approx(
        -0.3566749, abs=1e-6
    )
    assert token_log_probs(logits, torch.tensor([[3]])).item() == pytest.approx(
        -2.3025851, abs=1e-6
    )


@pytest.mark.parametrize(
    ("dtype", "out", "tolerance"),
    [
        (torch.float64, torch.float64, 1e-12),
        (torch.float32, torch.float32, 1e-5),
        (torch.bfloat16, torch.float32, 1e-5),
        (torch.float16, torch.float32, 1e-5),
    ],
)
@pytest.mark.parametrize("shape", [(2, 3, 97), (1, 1, 2), (4, 11), (1000,), (2, 2, 3, 5)])
def test_equals_the_definition_for_every_type_and_shape(shape, dtype, out, tolerance):
    torch.manual_seed(1)
    logits = (4 * torch.randn(shape)).to(dtype)
    ids = torch.randint(shape[-1], shape[:-1])
    p = torch.softmax(logits.double(), -1)
    log_probs = p.log().gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    for got, expected in (
        (self_certainty(logits), kl_from_uniform(logits)),
        (entropy(logits), -(p * p.log()).sum(-1)),
        (token_log_probs(logits, ids), log_probs),
    ):
        assert got.dtype == out
        assert got.shape == shape[:-1]
        torch.testing.assert_close(got.double(), expected, atol=tolerance, rtol=tolerance)


def test_a_vocabulary_of_151936_words():
    torch.manual_seed(2)
    logits = 3 * torch.randn(1, 2, 151_936)
    torch.testing.assert_close(
        self_certainty(logits).double(), kl_from_uniform(logits), atol=1e-5, rtol=1e-6
    )
    hidden, weight = torch.randn(2, 4), torch.randn(151_936, 4)
    torch.testing.assert_close(
        chunked_self_certainty(hidden, Head(weight)).double(),
        kl_from_uniform(hidden.double() @ weight.double().T),
        atol=1e-5,
        rtol=1e-6,
    )


def test_large_logits_keep_their_digits_and_a_constant_changes_nothing():
    torch.manual_seed(3)
    logits = torch.randint(0, 20, (3, 5, 50)).float()
    ids = torch.randint(50, (3, 5))
    # Exact in fp32, but one unit in the last place of a logsumexp near 1e6 is already 0.06.
    for constant in (1e6, -1e6, 7.0):
        moved = logits + constant
        for function in (self_certainty, entropy, lambda z: token_log_probs(z, ids)):
            torch.testing.assert_close(function(moved), function(logits), atol=1e-6, rtol=0)
    # Logits far apart: logsumexp is 30000, the mean 7500.
    spread = torch.tensor([0.0, -1e4, 1e4, 3e4])
    assert self_certainty(spread).item() == pytest.approx(22_500 - math.log(4), rel=1e-6)


def test_uniform_logits_have_no_certainty_and_full_entropy():
    for constant in (0.0, -1e4, 1e4):
        logits = torch.full((2, 1000), constant)
        torch.testing.assert_close(self_certainty(logits), torch.zeros(2), atol=1e-6, rtol=0)
        torch.testing.assert_close(entropy(logits), torch.full((2,), math.log(1000)))


def test_never_negative_beyond_rounding():
    torch.manual_seed(4)
    for scale in (1e-3, 1e-1, 1.0, 30.0):
        assert self_certainty(scale * torch.randn(50, 300)).min() > -1e-6


def test_suppressed_words():
    logits = torch.tensor([[0.0, 1.0, 2.0, -math.inf], [-math.inf, -math.inf, 5.0, -math.inf]])
    assert self_certainty(logits).tolist() == [math.inf, math.inf]
    expected = torch.stack([entropy(logits[0, :3]), torch.tensor(0.0)])
    torch.testing.assert_close(entropy(logits), expected)
    assert token_log_probs(logits, torch.tensor([3, 2])).tolist() == [-math.inf, 0.0]


def test_certainty_and_log_probabilities_are_differentiable():
    torch.manual_seed(6)
    logits = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([1, 4])
    assert torch.autograd.gradcheck(self_certainty, logits)
    assert torch.autograd.gradcheck(entropy, logits)
    assert torch.autograd.gradcheck(lambda z: token_log_probs(z, ids), logits)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: self_certainty(torch.tensor(1.0)), r"shape \(\)"),
        (lambda: self_certainty(torch.zeros(2, 3, 1)), r"shape \(2, 3, 1\), .* V >= 2"),
        (lambda: self_certainty(torch.zeros(2, 3, dtype=torch.long)), "torch.int64.*floating"),
        (lambda: entropy(torch.zeros(0)), r"shape \(0,\)"),
        (
            lambda: token_log_probs(torch.zeros(2, 3), torch.tensor([0, 3])),
            r"hold 3, outside 0\.\.2",
        ),
        (lambda: token_log_probs(torch.zeros(2, 3), torch.tensor([-100, 0])), "-100.*leave out"),
        (lambda: token_log_probs(torch.zeros(2, 3), torch.tensor([[0, 1]])), r"expected \(2,\)"),
    ],
)
def test_bad_logits_and_ids_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# From hidden states


@pytest.mark.parametrize("chunk_size", [1, 97, 5 * 97, 7 * 97 + 3, 2**25])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    ("logit_scale", "softcap"), [(1.0, None), (0.3, None), (1.0, 2.0), (2.5, 4.0)]
)
def test_chunks_equal_the_full_logits(chunk_size, with_bias, logit_scale, softcap, monkeypatch):
    monkeypatch.setattr("intuitor_lib.certainty.head.CHUNK_LOGITS", chunk_size)
    torch.manual_seed(7)
    hidden, weight = torch.randn(15, 16), torch.randn(97, 16) + 0.5
    bias = torch.randn(97) + 1 if with_bias else None
    logits = hidden.double() @ weight.double().T + (bias.double() if with_bias else 0)
    logits = logit_scale * logits
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    head = Head(weight, bias, logit_scale, softcap)
    got = chunked_self_certainty(hidden, head)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), kl_from_uniform(logits), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)]
)
def test_chunks_in_other_types(dtype, tolerance, softcap):
    torch.manual_seed(8)
    hidden, weight = torch.randn(6, 8).to(dtype), torch.randn(31, 8).to(dtype)
    logits = hidden.double() @ weight.double().T
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    got = chunked_self_certainty(hidden, Head(weight, softcap=softcap))
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(got.double(), kl_from_uniform(logits), atol=tolerance, rtol=0)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_mean_logit_is_not_rounded_to_the_type_of_the_head(autocast):
    # Every logit is 0 or 1, exact in bf16; their mean, 1365 / 4096 = .33325, is not (.33398).
    weight = torch.zeros(4096, 2)
    weight[:1365, 0] = 1
    hidden = torch.tensor([[1.0, 0.0]])
    expected = math.log(1365 * math.e + 2731) - 1365 / 4096 - math.log(4096)
    if not autocast:
        weight, hidden = weight.bfloat16(), hidden.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got = chunked_self_certainty(hidden, Head(weight))
    assert got.item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_the_chunk_bounds_the_logits_in_memory(softcap, monkeypatch):
    monkeypatch.setattr("intuitor_lib.certainty.head.CHUNK_LOGITS", 3 * 4096 + 5)
    hidden, weight, bias = torch.randn(64, 2), torch.randn(4096, 2), torch.randn(4096)
    with LargestTensor() as largest:
        chunked_self_certainty(hidden, Head(weight, bias, 0.5, softcap))
    assert largest.numel == 3 * 4096  # and not 64 x 4096
    with LargestTensor() as largest:
        self_certainty(hidden @ weight.T)
    assert largest.numel == 64 * 4096  # the measurement sees full logits where they exist


def test_chunks_are_differentiable(monkeypatch):
    monkeypatch.setattr("intuitor_lib.certainty.head.CHUNK_LOGITS", 5)
    torch.manual_seed(10)
    hidden = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    for softcap in (None, 2.0):
        assert torch.autograd.gradcheck(
            lambda h, w, cap=softcap: chunked_self_certainty(h, Head(w, None, 0.7, cap)),
            (hidden, weight),
        )
