"""Self-certainty, entropy and log-probabilities against their definitions in float64."""

import math

import pytest
import torch
import transformers
from models import FAMILIES, LargestTensor, bart, lora, make_model, prompt_tuned

from intuitor_lib.certainty.completions import (
    completions,
    head_settings,
    score_completions,
    token_self_certainty,
)
from intuitor_lib.certainty.tokens import (
    chunked_self_certainty,
    entropy,
    self_certainty,
    token_log_probs,
)

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 16], [17, 18, 19, 20]]
COMPLETIONS = [[21, 22, 23, 24], [25, 26], [27], [28, 29, 30, 31, 32, 33, 34], [35, 36, 37]]


@pytest.fixture(scope="module")
def shared_llama():
    """Read-only: a test that changes its model builds its own."""
    return make_model("Llama")


def kl_from_uniform(logits):
    """The definition, one word at a time: sum_v 1/V log((1/V) / p_v), in float64."""
    logits = logits.double()
    words = logits.shape[-1]
    p = (logits - logits.amax(-1, keepdim=True)).exp()
    p = p / p.sum(-1, keepdim=True)
    return (1 / words * torch.log((1 / words) / p)).sum(-1)


def brute_force(model, prompt, completion):
    """Eq. 4 per token: position P - 1 + i of the whole model's logits predicts token i."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0]
    return kl_from_uniform(logits)[len(prompt) - 1 : len(prompt) - 1 + len(completion)]


def brute_force_scores(model, prompts=PROMPTS, completions=COMPLETIONS):
    pairs = zip(prompts, completions, strict=True)
    return torch.stack([brute_force(model, *pair).mean() for pair in pairs]).float()


# From logits


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
    hidden, weight = torch.randn(1, 2, 4), torch.randn(151_936, 4)
    torch.testing.assert_close(
        chunked_self_certainty(hidden, weight).double(),
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


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("mask_type", [torch.bool, torch.int64])
def test_a_padded_batch_equals_each_completion_alone(side, mask_type):
    torch.manual_seed(5)
    alone = [torch.randn(length, 13) * 3 for length in (1, 4, 6, 0)]
    ids = [torch.randint(13, (len(row),)) for row in alone]
    logits = torch.full((4, 6, 13), math.nan)
    padded_ids = torch.full((4, 6), -100)
    mask = torch.zeros(4, 6, dtype=mask_type)
    for i, row in enumerate(alone):
        place = slice(6 - len(row), 6) if side == "left" else slice(len(row))
        logits[i, place], padded_ids[i, place], mask[i, place] = row, ids[i], 1
    for function, one in (
        (lambda z, m: self_certainty(z, m), lambda z, i: self_certainty(z)),
        (lambda z, m: entropy(z, m), lambda z, i: entropy(z)),
        (lambda z, m: token_log_probs(z, padded_ids, m), token_log_probs),
    ):
        value = function(logits, mask)
        assert value[~mask.bool()].eq(0).all()
        for i, row in enumerate(alone):
            torch.testing.assert_close(value[i][mask[i].bool()], one(row, ids[i]))


def test_certainty_and_log_probabilities_are_differentiable():
    torch.manual_seed(6)
    logits = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([1, 4])
    mask = torch.tensor([True, False])
    assert torch.autograd.gradcheck(lambda z: self_certainty(z, mask), logits)
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
            lambda: self_certainty(torch.zeros(2, 3, 4), torch.ones(2, 3, 4, dtype=torch.bool)),
            r"mask has shape \(2, 3, 4\), expected \(2, 3\)",
        ),
        (lambda: entropy(torch.zeros(2, 3, 4), torch.ones(2, 3)), r"float32.*\.bool\(\)"),
        (
            lambda: token_log_probs(torch.zeros(2, 3), torch.tensor([0, 3])),
            r"hold 3, outside 0\.\.2",
        ),
        (lambda: token_log_probs(torch.zeros(2, 3), torch.tensor([-100, 0])), "hold -100.*mask"),
        (lambda: token_log_probs(torch.zeros(2, 3), torch.tensor([[0, 1]])), r"expected \(2,\)"),
    ],
)
def test_bad_logits_masks_and_ids_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# From hidden states


@pytest.mark.parametrize("chunk_size", [1, 97, 5 * 97, 7 * 97 + 3, 2**25])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    ("logit_scale", "softcap"), [(1.0, None), (0.3, None), (1.0, 2.0), (2.5, 4.0)]
)
def test_chunks_equal_the_full_logits(chunk_size, with_bias, logit_scale, softcap):
    torch.manual_seed(7)
    hidden, weight = torch.randn(3, 5, 16), torch.randn(97, 16) + 0.5
    bias = torch.randn(97) + 1 if with_bias else None
    logits = hidden.double() @ weight.double().T + (bias.double() if with_bias else 0)
    logits = logit_scale * logits
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    got = chunked_self_certainty(
        hidden, weight, bias, logit_scale=logit_scale, softcap=softcap, chunk_size=chunk_size
    )
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), kl_from_uniform(logits), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)]
)
def test_chunks_in_other_types(dtype, tolerance, softcap):
    torch.manual_seed(8)
    hidden, weight = torch.randn(2, 3, 8).to(dtype), torch.randn(31, 8).to(dtype)
    logits = hidden.double() @ weight.double().T
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    got = chunked_self_certainty(hidden, weight, softcap=softcap)
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
        got = chunked_self_certainty(hidden, weight)
    assert got.item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_masked_hidden_states_are_skipped(softcap):
    torch.manual_seed(9)
    hidden, weight = torch.randn(3, 8, 4), torch.randn(512, 4)
    mask = torch.rand(3, 8) < 0.3
    expected = chunked_self_certainty(hidden, weight, softcap=softcap).where(mask, 0)
    hidden[~mask] = math.nan
    with LargestTensor() as largest:
        got = chunked_self_certainty(hidden, weight, mask=mask, softcap=softcap)
    torch.testing.assert_close(got, expected)
    assert 0 < mask.sum() < 24
    assert largest.numel == max(int(mask.sum()) * 512, weight.numel())
    nothing = chunked_self_certainty(hidden, weight, mask=torch.zeros_like(mask), softcap=softcap)
    assert nothing.eq(0).all()


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_the_chunk_bounds_the_logits_in_memory(softcap):
    hidden, weight, bias = torch.randn(4, 16, 2), torch.randn(4096, 2), torch.randn(4096)
    with LargestTensor() as largest:
        chunked_self_certainty(
            hidden, weight, bias, logit_scale=0.5, softcap=softcap, chunk_size=3 * 4096 + 5
        )
    assert largest.numel == 3 * 4096  # and not 4 x 16 x 4096
    with LargestTensor() as largest:
        self_certainty(hidden @ weight.T)
    assert largest.numel == 64 * 4096  # the measurement sees full logits where they exist


def test_chunks_are_differentiable():
    torch.manual_seed(10)
    hidden = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    for softcap in (None, 2.0):
        assert torch.autograd.gradcheck(
            lambda h, w, cap=softcap: chunked_self_certainty(
                h, w, mask=mask, logit_scale=0.7, softcap=cap, chunk_size=5
            ),
            (hidden, weight),
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": torch.zeros(2, 3, 5)}, r"hidden \(2, 3, 5\), weight \(7, 4\)"),
        ({"weight": torch.zeros(7)}, r"shape \(7,\)"),
        ({"weight": torch.zeros(1, 4)}, "V >= 2"),
        ({"weight": torch.zeros(7, 4, dtype=torch.uint8)}, "torch.uint8.*dequantize"),
        ({"bias": torch.zeros(4)}, r"bias \(4,\)"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, r"\(2, 4\), expected \(2, 3\)"),
        ({"mask": torch.ones(2, 3)}, r"float32.*\.bool\(\)"),
        ({"chunk_size": 0}, "chunk_size is 0, expected at least 1"),
        ({"softcap": 0.0}, "softcap is 0.0, .*None"),
    ],
)
def test_bad_heads_are_refused(changes, message):
    arguments = {"hidden": torch.zeros(2, 3, 4), "weight": torch.zeros(7, 4), **changes}
    with pytest.raises(ValueError, match=message):
        chunked_self_certainty(**arguments)


# From a model


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_the_definition_on_the_model_s_own_logits(family):
    model = make_model(family)
    expected = brute_force_scores(model)
    assert expected.std() > 0.003  # else any constant would pass
    got = score_completions(model, PROMPTS, COMPLETIONS, eos_token_id=[], batch_size=3)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        ("Llama", {}, (1.0, None)),
        ("Gemma2", {}, (1.0, 3.0)),
        ("Gemma2", {"final_logit_softcapping": None}, (1.0, None)),
        ("Cohere", {}, (0.25, None)),
        ("Granite", {"logits_scaling": 8.0}, (0.125, None)),
        ("HyperCLOVAX", {"logits_scaling": 8.0}, (8.0, None)),
        ("Mpt", {}, (1.0, None)),
    ],
)
def test_head_settings(family, settings, expected):
    assert head_settings(make_model(family, **settings)) == expected


def test_output_multiplier_scales_the_logits(shared_llama):
    model = make_model("Llama")
    model.config.output_multiplier = 0.2
    assert head_settings(model) == (0.2, None)
    assert head_settings(shared_llama) == (1.0, None)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
@pytest.mark.parametrize("family", ["Llama", "GPT2", "OPT"])
def test_token_values_and_order_do_not_depend_on_the_batch(family, batch_size):
    model = make_model(family)
    values = token_self_certainty(
        model, PROMPTS, COMPLETIONS, eos_token_id=[], pad_token_id=3, batch_size=batch_size
    )
    assert [len(value) for value in values] == [4, 2, 1, 7, 3]
    for value, prompt, completion in zip(values, PROMPTS, COMPLETIONS, strict=True):
        expected = brute_force(model, prompt, completion).float()
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4)


def test_a_float64_model_keeps_float64():
    model = make_model("Llama").double()
    values = token_self_certainty(model, PROMPTS, COMPLETIONS, eos_token_id=[])
    for value, prompt, completion in zip(values, PROMPTS, COMPLETIONS, strict=True):
        expected = brute_force(model, prompt, completion)
        torch.testing.assert_close(value, expected, atol=1e-10, rtol=1e-10)


def test_a_bf16_model_scores_near_its_fp32_self():
    model = make_model("Llama")
    expected = score_completions(model, PROMPTS[:2], COMPLETIONS[:2])
    got = score_completions(model.bfloat16(), PROMPTS[:2], COMPLETIONS[:2])
    torch.testing.assert_close(got, expected, atol=0, rtol=0.1)


def test_the_distribution_before_each_token_counts_and_the_one_after_the_last_does_not(
    shared_llama,
):
    prompt, completion = PROMPTS[0], COMPLETIONS[0]
    with torch.no_grad():
        logits = shared_llama(torch.tensor([prompt + completion])).logits[0]
    kl = kl_from_uniform(logits).float()
    aligned, late = kl[2:6], kl[3:7]
    got = token_self_certainty(shared_llama, [prompt], [completion])[0]
    torch.testing.assert_close(got, aligned, atol=1e-5, rtol=1e-4)
    # The public open-r1 code takes the logits one position late; that is another number.
    assert abs(late.mean() - aligned.mean()) > 0.05
    score = score_completions(shared_llama, [prompt], [completion]).item()
    assert score == pytest.approx(aligned.mean().item(), rel=1e-4)
    assert abs(score - late.mean().item()) > 0.05


def test_the_last_token_itself_changes_nothing_and_the_first_does(shared_llama):
    last = score_completions(shared_llama, [[5, 6]] * 2, [[7, 8, 9], [7, 8, 50]])
    assert last[0] == last[1]
    first = token_self_certainty(shared_llama, [[5, 6]] * 2, [[7, 8, 9], [50, 8, 9]])
    assert first[0][0] == first[1][0]
    assert (first[0][1:] - first[1][1:]).abs().min() > 1e-3


def test_the_end_token_is_in_and_what_follows_is_out(shared_llama):
    prompts, ended = [[5, 6]] * 4, [[7, 2], [7, 2, 9, 9], [7, 2, 2], [7, 2, -100]]
    expected = brute_force(shared_llama, [5, 6], [7, 2]).float()
    for end in (None, 2, [2, 50]):
        for value in token_self_certainty(shared_llama, prompts, ended, eos_token_id=end):
            torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4)
    lengths = [
        len(v) for v in token_self_certainty(shared_llama, prompts[:3], ended[:3], eos_token_id=9)
    ]
    assert lengths == [2, 3, 3]
    lengths = [
        len(v) for v in token_self_certainty(shared_llama, prompts[:3], ended[:3], eos_token_id=[])
    ]
    assert lengths == [2, 4, 3]


def test_generation_settings_name_the_end_tokens_before_the_configuration():
    model = make_model("Llama")
    model.generation_config.eos_token_id = [7, 8]
    assert [len(v) for v in token_self_certainty(model, [[5]], [[2, 8, 9]])] == [2]
    model.generation_config.eos_token_id = None
    assert [len(v) for v in token_self_certainty(model, [[5]], [[2, 8, 9]])] == [1]
    model.config.eos_token_id = None
    assert [len(v) for v in token_self_certainty(model, [[5]], [[2, 8, 9]])] == [3]


def test_padding_may_be_the_end_token_and_may_stand_inside_a_prompt(shared_llama):
    prompts, completions = [[2, 5, 2, 6], [7]], [[8, 2], [9, 10, 11]]
    expected = brute_force_scores(shared_llama, prompts, completions)
    for pad in (0, 2, 96):
        got = score_completions(
            shared_llama, prompts, completions, eos_token_id=2, pad_token_id=pad
        )
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_one_token_and_empty_completions(shared_llama):
    prompts, completions = [[5, 6], [5, 6], [7]], [[], [8], []]
    values = token_self_certainty(shared_llama, prompts, completions)
    assert [value.shape for value in values] == [(0,), (1,), (0,)]
    score = score_completions(shared_llama, prompts, completions)
    assert score.isnan().tolist() == [True, False, True]
    assert score[1].item() == pytest.approx(brute_force(shared_llama, [5, 6], [8]).item(), rel=1e-4)
    assert score_completions(shared_llama, [[5]], [[]]).isnan().all()
    assert score_completions(shared_llama, [], []).shape == (0,)


def test_the_head_sees_the_completions_only():
    model = make_model("Llama", vocab_size=4096, hidden_size=8, head_dim=2)
    prompts, completions = [[5] * 30, [6] * 20], [[7, 8, 9], [10] * 5]
    with LargestTensor() as largest:
        token_self_certainty(model, prompts, completions)
    assert largest.numel == 8 * max(4096, model.lm_head.in_features)  # 8 completion tokens
    with LargestTensor() as largest, torch.no_grad():
        model(torch.tensor([prompts[0]]))
    assert largest.numel == 30 * 4096


def test_an_adapter_counts_and_can_be_switched_off(shared_llama):
    plain = brute_force_scores(shared_llama)
    adapted = lora(make_model("Llama"))
    adapted.train()
    got = score_completions(adapted, PROMPTS, COMPLETIONS)
    with adapted.disable_adapter():
        without = score_completions(adapted, PROMPTS, COMPLETIONS)
    assert adapted.training
    torch.testing.assert_close(got, brute_force_scores(adapted.eval()), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(without, plain, atol=1e-5, rtol=1e-4)
    assert (got - plain).abs().min() > 0.01


def test_dropout_is_off_while_scoring():
    model = make_model("GPT2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    expected = brute_force_scores(model)
    model.train()
    got = score_completions(model, PROMPTS, COMPLETIONS)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fails", [False, True])
def test_every_submodule_is_back_in_its_mode(fails, monkeypatch):
    model = make_model("Llama").train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    assert any(before)
    assert not all(before)
    if fails:

        def forward(*args, **kwargs):
            assert not any(module.training for module in model.modules())
            raise RuntimeError("out of memory")

        monkeypatch.setattr(model.model, "forward", forward)
        with pytest.raises(RuntimeError, match="out of memory"):
            score_completions(model, PROMPTS, COMPLETIONS)
    else:
        score_completions(model, PROMPTS, COMPLETIONS)
    assert [module.training for module in model.modules()] == before
    assert torch.is_grad_enabled()


def test_no_gradient_is_recorded(shared_llama):
    assert all(parameter.requires_grad for parameter in shared_llama.parameters())
    values = token_self_certainty(shared_llama, PROMPTS, COMPLETIONS)
    assert not any(value.requires_grad for value in values)
    assert all(parameter.grad is None for parameter in shared_llama.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[5]], []), "1 prompts and 0 completions.*repeat"),
        (([[5], []], [[6], [7]]), r"prompt_ids\[1\] is \[\].*beginning-of-sequence"),
        (([[97]], [[6]]), r"token id 97 is outside the model's 0\.\.96"),
        (([[5]], [[6, -100]]), "token id -100.*strip padding"),
    ],
)
def test_bad_token_lists_are_refused(shared_llama, arguments, message):
    for function in (token_self_certainty, score_completions):
        with pytest.raises(ValueError, match=message):
            function(shared_llama, *arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"batch_size": 0}, "batch_size is 0"), ({"pad_token_id": -1}, "token id -1 is outside")],
)
def test_bad_settings_are_refused(shared_llama, settings, message):
    with pytest.raises(ValueError, match=message):
        score_completions(shared_llama, [[5]], [[6]], **settings)


def bert():
    small = transformers.BertConfig(
        vocab_size=97, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, is_decoder=True
    )
    return transformers.BertLMHeadModel(small)


def padded_vocabulary():
    model = make_model("Llama")
    model.config.unpadded_vocab_size = 90
    return model


def packed_head():
    model = make_model("Llama")
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(1552, 1, dtype=torch.uint8), False)
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: torch.nn.Linear(2, 2), "^Linear cannot .* is a NoneType"),
        (lambda: make_model("Llama").model, "^LlamaModel cannot .* is a NoneType"),
        (bert, r"^BertLMHeadModel cannot .*'cls'"),
        (bart, "^BartForConditionalGeneration cannot "),
        (padded_vocabulary, "^LlamaForCausalLM cannot .*unpadded_vocab_size=90"),
        (packed_head, "^LlamaForCausalLM cannot .*not a floating-point Linear"),
        (lambda: lora(make_model("Llama"), target_modules=["lm_head"]), "^LlamaForCausalLM cannot"),
        (prompt_tuned, "^PeftModelForCausalLM cannot .*virtual tokens"),
    ],
)
def test_models_whose_head_is_unknown_are_refused(build, message):
    model = build()
    for call in (head_settings, lambda model: score_completions(model, [[5]], [[6]])):
        with pytest.raises(ValueError, match=message + r".*Pass its logits to self_certainty"):
            call(model)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_completion_log_probs_against_the_models_own_logits(temperature):
    model = make_model("Llama")
    prompts, completions = [[5, 6, 7], [8]], [[9, 10], [11, 12, 13, 14]]
    ours = completions.completion_log_probs(
        model, prompts, completions, temperature=temperature, eos_token_id=[]
    )
    for prompt, completion, values in zip(prompts, completions, ours, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion])).logits[0].double()
        log_probs = torch.log_softmax(logits[len(prompt) - 1 : -1] / temperature, -1)
        expected = log_probs[range(len(completion)), completion]
        torch.testing.assert_close(values.double(), expected, rtol=1e-4, atol=1e-5)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="temperature is 0"):
        completions.completion_log_probs(None, [], [], temperature=0)
