"""Training: it learns what it is rewarded for, changes LoRA weights alone, and resumes."""

import math

import bitsandbytes as bnb
import peft
import pytest
import torch
from test_policy import dequantized, linears

from intuitor_lib.data import load_problems
from intuitor_lib.policy import Policy, load_policy
from intuitor_lib.prompts import to_dataset
from intuitor_lib.recipe import InputError
from intuitor_lib.rewards import SelfCertaintyReward
from intuitor_lib.runs import RunStore
from intuitor_lib.trainer import IntuitorTrainer, grpo_config, load_run, reward_functions, train

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


def make_trainer(recipe, policy: Policy, folder, rewards=None, **kwargs):
    problems = load_problems(recipe).train
    return IntuitorTrainer(
        policy.model,
        reward_funcs=rewards or SelfCertaintyReward(policy.model, policy.tokenizer),
        args=grpo_config(recipe, folder, CPU),
        train_dataset=to_dataset(problems, recipe),
        processing_class=policy.tokenizer,
        **kwargs,
    )


def test_the_papers_choices_reach_trl(tiny_recipe, tmp_path):
    args = grpo_config(tiny_recipe.replace(beta=0.01, num_iterations=2), tmp_path, CPU)
    assert (args.loss_type, args.scale_rewards, args.epsilon) == ("grpo", "group", 0.2)
    assert (args.beta, args.num_iterations, args.temperature) == (0.01, 2, 0.9)
    assert args.use_bias_correction_kl is False
    assert (args.lr_scheduler_type, args.warmup_steps) == ("cosine", 0.1)
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon) == (0.9, 0.999, 1e-8)
    assert (args.top_k, args.top_p, args.bf16) == (0, 1.0, False)


def test_only_lora_weights_change_and_nearly_all_of_them(tiny_recipe, tmp_path):
    """Trap: TRL casts adapters of 4-bit models to bf16, where small AdamW steps round away."""
    recipe = tiny_recipe.replace(max_steps=4, learning_rate=3e-5, lora_target_modules=("q_proj",))
    policy = load_policy(recipe)
    frozen = {n: p.clone() for n, p in policy.model.named_parameters() if not p.requires_grad}
    start = {n: p.clone() for n, p in policy.model.named_parameters() if p.requires_grad}
    weights = [dequantized(layer).clone() for layer in linears(policy.model)]
    trainer = make_trainer(recipe, policy, tmp_path)
    for name, parameter in policy.model.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32, name
            # Also not rounded to bf16 and back.
            assert torch.equal(parameter, start[name]), name
    trainer.train()
    now = dict(policy.model.named_parameters())
    assert {n for n, p in now.items() if p.requires_grad} == start.keys()
    moved = torch.cat([(now[n] != start[n]).flatten() for n in start if ".lora_B." in n])
    assert moved.float().mean() >= 0.99
    for name, value in frozen.items():
        assert torch.equal(now[name], value), name
    for layer, weight in zip(linears(policy.model), weights, strict=True):
        assert isinstance(layer, bnb.nn.Linear4bit)
        assert torch.equal(dequantized(layer), weight)


def test_small_steps_on_weights_that_are_not_small_survive(tiny_recipe, tmp_path):
    recipe = tiny_recipe.replace(learning_rate=3e-5, warmup_ratio=0.0, max_steps=3)
    policy = load_policy(recipe)
    start = {n: p.clone() for n, p in policy.model.named_parameters() if ".lora_A." in n}
    trainer = make_trainer(recipe, policy, tmp_path)
    trainer.train()
    now = dict(policy.model.named_parameters())
    moved = torch.cat([(now[n] != start[n]).flatten() for n in start])
    # LoRA-A gets a gradient from the second step on, when LoRA-B has left 0.
    assert moved.float().mean() > 0.9


def test_a_fresh_adapter_needs_no_copy_as_reference(tiny_recipe, tmp_path):
    trainer = make_trainer(tiny_recipe, load_policy(tiny_recipe), tmp_path)
    assert set(trainer.model.peft_config) == {"default"}


def test_a_started_adapter_is_kept_as_reference(tiny_recipe, tmp_path):
    first = train(tiny_recipe, runs=tmp_path)
    recipe = tiny_recipe.replace(adapter=str(first.adapter))
    policy = load_policy(recipe)
    trainer = make_trainer(recipe, policy, tmp_path / "next")
    start = peft.load_peft_weights(str(first.adapter))
    held = {n: p for n, p in trainer.model.named_parameters() if ".ref." in n}
    assert len(held) == len(start)
    for name, parameter in held.items():
        key = name.replace(".ref.weight", ".weight")
        assert torch.equal(parameter, start[key]), name


def test_the_loss_is_the_mean_over_tokens_then_completions(tiny_recipe, tmp_path):
    """Eq. 5 by hand on a batch of unequal lengths, KL term included."""
    recipe = tiny_recipe.replace(beta=0.5)
    policy = load_policy(recipe)
    trainer = make_trainer(recipe, policy, tmp_path)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if ".lora_B." in name:
                parameter.add_(0.05)
    prompts = torch.tensor([[10, 11], [12, 13]])
    completions = torch.tensor([[20, 21, 22], [23, 0, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    reference = torch.full((2, 3), -2.0)
    advantages = torch.tensor([1.0, -0.5])
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": prompts,
            "prompt_mask": torch.ones_like(prompts),
            "completion_ids": completions,
            "completion_mask": mask,
            "advantages": advantages,
            "ref_per_token_logps": reference,
            "num_items_in_batch": mask.sum(),
        },
    )
    expected = []
    for row, length in ((0, 3), (1, 1)):
        ids = torch.cat([prompts[row], completions[row, :length]])[None]
        with torch.no_grad():
            logits = policy.model(ids).logits[0, 1:-1] / recipe.temperature
        log_probs = torch.log_softmax(logits, -1)[range(length), completions[row, :length]]
        gap = reference[row, :length] - log_probs
        kl = gap.exp() - gap - 1
        expected.append((-advantages[row] + recipe.beta * kl).mean())
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)


def test_what_is_monitored_weighs_nothing(tiny_recipe):
    policy = load_policy(tiny_recipe)
    rewards, weights = reward_functions(tiny_recipe, policy, labelled=True)
    assert [r.__name__ for r in rewards] == ["self_certainty", "accuracy"]
    assert weights == [1.0, 0.0]
    rewards, weights = reward_functions(tiny_recipe, policy, labelled=False)
    assert [r.__name__ for r in rewards] == ["self_certainty"]
    grpo = tiny_recipe.replace(rewards=("accuracy",))
    rewards, weights = reward_functions(grpo, policy, labelled=True)
    assert [r.__name__ for r in rewards] == ["accuracy", "self_certainty"]
    assert weights == [1.0, 0.0]
    with pytest.raises(InputError, match="answer_column"):
        reward_functions(grpo, policy, labelled=False)


def test_accuracy_leaves_the_gradient_alone(tiny_recipe, tmp_path):
    with_answers = train(tiny_recipe, runs=tmp_path)
    without = train(tiny_recipe.replace(answer_column=None), runs=tmp_path)
    assert "rewards/accuracy/mean" in with_answers.metrics[0]
    assert "rewards/accuracy/mean" not in without.metrics[0]
    a, b = (peft.load_peft_weights(str(run.adapter)) for run in (with_answers, without))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"quantization": "none"},
        {"quantization": "none", "use_lora": False, "learning_rate": 1e-4},
        {"beta": 0.0},
        {"annotator": "offline"},
        {"rewards": ("accuracy", "random"), "reward_weights": (0.7, 0.3)},
        {"gradient_checkpointing": True, "per_device_train_batch_size": 2,
         "gradient_accumulation_steps": 2},
    ],
    ids=["nf4", "lora", "full", "beta0", "offline", "mixed", "accumulated"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:beta=0")
def test_every_kind_of_recipe_trains(tiny_recipe, tmp_path, changes):
    recipe = tiny_recipe.replace(**changes)
    run = train(recipe, runs=tmp_path)
    assert run.finished
    assert run.steps == recipe.max_steps == len(run.metrics)
    row = run.metrics[-1]
    for key in ("rewards/self_certainty/mean", "self_certainty/group_std", "entropy", "step_time"):
        assert math.isfinite(row[key]), key
    for key in ("completions/mean_length", "completions/clipped_ratio", "num_tokens"):
        assert math.isfinite(row[key]), key
    assert ("kl" in row) == (recipe.beta > 0)
    assert {"step", "prompt", "completion", "self_certainty"} <= run.completions[0].keys()
    assert run.environment["quantization"] == recipe.quantization
    model, _ = load_run(run)
    loaded = {n: p for n, p in model.named_parameters() if ".lora_B.default" in n}
    assert all(p.abs().sum() > 0 for p in loaded.values())


def test_a_finished_run_is_returned_and_nothing_is_loaded(tiny_recipe, tmp_path, monkeypatch):
    run = train(tiny_recipe, runs=tmp_path)

    def fail(recipe):
        raise AssertionError("loaded a policy for a run that exists")

    monkeypatch.setattr("intuitor_lib.trainer.load_policy", fail)
    assert train(tiny_recipe, runs=tmp_path).path == run.path


def test_an_interrupted_run_goes_on(tiny_recipe, tmp_path, monkeypatch):
    recipe = tiny_recipe.replace(max_steps=4)
    whole = train(recipe, runs=tmp_path / "whole")

    original = RunStore.open.__globals__["Run"].append
    written = []

    def interrupt(self, file, rows):
        original(self, file, rows)
        written.append(file)
        if written.count("metrics.jsonl") == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("intuitor_lib.runs.Run.append", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, runs=tmp_path / "broken")
    (run,) = RunStore(tmp_path / "broken")
    assert run.status["state"] == "interrupted"
    monkeypatch.setattr("intuitor_lib.runs.Run.append", original)
    run = train(recipe, runs=tmp_path / "broken")
    assert run.finished
    assert [row["step"] for row in run.metrics] == [1, 2, 3, 4]
    for a, b in zip(run.metrics, whole.metrics, strict=True):
        assert a["reward"] == pytest.approx(b["reward"], rel=1e-6)


def test_a_failure_is_recorded(tiny_recipe, tmp_path):
    with pytest.raises(InputError, match="fewer than the 50"):
        train(tiny_recipe.replace(per_device_train_batch_size=100), runs=tmp_path)
    (run,) = RunStore(tmp_path)
    assert run.status["state"] == "failed"
    assert "fewer than the 50" in run.status["error"]


def test_load_run_refuses_what_is_not_finished(tiny_recipe, tmp_path):
    problems = load_problems(tiny_recipe)
    run = RunStore(tmp_path).open(tiny_recipe, problems.describe())
    with pytest.raises(InputError, match="is new, not finished"):
        load_run(run)


def test_self_certainty_rises_when_it_is_rewarded(tiny_recipe, tmp_path):
    """Learning as learning: the rise is larger than seeds vary, and a coin brings none."""

    def rise(seed, **changes):
        recipe = tiny_recipe.replace(
            seed=seed,
            max_steps=16,
            learning_rate=1e-2,
            per_device_train_batch_size=128,
            num_generations=16,
            temperature=1.0,
            save_steps=100,
            **changes,
        )
        values = [r["rewards/self_certainty/mean"] for r in train(recipe, runs=tmp_path).metrics]
        return sum(values[-3:]) / 3 - sum(values[:3]) / 3

    rises = torch.tensor([rise(seed) for seed in (1, 2, 3)])
    controls = torch.tensor([rise(seed, rewards=("random",)) for seed in (1, 2, 3)])
    assert rises.mean() > rises.std()
    assert rises.min() > controls.max() + 3 * controls.std()
