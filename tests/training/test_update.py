"""The grouped update: TRL's gradients and metrics, from each prompt computed once."""

import copy

import pytest
import torch
from models import SMALL, lora, make_model, prompt_tuned
from policies import move_adapter
from trainers import make_trainer
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

import intuitor_lib.training.trainer
from intuitor_lib.certainty.forward import can_share_prompts
from intuitor_lib.policy.loading import load_policy
from intuitor_lib.recipe.constants import InputError
from intuitor_lib.training.rewards.confidence import SelfCertaintyReward
from intuitor_lib.training.update import (
    add_completion_forward,
    completion_scores,
    grouped_order,
    reason_against,
)

# Two prompts padded left, their completions right; one completion is empty.
IDS = torch.tensor(
    [
        [0, 0, 5, 6, 21, 22, 23],
        [7, 8, 9, 10, 24, 0, 0],
        [0, 0, 5, 6, 25, 26, 0],
        [7, 8, 9, 10, 27, 28, 29],
        [0, 0, 5, 6, 0, 0, 0],
    ]
)
LENGTHS = torch.tensor([3, 1, 2, 3, 0])
MASK = torch.cat([IDS[:, :4] != 0, torch.arange(3) < LENGTHS[:, None]], 1).long()


@pytest.mark.parametrize("mode", ["eval", "train", "checkpointing"])
@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Gemma2", "Cohere"])
def test_scores_are_those_of_the_plain_model(family, mode):
    model = lora(make_model(family), lora_dropout=0.0)
    add_completion_forward(model, temperature=0.8)
    if mode == "checkpointing":
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train(mode != "eval")
    log_probs, entropies = completion_scores(model, IDS, MASK, 3)
    assert not entropies.requires_grad
    expected, plain_entropies = torch.zeros(2, 5, 3)
    for i, length in enumerate(LENGTHS.tolist()):
        ids = IDS[i][MASK[i].bool()]
        # Called without completions, the model does what it did.
        logits = model(input_ids=ids[None]).logits[0, len(ids) - length - 1 : -1].double() / 0.8
        log_p = torch.log_softmax(logits, -1)
        chosen = log_p[range(length), ids[len(ids) - length :]]
        expected = expected.index_put(
            (torch.full((length,), i), torch.arange(length)), chosen.float()
        )
        plain_entropies[i, :length] = -(log_p.exp() * log_p).sum(-1).detach()
    torch.testing.assert_close(log_probs, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(entropies, plain_entropies, atol=1e-5, rtol=1e-4)
    weights = [p for p in model.parameters() if p.requires_grad]
    upstream = torch.sin(torch.arange(15.0)).view(5, 3)
    ours = torch.autograd.grad((log_probs * upstream).sum(), weights)
    theirs = torch.autograd.grad((expected * upstream).sum(), weights)
    for a, b in zip(ours, theirs, strict=True):
        assert b.abs().max() > 1e-3
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_nothing_to_score():
    model = lora(make_model("Llama"), lora_dropout=0.0)
    add_completion_forward(model, temperature=1.0)
    for scores in completion_scores(model, IDS[4:], MASK[4:], 3):
        assert torch.equal(scores, torch.zeros(1, 3))


def trained_head():
    model = make_model("Llama").requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)
    return model


def mixture(**settings):
    small = {**SMALL, "moe_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**small, **settings))
    return model.requires_grad_(False)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: lora(make_model("Llama")), None),
        (lambda: lora(make_model("Gemma2")), None),  # whole sequences, but without padding
        (mixture, None),
        (lambda: mixture(output_router_logits=True), "auxiliary loss"),
        (trained_head, "LM head is trained"),
        (prompt_tuned, "virtual tokens"),
        (lambda: lora(make_model("Llama"), target_modules=["lm_head"]), "not a floating-point"),
    ],
)
def test_why_an_update_is_left_to_trl(build, reason):
    said = reason_against(build())
    assert said is None if reason is None else reason in said


def test_groups_side_by_side_and_the_longest_first():
    prompts = torch.tensor([[0, 5], [6, 7], [0, 5], [8, 9], [6, 7], [8, 9]])
    lengths = torch.tensor([1, 2, 3, 5, 2, 1])
    mask = (torch.arange(5) < lengths[:, None]).long()
    batch = {
        "prompt_ids": prompts,
        "completion_mask": mask,
        "advantages": torch.arange(6.0),
        "num_items_in_batch": torch.tensor(14),
        "nothing": None,
    }
    ordered = grouped_order(batch)
    assert ordered["advantages"].tolist() == [3, 5, 2, 0, 1, 4]
    assert ordered["prompt_ids"].tolist() == prompts[[3, 5, 2, 0, 1, 4]].tolist()
    assert ordered["completion_mask"].sum(1).tolist() == [5, 1, 3, 1, 2, 2]
    assert ordered["num_items_in_batch"] == 14
    assert ordered["nothing"] is None


# In a trainer


def fixed_rollouts(trainer, longest=6):
    """Rollouts that depend on the step and on the prompts alone, of unequal lengths."""
    calls = []

    def rollout(prompt_ids, *arguments, **settings):
        trainer._sampled_certainty = None
        generator = torch.Generator().manual_seed(len(calls))
        calls.append(prompt_ids)
        lengths = torch.randint(1, longest + 1, (len(prompt_ids),), generator=generator)
        return [
            torch.randint(6, 90, (int(n),), generator=generator).tolist() for n in lengths
        ], None

    trainer._generate_single_turn = rollout


def trainer_of(recipe, folder, update, **kwargs):
    policy = load_policy(recipe)
    move_adapter(policy.model, seed=3)
    reward = SelfCertaintyReward(policy.model, policy.tokenizer, certainty_from="forward")
    trainer = make_trainer(recipe, policy, folder, rewards=reward, update=update, **kwargs)
    assert trainer._grouped_update is (update == "grouped")
    return trainer


def one_update(recipe, folder, update):
    """Gradients of a whole update, and what each completion got."""
    trainer = trainer_of(recipe, folder, update)
    fixed_rollouts(trainer)
    batch = next(iter(trainer.get_train_dataloader()))
    parts = recipe.gradient_accumulation_steps
    trainer.current_gradient_accumulation_steps = parts
    trainer.model.train()
    if recipe.gradient_checkpointing:  # as `train` does
        trainer.model.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
    loss = sum(trainer.training_step(trainer.model, batch, None) for _ in range(parts))
    rows = {}
    for part in trainer._buffered_inputs:
        for i in range(len(part["prompt_ids"])):
            key = tuple(part["prompt_ids"][i].tolist() + part["completion_ids"][i].tolist())
            rows[key] = part["advantages"][i].item()
    grads = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}
    return loss, rows, grads, trainer


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"quantization": "none"},
        {"beta": 0.0},
        {"gradient_checkpointing": True},
        {"per_device_train_batch_size": 3, "num_generations": 4, "gradient_accumulation_steps": 4},
    ],
    ids=["nf4", "fp32", "beta0", "checkpointing", "split groups"],
)
@pytest.mark.filterwarnings("ignore:beta=0")
def test_the_gradients_of_an_update_are_trl_s(changes, tiny_recipe, tmp_path):
    settings = {"beta": 0.2, "num_generations": 4, "gradient_accumulation_steps": 3}
    recipe = tiny_recipe.replace(**{**settings, **changes})
    plain_loss, plain_rows, plain, _ = one_update(recipe, tmp_path / "plain", "plain")
    loss, rows, grads, trainer = one_update(recipe, tmp_path / "grouped", "grouped")
    assert rows == pytest.approx(plain_rows, abs=1e-4)
    assert max(map(abs, rows.values())) > 0.5
    assert loss.item() == pytest.approx(plain_loss.item(), abs=1e-5)
    assert grads.keys() == plain.keys()
    largest = max(g.abs().max() for g in plain.values())
    assert largest > 1e-3
    for name, value in plain.items():
        torch.testing.assert_close(grads[name], value, atol=2e-5 * largest.item(), rtol=1e-3)
    if recipe.per_device_train_batch_size % recipe.num_generations == 0:
        for part in trainer._buffered_inputs:
            assert len({tuple(row) for row in part["prompt_ids"].tolist()}) == 1
        longest = [int(p["completion_mask"].sum(1).max()) for p in trainer._buffered_inputs]
        assert longest == sorted(longest, reverse=True)
        assert len(set(longest)) > 1
    assert can_share_prompts(trainer.model) is not recipe.gradient_checkpointing


@pytest.mark.parametrize("iterations", [1, 2])
def test_runs_with_the_same_rollouts_tell_the_same(iterations, tiny_recipe, tmp_path):
    recipe = tiny_recipe.replace(
        max_steps=4,
        beta=0.1,
        num_iterations=iterations,
        num_generations=4,
        per_device_train_batch_size=8,  # at once: TRL averages metrics over micro-batches
    )
    logs = []
    for update in ("plain", "grouped"):
        trainer = trainer_of(recipe, tmp_path / update, update)
        fixed_rollouts(trainer)
        trainer.train()
        logs.append([row for row in trainer.state.log_history if "loss" in row])
    assert len(logs[0]) == len(logs[1]) == 4
    for plain, grouped in zip(*logs, strict=True):
        assert plain.keys() == grouped.keys()
        for key, value in plain.items():
            if "time" not in key and key != "grad_norm":
                assert grouped[key] == pytest.approx(value, rel=2e-3, abs=2e-4), key
        assert grouped["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-2)
    assert logs[0][-1]["kl"] != pytest.approx(logs[0][0]["kl"], rel=1e-2)  # it did train


@pytest.mark.parametrize(
    ("changes", "tolerance"), [({}, 2e-5), ({"dtype": "bfloat16"}, 0.15)], ids=["nf4", "bf16"]
)
def test_the_first_update_is_on_the_policy_that_sampled(
    changes, tolerance, tiny_recipe, tmp_path, monkeypatch
):
    recipe = tiny_recipe.replace(num_generations=4, num_iterations=2, temperature=0.8, **changes)
    trainer = trainer_of(recipe, tmp_path, "grouped")
    assert trainer._grouped_rollouts
    made = []
    original = intuitor_lib.training.trainer.sample_completions

    def sample(*arguments, **settings):
        made.extend(original(*arguments, **settings))
        return made

    monkeypatch.setattr(intuitor_lib.training.trainer, "sample_completions", sample)
    trainer.model.train()
    (part,) = [
        trainer._prepare_inputs(batch) for batch in [next(iter(trainer.get_train_dataloader()))]
    ]
    ids = torch.cat([part["prompt_ids"], part["completion_ids"]], 1)
    mask = torch.cat([part["prompt_mask"], part["completion_mask"]], 1)
    log_probs, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model, ids, mask, part["completion_ids"].shape[1]
    )
    sampled = {tuple(completion.ids): completion.log_probs for completion in made}
    assert len(part["completion_ids"]) == len(made) == 4
    for i, keep in enumerate(part["completion_mask"].bool()):
        row = tuple(part["completion_ids"][i][keep].tolist())
        torch.testing.assert_close(
            log_probs[i][keep].detach(), sampled[row], atol=tolerance, rtol=0
        )
        # And so are those that later iterations of the update are compared with.
        old = part["old_per_token_logps"][i][keep]
        torch.testing.assert_close(log_probs[i][keep].detach(), old, atol=tolerance, rtol=0)


def test_a_reference_of_a_started_adapter_is_scored_with_it(tiny_recipe, tmp_path):
    """TRL switches adapters around the same model."""
    trainer = trainer_of(tiny_recipe.replace(beta=0.1), tmp_path, "grouped")
    assert "ref" in trainer.model.peft_config
    fixed_rollouts(trainer)
    trainer.model.train()
    part = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    ids = torch.cat([part["prompt_ids"], part["completion_ids"]], 1)
    mask = torch.cat([part["prompt_mask"], part["completion_mask"]], 1)
    arguments = (trainer.model, ids, mask, part["completion_ids"].shape[1])
    start, _, _ = trainer._get_per_token_logps_and_entropies(*arguments)
    torch.testing.assert_close(part["ref_per_token_logps"], start.detach(), atol=2e-5, rtol=0)
    move_adapter(trainer.model, seed=9)
    now, _, _ = trainer._get_per_token_logps_and_entropies(*arguments)
    assert (now - start).abs().max() > 1e-2


def test_a_trained_head_is_left_to_trl(tiny_recipe, tmp_path):
    recipe = tiny_recipe.replace(quantization="none", use_lora=False, beta=0.1)
    policy = load_policy(recipe)
    trainer = make_trainer(recipe, policy, tmp_path)
    assert not trainer._grouped_update
    assert trainer._grouped_rollouts
    trainer.train()
    with pytest.raises(InputError, match=r"update='grouped' does not fit .* LM head is trained"):
        make_trainer(recipe, copy.copy(policy), tmp_path, update="grouped")
