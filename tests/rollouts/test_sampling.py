"""Our sampling: `generate`'s tokens and distribution, and the values of the logits drawn from."""

import itertools
import math

import pytest
import scipy.stats
import torch
from models import FAMILIES, Waits, bart, fed, gpt1, lora, make_model, prompt_tuned
from policies import move_adapter
from transformers import StopStringCriteria
from transformers.cache_utils import DynamicLayer
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from intuitor_lib.certainty.completions import (
    completion_log_probs,
    score_completions,
    token_self_certainty,
)
from intuitor_lib.policy.linear import speed_up_linears
from intuitor_lib.policy.loading import load_model, load_policy
from intuitor_lib.rollouts import cache, drawing, sampling
from intuitor_lib.rollouts.cache import GrowingLayer
from intuitor_lib.rollouts.drawing import draw
from intuitor_lib.rollouts.sampling import reason_against, sample_completions

# Groups of 4, 1 and 3, mixed up, their prompts of different lengths.
A, B, C = [5, 6, 7], [8], [9, 10, 11, 12, 13, 14]
PROMPTS = [A, C, A, B, A, C, A, C]
STEPS = 12


def policy_of(family, **settings):
    """With LoRA that changes the distribution, sped up as in training."""
    model = lora(make_model(family), **settings).eval()
    speed_up_linears(model)
    return model


@pytest.fixture(scope="module")
def llama():
    """Read-only."""
    return policy_of("Llama")


def generated(model, prompt, *, ends=None, steps=STEPS, **settings):
    """transformers' own completion of one prompt, alone."""
    ids = torch.tensor([prompt])
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=steps,
        eos_token_id=ends or None,
        pad_token_id=0,
        do_sample=False,
        **settings,
    )
    return output[0, len(prompt) :].tolist()


# Greedy: token by token


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "Olmo2", "GPT2", "OPT", "Cohere"])
def test_greedy_is_generate_s(family, batch_size):
    targets = {"GPT2": ["c_attn"], "OPT": ["q_proj", "fc2"]}
    settings = {"target_modules": targets[family]} if family in targets else {}
    settings["fan_in_fan_out"] = family == "GPT2"
    model = policy_of(family, **settings)
    endless = {tuple(p): generated(model, p) for p in (A, B, C)}
    # One prompt ends at its first token, the others at later ones or never.
    ends = sorted({endless[tuple(B)][0], endless[tuple(C)][4]})
    expected = [generated(model, p, ends=ends) for p in PROMPTS]
    assert len({len(ids) for ids in expected}) > 1
    assert min(map(len, expected)) == 1
    got = sample_completions(
        model,
        PROMPTS,
        max_new_tokens=STEPS,
        temperature=0,
        eos_token_id=ends,
        batch_size=batch_size,
    )
    assert [completion.ids for completion in got] == expected


def test_the_model_s_own_end_tokens_count_and_the_last_token_may_be_one(llama):
    free = generated(llama, A)
    got = sample_completions(llama, [A], max_new_tokens=2, temperature=0, eos_token_id=free[1])
    assert got[0].ids == free[:2]
    (one,) = sample_completions(llama, [A], max_new_tokens=1, temperature=0, eos_token_id=[])
    assert one.ids == free[:1]
    own = llama.get_base_model().generation_config
    before, own.eos_token_id = own.eos_token_id, [free[1]]
    try:
        assert sample_completions(llama, [A], max_new_tokens=6, temperature=0)[0].ids == free[:2]
    finally:
        own.eos_token_id = before
    assert sample_completions(llama, [], max_new_tokens=4) == []


def test_a_criterion_ends_rows(llama):
    free = generated(llama, A)
    other = generated(llama, C)
    seen = []

    def stop(ids, scores):
        assert scores is None
        seen.append(tuple(ids.shape))
        return torch.tensor([row[-2:] == free[2:4] for row in ids.tolist()])

    a, c = sample_completions(
        llama, [A, C], max_new_tokens=8, temperature=0, eos_token_id=[], stop=stop
    )
    assert a.ids == free[:4]
    assert c.ids == other[:8]
    assert seen == [*((2, n) for n in range(1, 5)), *((1, n) for n in range(5, 9))]


def test_ended_rows_leave_the_batch_and_prompts_are_computed_once(llama):
    torch.manual_seed(0)
    made = []
    calls = fed(
        llama,
        lambda: made.extend(
            sample_completions(
                llama, [A] * 40 + [B] * 2, max_new_tokens=30, eos_token_id=list(range(10))
            )
        ),
    )
    assert calls[0].shape == (2, 3)
    for completion in made:  # those that ended beside others that went on, too
        assert not any(token < 10 for token in completion.ids[:-1])
        assert completion.ids[-1] < 10 or len(completion.ids) == 30
        assert len(completion.self_certainty) == len(completion.log_probs) == len(completion.ids)
    lengths = torch.tensor([len(completion.ids) for completion in made])
    assert len(set(lengths.tolist())) > 5
    going = [int((lengths > step).sum()) for step in range(1, int(lengths.max()))]
    sizes = [call.shape[0] for call in calls[1:]]
    assert all(call.shape[1] == 1 for call in calls[1:])
    assert len(sizes) == len(going)  # no step is computed that nobody needs
    for size, rows in zip(sizes, going, strict=True):
        assert rows <= size <= max(1, math.ceil(rows * 8 / 7))


def test_batches_hold_equal_prompts_together(llama):
    calls = fed(llama, lambda: sample_completions(llama, PROMPTS, max_new_tokens=1, batch_size=4))
    assert [call.shape for call in calls] == [(2, 3), (2, 6)]


def test_modes_and_random_state():
    model = policy_of("Llama").train()
    torch.manual_seed(1)
    first = [c.ids for c in sample_completions(model, PROMPTS, max_new_tokens=6)]
    assert all(module.training for module in model.modules())
    assert first != [c.ids for c in sample_completions(model, PROMPTS, max_new_tokens=6)]
    torch.manual_seed(1)
    # LoRA's dropout of one half is off.
    again = sample_completions(model.eval(), PROMPTS, max_new_tokens=6)
    assert [c.ids for c in again] == first
    assert not any(c.self_certainty.requires_grad or c.log_probs.requires_grad for c in again)


# The values of what was drawn


def on_full_logits(model, prompt, completion, temperature):
    """Eq. 4 and log-probabilities by definition, from a plain forward pass, in float64."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0].double()
    logits = logits[len(prompt) - 1 : -1]
    certainty = -math.log(logits.shape[-1]) - torch.log_softmax(logits, -1).mean(-1)
    log_p = torch.log_softmax(logits / temperature, -1)
    return certainty, log_p[range(len(completion)), completion]


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        ("fp32", 1e-5),
        # In bf16 each product rounds to 3 digits, differently for each shape of the batch.
        ("bf16", 0.06),
        ("nf4", 1e-5),
        ("nf4 in bf16", 0.06),  # .042 on CPUs that emulate bf16
    ],
)
def test_self_certainty_and_log_probs_agree_all_ways(kind, tolerance, tiny_recipe):
    recipe = tiny_recipe.replace(
        quantization="nf4" if "nf4" in kind else "none",
        dtype="bfloat16" if "bf16" in kind else "float32",
    )
    model = load_policy(recipe).model.eval()
    move_adapter(model)
    prompts = [[20 + t for t in prompt] for prompt in PROMPTS]
    full = {}  # before anything is sped up
    torch.manual_seed(2)
    made = sample_completions(model, prompts, max_new_tokens=10, temperature=0.8)
    for i, (prompt, completion) in enumerate(zip(prompts, made, strict=True)):
        full[i] = on_full_logits(model, prompt, completion.ids, 0.8)
    speed_up_linears(model)
    torch.manual_seed(2)
    fast = sample_completions(model, prompts, max_new_tokens=10, temperature=0.8)
    if "bf16" not in kind:
        assert [c.ids for c in fast] == [c.ids for c in made]
    ids = [completion.ids for completion in made]
    certainty = token_self_certainty(model, prompts, ids)  # prompts shared
    log_probs = completion_log_probs(model, prompts, ids, temperature=0.8)
    unshared = token_self_certainty(model, prompts, ids, batch_size=1)
    spread = torch.cat([c.self_certainty for c in made]).std()
    assert spread > 3 * tolerance  # else anything would pass
    for i, completion in enumerate(made):
        for values in (completion.self_certainty, certainty[i], unshared[i]):
            torch.testing.assert_close(values.double(), full[i][0], atol=tolerance, rtol=0)
        for values in (completion.log_probs, log_probs[i]):
            torch.testing.assert_close(values.double(), full[i][1], atol=4 * tolerance, rtol=0)
    means = torch.stack([completion.self_certainty.mean() for completion in made])
    scores = score_completions(model, prompts, ids)
    torch.testing.assert_close(scores, means, atol=tolerance, rtol=0)


@pytest.mark.parametrize("family", ["Qwen3", "Olmo2", "Cohere", "Granite", "HyperCLOVAX"])
def test_values_of_other_models(family):
    model = policy_of(family)
    torch.manual_seed(3)
    for prompt, completion in zip(
        PROMPTS, sample_completions(model, PROMPTS, max_new_tokens=6, temperature=1.3), strict=True
    ):
        certainty, log_probs = on_full_logits(model, prompt, completion.ids, 1.3)
        torch.testing.assert_close(
            completion.self_certainty.double(), certainty, atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(completion.log_probs.double(), log_probs, atol=1e-4, rtol=1e-4)


# The distribution


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(0.7, 0, 1.0), (1.3, 0, 1.0), (1.0, 0, 1.0), (1.3, 5, 1.0), (1.3, 0, 0.8), (0.7, 7, 0.9)],
)
def test_sampled_as_generate_does(temperature, top_k, top_p):
    """Chi-square tests of first and second tokens against what `generate` draws from."""
    words, rows = 13, 8000
    model = make_model("Llama", vocab_size=words, initializer_range=0.25)

    def drawn_from(prompts):
        """The distributions (N, words) that `generate` draws the next token from."""
        ids = torch.tensor(prompts)
        scores = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=1,
            do_sample=True,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            output_scores=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        ).scores[0]
        return torch.softmax(scores.double(), -1)

    (first,) = drawn_from([[5, 6]])
    second = first @ drawn_from([[5, 6, token] for token in range(words)])
    torch.manual_seed(4)
    made = sample_completions(
        model,
        [[5, 6]] * rows,
        max_new_tokens=2,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        eos_token_id=[],
    )
    for step, expected in enumerate((first, second)):
        counts = torch.bincount(torch.tensor([c.ids[step] for c in made]), minlength=words)
        possible = expected > 0
        assert counts[~possible].sum() == 0
        assert possible.all() or top_k or top_p < 1
        common = rows * expected >= 5  # rarer ones together
        seen = [*counts[common].tolist(), int(counts[~common].sum())]
        meant = [*(rows * expected[common]).tolist(), float(rows * expected[~common].sum())]
        if meant[-1] < 1:
            seen, meant = seen[:-1], meant[:-1]
        meant = [value * sum(seen) / sum(meant) for value in meant]
        assert len(seen) > 2
        assert scipy.stats.chisquare(seen, meant).pvalue > 1e-3
    for completion in made[:50]:
        drawn = first[completion.ids[0]].log().item()
        assert completion.log_probs[0].item() == pytest.approx(drawn, abs=1e-4)
        # Self-certainty is that of the raw logits, whatever is drawn from.
        (raw,) = token_self_certainty(model, [[5, 6]], [completion.ids[:1]], eos_token_id=[])
        assert completion.self_certainty[0].item() == pytest.approx(raw.item(), abs=1e-4)


def counts_of(weights, rows=20_000, **settings):
    """How often each word is drawn, of distributions (V,) given by weights."""
    logits = torch.tensor(weights, dtype=torch.float32).log().expand(rows, -1).clone()
    torch.manual_seed(5)
    tokens, _, log_probs = draw(logits, temperature=1.0, **settings)
    assert log_probs.isfinite().all()
    return torch.bincount(tokens, minlength=len(weights))


@pytest.mark.parametrize("words", [2, 127, 128, 129, 300])
def test_each_word_gets_its_share_and_impossible_ones_nothing(words):
    weights = [0.0 if i % 3 == 1 else 1.0 + i % 7 for i in range(words)]
    counts = counts_of(weights)
    assert counts.sum() == 20_000
    assert len(counts) == words  # none beyond the vocabulary
    possible = torch.tensor(weights) > 0
    assert counts[~possible].sum() == 0
    if words > 2:
        meant = torch.tensor(weights, dtype=torch.float64)[possible]
        meant = meant / meant.sum() * 20_000
        assert scipy.stats.chisquare(counts[possible].double(), meant).pvalue > 1e-3


def test_peaks_and_rare_words():
    # A sixth of the probability, in 50,000 words of which none has more than 4e-6.
    weights = [4e-6] * 50_000
    weights[35_000] = 1.0
    counts = counts_of(weights, rows=500)
    rare = 500 - int(counts[35_000])
    assert scipy.stats.binomtest(rare, 500, 0.2 / 1.2).pvalue > 1e-3
    counts[35_000] = 0
    assert counts.max() == 1
    assert 0.3 < counts.nonzero().double().mean() / 50_000 < 0.7
    assert counts_of([1.0] + [1e-30] * 200)[0] == 20_000


def test_extreme_and_forbidden_logits():
    for large in (1e4, -1e4, 3e30):
        logits = torch.tensor([[0.0, large, -large, 5.0]] * 64)
        tokens, certainty, log_probs = draw(logits, temperature=0.7)
        assert (tokens == (1 if large > 0 else 2)).all()
        assert (log_probs == 0).all()
        assert certainty.isfinite().all()
    # Words ruled out in the raw logits: never drawn, and expected by the uniform distribution.
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0]] * 2000)
    for temperature in (0.0, 0.5, 1.0):
        torch.manual_seed(6)
        tokens, certainty, log_probs = draw(logits.clone(), temperature=temperature)
        assert set(tokens.tolist()) == ({1, 3} if temperature else {1})
        assert (certainty == math.inf).all()
        torch.testing.assert_close(log_probs, torch.full((2000,), -math.log(2)))


def test_rounding_at_an_edge_draws_no_impossible_word(monkeypatch):
    # Summed in fp32 these are more than they are, and the number drawn falls in between.
    weights = torch.zeros(1, 256)
    weights[0, 3], weights[0, 5] = 1.0, 1.5 * 2**-24
    assert weights[0].sum().double() > weights[0].double().sum()
    highest = torch.full((1, 1), 1 - 2**-53, dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *shape, **settings: highest)
    assert drawing._choose(weights).item() in (3, 5)


def test_self_certainty_is_read_where_it_is_wanted(llama):
    torch.manual_seed(1)
    read = sample_completions(llama, PROMPTS, max_new_tokens=4)
    torch.manual_seed(1)
    unread = sample_completions(llama, PROMPTS, max_new_tokens=4, self_certainty=False)
    for a, b in zip(read, unread, strict=True):
        assert a.ids == b.ids
        assert torch.equal(a.log_probs, b.log_probs)
        assert a.self_certainty.isfinite().all()
        assert b.self_certainty.isnan().all()


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0, 1.7])
@pytest.mark.parametrize(
    "warpers",
    [(), (TopKLogitsWarper(top_k=3),), (TopPLogitsWarper(top_p=0.6),)],
    ids=["all", "top_k", "top_p"],
)
def test_the_values_drawn_are_of_the_rows_given(temperature, warpers):
    torch.manual_seed(7)
    logits = 3 * torch.randn(40, 301)
    tokens, certainty, log_probs = draw(
        logits.clone(), temperature=temperature, warpers=LogitsProcessorList(warpers)
    )
    expected = -math.log(301) - torch.log_softmax(logits.double(), -1).mean(-1)
    torch.testing.assert_close(certainty.double(), expected, atol=1e-5, rtol=0)
    if not temperature:
        assert torch.equal(tokens, logits.argmax(-1))
    scores = logits.double() / (temperature or 1.0)
    for warper in warpers if temperature else ():
        scores = warper(None, scores)
    log_p = torch.log_softmax(scores, -1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(log_probs.double(), log_p, atol=1e-5, rtol=0)


# The keys and values


def test_the_cache_holds_what_transformers_does_and_grows_seldom():
    torch.manual_seed(8)
    ours, theirs = GrowingLayer(), DynamicLayer()
    places = []
    for step in range(300):
        rows = 4 if step <= 150 else 3
        keys, values = torch.randn(2, rows, 2, 5 if step == 0 else 1, 8)
        for layer in (ours, theirs):
            layer.update(keys, values)
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)
        assert ours.get_seq_length() == theirs.get_seq_length() == step + 5
        places.append((ours.keys.data_ptr(), ours.values.data_ptr()))
        if step == 150:
            for layer in (ours, theirs):
                layer.batch_select_indices(torch.tensor([3, 1, 1]))
    moves = sum(a != b for a, b in itertools.pairwise(places))
    assert moves <= 6


def test_a_step_copies_no_keys(llama, monkeypatch):
    grown = []
    original = cache._with_room
    monkeypatch.setattr(
        cache, "_with_room", lambda *arguments: grown.append(1) or original(*arguments)
    )
    sample_completions(llama, [A] * 3, max_new_tokens=50, eos_token_id=[])
    # Keys and values of two layers: the prompt, and once more when its rows are repeated.
    assert len(grown) == 2 * 2 * 2


# Models it cannot serve


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        *((lambda f=family: make_model(f), None) for family in ("Llama", "Qwen2", "Cohere")),
        (lambda: make_model("Mistral", sliding_window=None), None),
        (lambda: lora(make_model("Olmo2")), None),
        (lambda: make_model("Mistral"), "keep the keys"),
        (lambda: make_model("Gemma2"), "keep the keys"),
        (lambda: make_model("FalconH1"), "keep the keys"),
        (lambda: make_model("Mpt"), "take no positions"),
        (gpt1, "take no positions"),
        (prompt_tuned, "virtual tokens"),
        (bart, "cannot be scored"),
        (lambda: make_model("Llama").model, "cannot be scored"),
        (lambda: lora(make_model("Llama"), target_modules=["lm_head"]), "LM head is a"),
    ],
)
def test_why_a_model_is_left_to_generate(build, reason):
    said = reason_against(build())
    assert said is None if reason is None else reason in said


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("GPT2", "OPT")])
def test_every_model_it_serves_is_sampled_as_by_generate(family):
    model = make_model(family)
    if reason_against(model) is None:
        got = sample_completions(model, [A, B, A], max_new_tokens=5, temperature=0)
        ends = model.generation_config.eos_token_id
        assert [c.ids for c in got] == [
            generated(model, prompt, ends=ends, steps=5) for prompt in (A, B, A)
        ]


# On a GPU the host waits for what it reads


def waits_of_steps(model, prompts, steps, **settings):
    """Waits of `steps` more tokens than one."""
    counts = []
    for limit in (1, 1 + steps):
        with Waits() as waits:
            sample_completions(model, prompts, max_new_tokens=limit, **settings)
        counts.append(waits.count)
    return counts[1] - counts[0]


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(sampling, "_look_every", lambda device: 8)


@pytest.mark.parametrize("prompts", [[A, A], PROMPTS], ids=["equal", "padded"])
@pytest.mark.parametrize("settings", [{}, {"top_k": 5, "top_p": 0.9}, {"temperature": 0}])
def test_the_host_waits_once_in_8_tokens(prompts, settings, llama, as_on_a_gpu):
    assert waits_of_steps(llama, prompts, 24, eos_token_id=[], **settings) == 24 // 8
    # Rows that end cost no further waits.
    ends = list(range(10, 40))
    assert waits_of_steps(llama, prompts, 24, eos_token_id=ends, **settings) <= 24 // 8


def test_a_text_to_stop_at_costs_no_waits(as_on_a_gpu, tiny_model):
    model, tokenizer = load_model(str(tiny_model), dtype="float32")
    stop = StopStringCriteria(tokenizer, ["ab", "7"])
    assert waits_of_steps(model, [A, A], 24, eos_token_id=[], stop=stop) == 24 // 8


@pytest.mark.parametrize("family", ["Llama", "GPT2", "OPT"])
def test_looking_seldom_changes_no_token(family, monkeypatch):
    model = make_model(family)
    free = sample_completions(model, PROMPTS, max_new_tokens=10, temperature=0, eos_token_id=[])
    ends = [free[0].ids[2], free[1].ids[-1]]
    made = {}
    for every in (1, 8):
        monkeypatch.setattr(sampling, "_look_every", lambda device, every=every: every)
        torch.manual_seed(4)
        greedy, drawn = (
            sample_completions(model, PROMPTS, max_new_tokens=20, temperature=t, eos_token_id=e)
            for t, e in ((0, ends), (1.0, []))
        )
        made[every] = greedy, drawn
        short = sample_completions(model, PROMPTS * 4, max_new_tokens=13, eos_token_id=ends)
        for completion in short:
            assert not set(completion.ids[:-1]) & {*ends}
            assert completion.ids[-1] in ends or len(completion.ids) == 13
            assert len(completion.ids) == len(completion.log_probs)
    for seldom, often in zip(made[8], made[1], strict=True):
        assert [c.ids for c in seldom] == [c.ids for c in often]
        for a, b in zip(seldom, often, strict=True):
            torch.testing.assert_close(a.self_certainty, b.self_certainty)
            torch.testing.assert_close(a.log_probs, b.log_probs)
    assert min(len(c.ids) for c in made[8][0]) <= 3
