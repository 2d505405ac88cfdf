"""Scores of completions under a model against their definitions on the model's own logits."""

import pytest
import torch
import transformers
from models import FAMILIES, LargestTensor, bart, kl_from_uniform, lora, make_model, prompt_tuned

from intuitor_lib.certainty.completions import (
    completion_log_probs,
    score_completions,
    token_self_certainty,
)
from intuitor_lib.certainty.head import backbone_and_head

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 16], [17, 18, 19, 20]]
COMPLETIONS = [[21, 22, 23, 24], [25, 26], [27], [28, 29, 30, 31, 32, 33, 34], [35, 36, 37]]


@pytest.fixture(scope="module")
def shared_llama():
    """Read-only: a test that changes its model builds its own."""
    return make_model("Llama")


def brute_force(model, prompt, completion):
    """Eq. 4 per token: position P - 1 + i of the whole model's logits predicts token i."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0]
    return kl_from_uniform(logits)[len(prompt) - 1 : len(prompt) - 1 + len(completion)]


def brute_force_scores(model, prompts=PROMPTS, completions=COMPLETIONS):
    pairs = zip(prompts, completions, strict=True)
    return torch.stack([brute_force(model, *pair).mean() for pair in pairs]).float()


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_the_definition_on_the_model_s_own_logits(family):
    model = make_model(family)
    expected = brute_force_scores(model)
    assert expected.std() > 0.003  # else any constant would pass
    got = score_completions(model, PROMPTS, COMPLETIONS, eos_token_id=[], batch_size=3)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
@pytest.mark.parametrize("family", ["Llama", "GPT2", "OPT"])
def test_token_values_and_order_do_not_depend_on_the_batch(family, batch_size):
    model = make_model(family)
    values = token_self_certainty(
        model, PROMPTS, COMPLETIONS, eos_token_id=[], batch_size=batch_size
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
    prompts, completions = [[0, 5, 0, 6], [7]], [[8, 0], [9, 10, 11]]
    expected = brute_force_scores(shared_llama, prompts, completions)
    got = score_completions(shared_llama, prompts, completions, eos_token_id=0)
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


@pytest.mark.parametrize(("settings", "message"), [({"batch_size": 0}, "batch_size is 0")])
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
    for call in (backbone_and_head, lambda model: score_completions(model, [[5]], [[6]])):
        with pytest.raises(ValueError, match=message + r".*Pass its logits to self_certainty"):
            call(model)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_completion_log_probs_against_the_models_own_logits(temperature):
    model = make_model("Llama")
    prompts, completions = [[5, 6, 7], [8]], [[9, 10], [11, 12, 13, 14]]
    ours = completion_log_probs(
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
        completion_log_probs(None, [], [], temperature=0)
