"""Rewards: TRL's signature, the right number for the right completion."""

import json
import math
import statistics

import pytest
import torch
import trl
from datasets import Dataset
from policies import move_adapter

from intuitor_lib.certainty.tokens import entropy, self_certainty
from intuitor_lib.policy.loading import load_policy
from intuitor_lib.problems.prompts import prompt_token_ids
from intuitor_lib.recipe.constants import RecipeError
from intuitor_lib.training.rewards import answers
from intuitor_lib.training.rewards.answers import (
    AccuracyReward,
    PluralityReward,
    RandomReward,
    StatedReward,
    UnitTestReward,
)
from intuitor_lib.training.rewards.confidence import (
    LateSelfCertaintyReward,
    NegativeEntropyReward,
    SelfCertaintyReward,
)

PROMPTS = [[{"role": "user", "content": text}] for text in ("1+2=", "1+2=", "3+14=")]
COMPLETION_IDS = [[11, 12, 13, 1], [14, 15], [16]]
COMPLETIONS = [[{"role": "assistant", "content": "x"}]] * 3


def by_hand(policy, prompts, completion_ids, of_logits=self_certainty):
    """One sequence at a time, from the model's own logits, without padding."""
    scores = []
    for prompt, completion in zip(
        prompt_token_ids(policy.tokenizer, prompts), completion_ids, strict=True
    ):
        with torch.no_grad():
            logits = policy.model(torch.tensor([prompt + completion])).logits[0]
        predicting = logits[len(prompt) - 1 : -1]
        scores.append(of_logits(predicting).mean().item())
    return scores


@pytest.fixture
def policy(tiny_recipe):
    policy = load_policy(tiny_recipe)
    policy.model.eval()
    return policy


def test_online_follows_the_policy(policy):
    reward = SelfCertaintyReward(policy.model, policy.tokenizer)
    first = reward(PROMPTS, COMPLETIONS, COMPLETION_IDS)
    assert first == pytest.approx(by_hand(policy, PROMPTS, COMPLETION_IDS), rel=1e-4)
    move_adapter(policy.model)
    second = reward(PROMPTS, COMPLETIONS, COMPLETION_IDS)
    assert second == pytest.approx(by_hand(policy, PROMPTS, COMPLETION_IDS), rel=1e-4)
    assert second != pytest.approx(first, rel=1e-3)


def test_the_tokenizer_of_a_trainer_is_left_as_it_is(policy):
    """A template with a clock, which recipes stop, and contents in parts, as a trainer has them."""
    template = "{{ strftime_now('%S') }}" + policy.tokenizer.chat_template
    parts = template.replace("m['content']", "m['content'][0]['text']")
    for policy.tokenizer.chat_template in (template, parts):
        kept = policy.tokenizer.chat_template
        content = "1+1=" if kept == template else [{"type": "text", "text": "1+1="}]
        prompts = [[{"role": "user", "content": content}]]
        reward = SelfCertaintyReward(policy.model, policy.tokenizer)
        (value,) = reward(prompts, COMPLETIONS[:1], COMPLETION_IDS[:1])
        assert value > 0
        assert policy.tokenizer.chat_template == kept


@pytest.mark.parametrize("trained_before", [False, True])
def test_offline_stays_with_the_start(policy, trained_before):
    if trained_before:
        move_adapter(policy.model, seed=5)
    reward = SelfCertaintyReward(policy.model, policy.tokenizer, annotator="offline")
    start = by_hand(policy, PROMPTS, COMPLETION_IDS)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if ".lora_B.default" in name:
                parameter.add_(0.2)
    assert reward(PROMPTS, COMPLETIONS, COMPLETION_IDS) == pytest.approx(start, rel=1e-4)
    assert by_hand(policy, PROMPTS, COMPLETION_IDS) != pytest.approx(start, rel=1e-3)


def test_offline_copies_a_model_without_adapters(tiny_recipe):
    policy = load_policy(tiny_recipe.replace(quantization="none", use_lora=False))
    reward = SelfCertaintyReward(policy.model, policy.tokenizer, annotator="offline")
    start = reward(PROMPTS, COMPLETIONS, COMPLETION_IDS)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.1)
    assert reward(PROMPTS, COMPLETIONS, COMPLETION_IDS) == start


def test_plain_text_prompts_and_empty_completions(policy):
    reward = SelfCertaintyReward(policy.model, policy.tokenizer)
    scores = reward(["1+2=", "5"], ["3", ""], [[11], []])
    assert scores[0] > 0
    assert scores[1] is None


def test_the_group_deviation_is_told(policy):
    told = {}
    reward = SelfCertaintyReward(policy.model, policy.tokenizer)
    scores = reward(PROMPTS, COMPLETIONS, COMPLETION_IDS, log_metric=told.__setitem__)
    # Two completions of the first problem; the second problem has one, so no deviation.
    assert told["self_certainty/group_std"] == pytest.approx(
        abs(scores[0] - scores[1]) / math.sqrt(2)
    )


def test_the_group_deviation_is_of_the_groups_of_all_processes(policy, monkeypatch):
    """Two groups of four on four processes: each has half a group."""
    scores = [1.0, 2.0, 4.0, 8.0, 3.0, 3.5, 3.0, 9.0]
    prompts = ["1+1="] * 4 + ["2+2="] * 4
    told = {}
    reward = SelfCertaintyReward(policy.model, policy.tokenizer)

    def call(prompts, scores):
        none = [None] * len(prompts)
        settings = {"log_metric": told.__setitem__, "sampled_self_certainty": scores}
        reward(prompts, none, none, **settings)

    parts = [(prompts[i : i + 2], scores[i : i + 2]) for i in range(0, 8, 2)]
    hand_over(monkeypatch, call, parts)
    call(*parts[1])
    expected = (statistics.stdev(scores[:4]) + statistics.stdev(scores[4:])) / 2
    assert told["self_certainty/group_std"] == pytest.approx(expected)


def test_where_certainty_comes_from(policy):
    brought = [1.5, None, 2.5]
    by_forward = by_hand(policy, PROMPTS, COMPLETION_IDS)
    for source, annotator, sampled in (
        ("auto", "online", True),
        ("sampling", "online", True),
        ("forward", "online", False),
        ("auto", "offline", False),
    ):
        reward = SelfCertaintyReward(
            policy.model, policy.tokenizer, annotator=annotator, certainty_from=source
        )
        ask = (PROMPTS, COMPLETIONS, COMPLETION_IDS)
        scores = reward(*ask, sampled_self_certainty=brought)
        assert scores == (brought if sampled else pytest.approx(by_forward, rel=1e-4))
        if source == "sampling":
            with pytest.raises(ValueError, match="these rollouts kept no logits"):
                reward(*ask)
        else:
            assert reward(*ask) == pytest.approx(by_forward, rel=1e-4)
    # An empty completion was sampled with no token to be certain of.
    reward = SelfCertaintyReward(policy.model, policy.tokenizer)
    assert reward(*ask, sampled_self_certainty=[math.nan, 1.0, 2.0]) == [None, 1.0, 2.0]
    for settings, message in (
        ({"certainty_from": "logits"}, "choose 'auto', 'sampling' or 'forward'"),
        ({"certainty_from": "sampling", "annotator": "offline"}, "are the current policy's"),
    ):
        with pytest.raises(ValueError, match=message):
            SelfCertaintyReward(policy.model, policy.tokenizer, **settings)


def test_what_cannot_be_scored_is_refused(policy):
    with pytest.raises(ValueError, match="'some/model' is not a model instance"):
        SelfCertaintyReward("some/model", policy.tokenizer)
    with pytest.raises(ValueError, match="annotator='frozen'"):
        SelfCertaintyReward(policy.model, policy.tokenizer, annotator="frozen")
    parameter = next(policy.model.parameters())
    parameter.ds_id = 3  # how DeepSpeed ZeRO-3 marks a weight that lives elsewhere
    with pytest.raises(ValueError, match="sharded over processes"):
        SelfCertaintyReward(policy.model, policy.tokenizer)


def test_accuracy():
    reward = AccuracyReward()
    completions = [r"so \boxed{4}", "so 4", r"\boxed{5}", r"\boxed{4}"]
    assert reward(["?"] * 4, completions, ["4", "4", "4", None]) == [1.0, 0.0, 0.0, None]
    assert AccuracyReward(extraction="last_number")(["?"], ["so 4"], ["4"]) == [1.0]
    assert reward(["?"], ["4"]) == [None]


def test_negative_entropy_follows_the_policy(policy):
    reward = NegativeEntropyReward(policy.model, policy.tokenizer)
    for _ in range(2):
        expected = [-x for x in by_hand(policy, PROMPTS, COMPLETION_IDS, entropy)]
        assert reward(PROMPTS, COMPLETIONS, COMPLETION_IDS) == pytest.approx(expected, rel=1e-4)
        move_adapter(policy.model)
    assert reward(PROMPTS, COMPLETIONS, [[11], [], [12]])[1] is None
    with pytest.raises(ValueError, match="NegativeEntropyReward"):
        NegativeEntropyReward("a/name", policy.tokenizer)


def test_a_late_reward_drops_the_first_distribution_and_adds_the_one_behind(policy):
    reward = LateSelfCertaintyReward(policy.model, policy.tokenizer)
    prompts = prompt_token_ids(policy.tokenizer, PROMPTS)
    expected = []
    for prompt, ids in zip(prompts, COMPLETION_IDS, strict=True):
        with torch.no_grad():
            logits = policy.model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) :]
        assert len(logits) == len(ids)
        expected.append(self_certainty(logits).mean().item())
    assert reward(PROMPTS, COMPLETIONS, COMPLETION_IDS) == pytest.approx(expected, rel=1e-4)
    on_time = SelfCertaintyReward(policy.model, policy.tokenizer)
    assert on_time(PROMPTS, COMPLETIONS, COMPLETION_IDS) != pytest.approx(expected, rel=1e-2)
    assert reward(PROMPTS, COMPLETIONS, [[11], [], [12]])[1] is None


def grouped(*groups):
    """Prompts and completions of some groups, given by their answers."""
    prompts = [[{"role": "user", "content": f"q{i}"}] for i, g in enumerate(groups) for _ in g]
    texts = ["no idea" if a is None else f"I say {a}" for g in groups for a in g]
    return prompts, [[{"role": "assistant", "content": text}] for text in texts]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["12", "12", "15", "12"], [1, 1, 0, 1]),
        (["1/2", "0.5", "3", "3", "0.50"], [1, 1, 0, 0, 1]),  # equal answers written otherwise
        (["12", "15", "12", "15"], [1, 1, 1, 1]),  # a tie: all of the tied ones
        (["12", "15", "7"], [1, 1, 1]),  # no two agree: nothing is learned
        (["12", None, None, None], [1, 0, 0, 0]),  # no answer has no vote
        ([None, None], [0, 0]),
    ],
)
def test_the_group_votes(answers, expected):
    assert PluralityReward(extraction="last_number")(*grouped(answers)) == expected


def test_groups_vote_apart():
    reward = PluralityReward(extraction="last_number")
    values = reward(*grouped(["1", "1", "2"], ["2", "2", "1"]))
    assert values == [1, 1, 0, 1, 1, 0]


def hand_over(monkeypatch, reward, parts):
    """What processes gather if each calls `reward` with its part; then `gather_object` does so."""
    shared = []
    monkeypatch.setattr(answers, "gather_object", lambda pairs: shared.append(pairs) or pairs)
    for part in parts:
        reward(*part)
    everything = [pair for pairs in shared for pair in pairs]
    monkeypatch.setattr(answers, "gather_object", lambda pairs: everything)


def test_a_group_over_two_processes_votes_as_one(monkeypatch):
    prompts, completions = grouped(["1", "2", "2"], ["5", "5", "6"])
    reward = PluralityReward(extraction="last_number")
    whole = reward(prompts, completions)
    halves = [(prompts[part], completions[part]) for part in (slice(0, 3), slice(3, 6))]
    hand_over(monkeypatch, reward, halves)
    found = []
    for index, part in enumerate((slice(0, 2), slice(2, 4), slice(4, 6))):
        state = type("State", (), {"process_index": index})
        monkeypatch.setattr(answers, "join", lambda state=state: state)
        found += PluralityReward(extraction="last_number")(prompts[part], completions[part])
    assert found == whole


def test_only_a_box_votes_where_the_last_number_does_not_count():
    prompts, _ = grouped(["1", "1"])
    said = [[{"role": "assistant", "content": text}] for text in (r"\boxed{1}", "it is 1")]
    assert PluralityReward()(prompts, said) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("extraction", "expected"),
    [("boxed", [1, 0, 0]), ("alone", [1, 1, 0]), ("last_number", [1, 1, 1]), ("whole", [1, 1, 1])],
)
def test_any_stated_answer_counts(extraction, expected):
    said = [[{"role": "assistant", "content": t}] for t in (r"\boxed{1}", "2", "it is 3, no?")]
    assert StatedReward(extraction=extraction)(["1 + 1 ="] * 3, said) == expected


def test_programs_by_their_tests():
    tests = {
        "kind": "function",
        "form": "literal",
        "entry_point": "twice",
        "tests": [["2", "4"], ["-1", "-2"]],
    }
    right = "Here:\n```python\ndef twice(x):\n    return 2 * x\n```"
    wrong = "```python\ndef twice(x):\n    return 4\n```"
    said = [[{"role": "assistant", "content": text}] for text in (right, wrong, "no code", right)]
    column = [json.dumps(tests)] * 3 + [None]
    assert UnitTestReward()([None] * 4, said, tests=column) == [1.0, 0.0, 0.0, None]


def test_the_random_reward_is_fair_and_repeats(monkeypatch):
    class State:
        global_step = 3

    drawn = RandomReward(seed=1)(["?"] * 2000, trainer_state=State)
    assert set(drawn) == {0.0, 1.0}
    assert 0.46 < sum(drawn) / 2000 < 0.54
    assert drawn == RandomReward(seed=1)(["?"] * 2000, trainer_state=State)
    # However its processes were started: MPI sets no RANK.
    monkeypatch.delenv("RANK", raising=False)
    second = type("State", (), {"process_index": 1})
    with monkeypatch.context() as patch:
        patch.setattr(answers, "join", lambda: second)
        assert drawn != RandomReward(seed=1)(["?"] * 2000, trainer_state=State)
    assert drawn != RandomReward(seed=2)(["?"] * 2000, trainer_state=State)


def test_an_unknown_reward_is_refused(tiny_recipe):
    with pytest.raises(RecipeError, match="'confidence': choose from self_certainty"):
        tiny_recipe.replace(rewards=("confidence",))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer_class", "config_class"),
    [(trl.GRPOTrainer, trl.GRPOConfig), (trl.RLOOTrainer, trl.RLOOConfig)],
)
def test_it_works_in_stock_trainers(policy, tmp_path, trainer_class, config_class):
    model, tokenizer = policy
    reward = SelfCertaintyReward(model, tokenizer)
    dataset = Dataset.from_dict({"prompt": [*PROMPTS, PROMPTS[0]]})
    trainer = trainer_class(
        model=model,
        reward_funcs=reward,
        processing_class=tokenizer,
        train_dataset=dataset,
        args=config_class(
            output_dir=str(tmp_path),
            max_steps=2,
            num_generations=2,
            per_device_train_batch_size=4,
            max_completion_length=5,
            learning_rate=1e-2,
            logging_steps=1,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
    )
    seen = []
    original = reward.__class__.__call__

    def watched(self, prompts, completions, completion_ids, **kwargs):
        scores = original(self, prompts, completions, completion_ids, **kwargs)
        model.eval()
        seen.append((scores, by_hand(policy, prompts, completion_ids)))
        model.train()
        return scores

    reward.__class__.__call__ = watched
    try:
        trainer.train()
    finally:
        reward.__class__.__call__ = original
    logged = [row for row in trainer.state.log_history if "reward" in row]
    assert len(logged) == len(seen) == 2
    for row, (scores, expected) in zip(logged, seen, strict=True):
        assert scores == pytest.approx(expected, rel=1e-4)
        assert row["reward"] == pytest.approx(sum(scores) / len(scores), rel=1e-4)
        assert "rewards/self_certainty/mean" in row
