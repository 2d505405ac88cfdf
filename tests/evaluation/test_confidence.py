"""Confidence of policies: each completion scored by whom it should be, with the right numbers."""

import pytest
import torch
from toys import toy

from intuitor_lib.certainty.completions import (
    completion_log_probs,
    token_entropy,
    token_self_certainty,
)
from intuitor_lib.evaluation.confidence import _examples, measure_confidence
from intuitor_lib.evaluation.subjects import find_subject
from intuitor_lib.policy.loading import load_policy
from intuitor_lib.store.run_store import RunStore


@pytest.fixture
def policies(tiny_recipe, tmp_path):
    """Two policies of different weights."""
    torch.manual_seed(0)
    first, second = (load_policy(tiny_recipe) for _ in range(2))
    with torch.no_grad():
        for name, parameter in second.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    store = RunStore(tmp_path)
    return {"a": find_subject(first, store), "b": find_subject(second, store)}


@pytest.fixture
def measured(policies):
    return measure_confidence(
        policies,
        {"a": ["a", "b"], "b": ["b"]},
        toy(5),
        n=4,
        num_samples=3,
        temperature=0.9,
        max_new_tokens=6,
    )


def test_the_pairs_asked_for_are_measured(measured):
    assert list(measured["rows"]) == ["a → a", "a → b", "b → b"]
    for rows in measured["rows"].values():
        assert [row["sample"] for row in rows] == [0, 1, 2] * 4
        assert len({row["id"] for row in rows}) == 4


def test_graders_share_completions_and_nothing_else(measured):
    same = ("id", "sample", "correct", "cluster", "tokens")
    own, other, theirs = measured["rows"].values()
    assert [[row[k] for k in same] for row in own] == [[row[k] for k in same] for row in other]
    assert all(x["self_certainty"] != y["self_certainty"] for x, y in zip(own, other, strict=True))
    assert [row["tokens"] for row in own] != [row["tokens"] for row in theirs] or (
        [row["cluster"] for row in own] != [row["cluster"] for row in theirs]
    )


def test_scores_are_means_over_the_tokens_of_the_grader(measured, policies):
    grader = policies["b"].load()
    shown = measured["tokens"]["a → b"]
    assert shown
    for example in shown:
        ids = [grader.tokenizer.convert_tokens_to_ids(text or "<e>") for text in example["text"]]
        rows = [
            row
            for row in measured["rows"]["a → b"]
            if row["tokens"] == len(ids)
            and row["self_certainty"]
            == pytest.approx(sum(example["self_certainty"]) / len(ids), abs=1e-3)
        ]
        assert rows
        prompt = grader.tokenizer.apply_chat_template(
            [{"role": "user", "content": example["prompt"]}],
            add_generation_prompt=True,
            return_dict=False,
        )
        arguments = (grader.model, [prompt], [ids])
        torch.testing.assert_close(
            token_self_certainty(*arguments)[0],
            torch.tensor(example["self_certainty"]),
            atol=1e-3,
            rtol=0,
        )
        assert rows[0]["entropy"] == pytest.approx(
            token_entropy(*arguments)[0].mean().item(), abs=1e-3
        )
        assert rows[0]["log_prob"] == pytest.approx(
            completion_log_probs(*arguments)[0].mean().item(), abs=1e-3
        )


def test_examples_are_the_surest_right_and_wrong_of_problems_with_both():
    def row(id, correct, value):
        return {"id": id, "correct": correct, "self_certainty": value}

    rows = [
        *(row("one kind", False, 9.0), row("one kind", False, 8.0)),
        *(row("both", False, 3.0), row("both", True, 1.0), row("both", True, 2.0)),
        row("both", False, None),
    ]
    assert _examples(rows) == [4, 2]
    assert _examples(rows[:2]) == [0]
