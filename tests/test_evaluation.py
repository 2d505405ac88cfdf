"""Measurements: greedy as `generate`, samples of their own, rows that summarize."""

import pytest
import torch
from test_policy import move_adapter

from intuitor_lib.certainty import completion_log_probs, score_completions
from intuitor_lib.data import Problem
from intuitor_lib.evaluation import generate, measure
from intuitor_lib.intervals import summarize
from intuitor_lib.policy import load_policy, reference_policy
from intuitor_lib.prompts import conversation, prompt_token_ids

PROBLEMS = [Problem(f"{i}+1=", str(i + 1), str(i), "test") for i in (1, 22, 333)]


@pytest.fixture
def policy(tiny_recipe):
    policy = load_policy(tiny_recipe)
    move_adapter(policy.model)
    return policy


@pytest.fixture
def prompt_ids(policy, tiny_recipe):
    conversations = [conversation(p.prompt, tiny_recipe) for p in PROBLEMS]
    return prompt_token_ids(policy.tokenizer, conversations)


def test_greedy_is_the_likeliest_token_after_token(policy, prompt_ids):
    completions = generate(policy, prompt_ids, max_new_tokens=6, temperature=0, batch_size=2)
    policy.model.eval()
    for prompt, completion in zip(prompt_ids, completions, strict=True):
        ids = list(prompt)
        for token in completion:
            with torch.no_grad():
                assert policy.model(torch.tensor([ids])).logits[0, -1].argmax() == token
            ids.append(token)
        ends = policy.tokenizer.eos_token_id
        assert len(completion) == 6 or completion[-1] == ends
        assert ends not in completion[:-1]


def test_sampling_repeats_by_seed_and_leaves_the_callers_randomness(policy, prompt_ids):
    def sample(seed):
        return generate(policy, prompt_ids, max_new_tokens=6, temperature=1.0, seed=seed)

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = sample(1)
    assert torch.equal(torch.rand(3), expected)
    assert first == sample(1)
    assert first != sample(2)


def test_the_policys_modes_come_back(policy, prompt_ids):
    policy.model.train()
    generate(policy, prompt_ids, max_new_tokens=2, temperature=0)
    assert all(module.training for module in policy.model.modules())


def test_rows_hold_what_was_said(policy, tiny_recipe, prompt_ids):
    rows = measure(policy, PROBLEMS, tiny_recipe, temperature=0.9, num_samples=2, seed=3, kl=True)
    assert [(row["id"], row["sample"]) for row in rows] == [
        (p.id, s) for p in PROBLEMS for s in (0, 1)
    ]
    assert all(isinstance(row["correct"], bool) for row in rows)
    again = [ids for ids in prompt_ids for _ in (0, 1)]
    completions = generate(policy, again, max_new_tokens=6, temperature=0.9, seed=3)
    assert [row["tokens"] for row in rows] == [len(c) for c in completions]
    scores = score_completions(policy.model, again, completions).tolist()
    assert [row["self_certainty"] for row in rows] == pytest.approx(scores)
    # KL by hand on the first samples: k3 from log-probabilities at the sampling temperature.
    for i in (0, 2, 4):
        arguments = (policy.model, [again[i]], [completions[i]])
        (ours,) = completion_log_probs(*arguments, temperature=0.9)
        with reference_policy(policy.model):
            (reference,) = completion_log_probs(*arguments, temperature=0.9)
        gap = reference - ours
        assert rows[i]["kl"] == pytest.approx(float((gap.exp() - gap - 1).mean()), rel=1e-4)
        assert rows[i]["kl"] > 0
        assert "kl" not in rows[i + 1]
    estimates = summarize(rows)
    assert (estimates["accuracy"].n, estimates["accuracy"].samples) == (3, 6)
    assert estimates["kl"].samples == 3


def test_a_problem_without_answer_is_not_graded(policy, tiny_recipe):
    rows = measure(
        policy, [Problem("1+1=", None, "x", "test")], tiny_recipe, temperature=0, certainty=False
    )
    assert rows[0]["correct"] is None
    assert "self_certainty" not in rows[0]
    assert "accuracy" not in summarize(rows)
