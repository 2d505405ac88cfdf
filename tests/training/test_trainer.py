"""Training: it learns what it is rewarded for, changes LoRA weights alone, and resumes."""

import math
import shutil
import types
from pathlib import Path

import bitsandbytes as bnb
import peft
import pytest
import torch
from policies import dequantized, linears, move_adapter
from trainers import CPU, make_trainer
from transformers import LlamaForCausalLM

from intuitor_lib.certainty.completions import end_tokens
from intuitor_lib.certainty.tokens import self_certainty
from intuitor_lib.policy.loading import at_commit, load_policy, load_run
from intuitor_lib.problems.problems import load_problems
from intuitor_lib.problems.prompts import prompt_token_ids, to_dataset
from intuitor_lib.recipe.constants import InputError
from intuitor_lib.store.run_store import RunStore
from intuitor_lib.training import trainer
from intuitor_lib.training.rewards.confidence import SelfCertaintyReward
from intuitor_lib.training.rewards.factory import reward_functions
from intuitor_lib.training.trainer import IntuitorTrainer, grpo_config
from intuitor_lib.training.training import train

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize(
    ("settings", "expected"), [(7, {1, 7}), ([7, 9], {1, 7, 9}), (None, {1, 8})]
)
def test_completions_end_where_an_evaluation_ends_them(settings, expected, tiny_recipe, tmp_path):
    policy = load_policy(tiny_recipe.replace(quantization="none"))
    policy.model.generation_config.eos_token_id = settings
    policy.model.config.eos_token_id = 8
    trainer = make_trainer(tiny_recipe, policy, tmp_path)
    for found in (
        end_tokens(*policy),
        trainer.eos_token_ids,
        trainer.generation_config.eos_token_id,
        end_tokens(trainer.model, policy.tokenizer),
    ):
        assert set(found) == expected


@pytest.mark.parametrize(
    ("values", "mean", "std"),
    [
        ([1.0, 1.0, None, None], 1.0, 0.0),
        ([None, None, 1.0, 0.0], 0.5, math.sqrt(0.5)),
        ([None] * 4, None, None),
    ],
)
def test_monitors_do_not_count_in_the_logged_reward(values, mean, std, tiny_recipe, tmp_path):
    """A reward for half of the problems, or for none, beside one of weight 0 for all."""

    def some(completions, **kwargs):
        return values

    def monitor(completions, **kwargs):
        return [5.0, 6.0, 7.0, 8.0]

    recipe = tiny_recipe.replace(quantization="none", max_steps=1, num_generations=2)
    trainer = make_trainer(
        recipe, load_policy(recipe), tmp_path, rewards=[some, monitor],
        asked={"reward_weights": [2.0, 0.0]},
    )  # fmt: skip
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["rewards/monitor/mean"] == 6.5
    for name, value in (("reward", mean), ("reward_std", std)):
        found = logged[name]
        assert (found is None) if value is None else found == pytest.approx(2 * value), name


@pytest.mark.parametrize(
    ("size", "accumulation", "group"), [(1, 8, 8), (2, 4, 4), (3, 2, 2), (4, 3, 6)]
)
def test_a_group_may_be_larger_than_a_micro_batch(size, accumulation, group, tiny_recipe, tmp_path):
    run = train(
        tiny_recipe.replace(
            per_device_train_batch_size=size, gradient_accumulation_steps=accumulation,
            num_generations=group, max_steps=1, quantization="none",
        ),
        runs=tmp_path,
    )  # fmt: skip
    assert run.finished
    assert run.metrics[0]["kl"] == 0


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


def test_trl_calls_the_methods_as_we_know(tiny_recipe, tmp_path):
    """Types and shapes that go in and come out of TRL's own way, in a step with a reference."""
    recipe = tiny_recipe.replace(
        max_steps=1, beta=0.1, num_generations=2, gradient_accumulation_steps=2
    )
    trainer = make_trainer(
        recipe, load_policy(recipe), tmp_path, rollout="generate", update="plain"
    )
    seen = []

    def watch(name):
        original = getattr(trainer, name)

        def method(*arguments, **settings):
            result = original(*arguments, **settings)
            seen.append((name, arguments, settings, result))
            return result

        setattr(trainer, name, method)

    names = ("_generate_single_turn", "_calculate_rewards", "_get_per_token_logps_and_entropies")
    for name in names:
        watch(name)
    trainer.train()
    calls = {name: [call for call in seen if call[0] == name] for name in names}
    ((_, arguments, settings, (ids, log_probs)),) = calls[names[0]]
    assert len(arguments) == 4
    assert not settings
    assert len(ids) == len(arguments[0]) == 8  # each prompt is repeated for its completions
    assert arguments[0][0] == arguments[0][1] != arguments[0][2]
    assert isinstance(arguments[0][0][0], int)
    assert log_probs is None
    ((_, (inputs, prompts, completions, id_lists), _, rewards),) = calls[names[1]]
    assert [len(part) for part in (inputs, prompts, completions, id_lists)] == [8] * 4
    assert id_lists == ids
    assert inputs[0]["prompt"] == prompts[0]
    assert rewards.shape == (8, 1)
    reference, *updates = calls[names[2]]
    assert len(updates) == 2
    assert reference[2]["batch_size"] == recipe.per_device_train_batch_size
    assert reference[3][1] is None
    for _, (_, token_ids, mask, kept), settings, (values, entropies, aux) in updates:
        assert token_ids.shape == mask.shape
        assert values.shape == entropies.shape == (4, kept)
        assert aux is None
        assert settings["compute_entropy"]
        assert all(value is None for key, value in settings.items() if "compute" not in key)


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize("source", ["sampling", "forward"])
def test_the_reward_is_eq_4_wherever_it_comes_from(source, quantization, tiny_recipe, tmp_path):
    recipe = tiny_recipe.replace(num_generations=2, per_device_train_batch_size=8, temperature=0.7,
                                 max_steps=1, quantization=quantization)  # fmt: skip
    policy = load_policy(recipe)
    move_adapter(policy.model)
    reward = SelfCertaintyReward(policy.model, policy.tokenizer, certainty_from=source)
    rows, told = [], []
    trainer = make_trainer(recipe, policy, tmp_path, rewards=reward, on_completions=rows.extend)
    original = trainer._calculate_rewards

    def by_hand(inputs, prompts, completions, ids_of):
        rewards = original(inputs, prompts, completions, ids_of)
        policy.model.eval()
        prompt_ids = prompt_token_ids(policy.tokenizer, prompts)
        for prompt, ids in zip(prompt_ids, ids_of, strict=True):
            with torch.no_grad():
                logits = policy.model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].double()
            told.append(self_certainty(logits[len(prompt) - 1 : -1]).mean().item())
        policy.model.train()
        return rewards

    trainer._calculate_rewards = by_hand
    trainer.train()
    assert len(rows) == len(told) == 8
    scores = [row["self_certainty"] for row in rows]
    assert scores == pytest.approx(told, abs=1e-5)
    assert max(scores) - min(scores) > 0.1
    read = [values.mean().item() for values in trainer._sampled_certainty or []]
    assert (read == pytest.approx(scores, abs=1e-9)) == (source == "sampling")


def test_a_reference_that_moves_is_refused(tiny_recipe, tmp_path):
    with pytest.raises(InputError, match="sync_ref_model=True"):
        make_trainer(
            tiny_recipe, load_policy(tiny_recipe), tmp_path, asked={"sync_ref_model": True}
        )


@pytest.mark.parametrize(
    ("way", "asked"),
    [
        ("rollout", {"min_p": 0.1}),
        ("rollout", {"repetition_penalty": 1.2}),
        ("rollout", {"generation_kwargs": {"num_beams": 1}}),
        ("update", {"entropy_coef": 0.1}),
        ("update", {"cast_lm_head_to_fp32": True}),
    ],
)
def test_what_ours_does_not_know_is_left_to_trl(way, asked, tiny_recipe, tmp_path):
    policy = load_policy(tiny_recipe)
    trainer = make_trainer(tiny_recipe, policy, tmp_path, asked=asked)
    assert trainer._grouped_rollouts is (way == "update")
    assert trainer._grouped_update is (way == "rollout")
    with pytest.raises(InputError, match=f"{way}='grouped'.*{next(iter(asked))}"):
        make_trainer(tiny_recipe, policy, tmp_path, asked=asked, **{way: "grouped"})
    off = {"min_p": None, "repetition_penalty": 1.0, "generation_kwargs": {}, "entropy_coef": 0.0}
    trainer = make_trainer(tiny_recipe, policy, tmp_path, asked=off)
    assert trainer._grouped_rollouts
    assert trainer._grouped_update


@pytest.mark.parametrize("steps_per_generation", [1, 2, 3, 6])
def test_an_epoch_has_as_many_updates_as_its_loop(steps_per_generation, tiny_recipe, tmp_path):
    """The order of problems changes where transformers begins a new epoch."""
    recipe = tiny_recipe.replace(gradient_accumulation_steps=3)
    asked = {"steps_per_generation": steps_per_generation}
    trainer = make_trainer(recipe, load_policy(recipe), tmp_path, asked=asked)
    loader = trainer.get_train_dataloader()
    updates = trainer.set_initial_training_values(trainer.args, loader)[1]
    assert trainer._get_train_sampler().updates == updates


def test_rollouts_for_several_updates_are_shuffled_as_by_trl(tiny_recipe, tmp_path):
    asked = {"steps_per_generation": 4}
    firsts = []
    for update in ("plain", "grouped"):
        policy = load_policy(tiny_recipe)
        trainer = make_trainer(tiny_recipe, policy, tmp_path, asked=asked, update=update)
        torch.manual_seed(3)
        trainer.model.train()
        batch = next(iter(trainer.get_train_dataloader()))
        firsts.append(trainer._prepare_inputs(batch)["prompt_ids"])
    assert torch.equal(*firsts)


@pytest.mark.parametrize("rollout", ["grouped", "generate"])
@pytest.mark.parametrize("update", ["grouped", "plain"])
def test_each_way_of_computing_trains(rollout, update, tiny_recipe, tmp_path):
    run = train(
        tiny_recipe.replace(rollout=rollout, update=update, rollout_batch_size=3), runs=tmp_path
    )
    assert run.finished
    assert all(math.isfinite(row["rewards/self_certainty/mean"]) for row in run.metrics)


@pytest.mark.parametrize("rollout", ["grouped", "generate"])
def test_rollouts_that_do_not_fit_are_made_in_halves(
    rollout, tiny_recipe, tmp_path, monkeypatch, caplog
):
    recipe = tiny_recipe.replace(rollout=rollout)
    asked = train(recipe.replace(rollout_batch_size=2), runs=tmp_path / "asked")
    sample, generate = trainer.sample_completions, LlamaForCausalLM.generate

    def sample_two(*arguments, batch_size, **settings):
        made = sample(*arguments, batch_size=batch_size, **settings)
        if batch_size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return made

    def generate_two(model, input_ids, **settings):
        made = generate(model, input_ids=input_ids, **settings)
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return made

    monkeypatch.setattr(trainer, "sample_completions", sample_two)
    monkeypatch.setattr(LlamaForCausalLM, "generate", generate_two)
    run = train(recipe, runs=tmp_path / "halved")
    assert "sampling again with batch_size=2" in caplog.text
    name = "rewards/self_certainty/mean"
    assert [row[name] for row in run.metrics] == [row[name] for row in asked.metrics]


@pytest.mark.parametrize("rollout", ["grouped", "generate"])
def test_sampling_and_update_are_the_same_policy(tiny_recipe, tmp_path, monkeypatch, rollout):
    """The gap of log-probabilities is rounding, and shows a sampler with other weights."""
    name = "sampling/sampling_logp_difference/mean"
    recipe = tiny_recipe.replace(rollout=rollout, temperature=0.8)
    rows = train(recipe, runs=tmp_path).metrics
    assert all(row["rollout_time"] > 0 for row in rows)
    if rollout == "generate":
        assert name not in rows[-1]  # transformers' way returns none
        return
    assert all(row[name] < 1e-5 for row in rows)
    original = trainer.sample_completions

    def other(*args, **kwargs):
        made = original(*args, **kwargs)
        return [one._replace(log_probs=one.log_probs + 0.5) for one in made]

    monkeypatch.setattr(trainer, "sample_completions", other)
    rows = train(recipe.replace(seed=5), runs=tmp_path).metrics
    assert [row[name] for row in rows] == pytest.approx([0.5] * len(rows), abs=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"quantization": "none"},
        {"quantization": "none", "use_lora": False, "learning_rate": 1e-4},
        {"quantization": "none", "use_lora": False, "optim": "paged_adamw_8bit"},
        {"beta": 0.0},
        {"annotator": "offline"},
        {"rewards": ("accuracy", "random"), "reward_weights": (0.7, 0.3)},
        {"gradient_checkpointing": True, "per_device_train_batch_size": 2,
         "gradient_accumulation_steps": 2},
    ],
    ids=["nf4", "lora", "full", "8 bits", "beta0", "offline", "mixed", "accumulated"],
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

    monkeypatch.setattr("intuitor_lib.training.training.load_policy", fail)
    assert train(tiny_recipe, runs=tmp_path).path == run.path


def test_a_signal_while_checkpoints_are_removed_leaves_a_finished_run(
    tiny_recipe, tmp_path, monkeypatch
):
    remove = shutil.rmtree

    def signalled(path, *arguments, **settings):
        if Path(path).name == "checkpoints":
            raise KeyboardInterrupt
        remove(path, *arguments, **settings)

    monkeypatch.setattr(shutil, "rmtree", signalled)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe, runs=tmp_path)
    monkeypatch.setattr(shutil, "rmtree", remove)
    (run,) = RunStore(tmp_path)
    assert run.finished
    assert run.verify() == {}
    assert train(tiny_recipe, runs=tmp_path).steps == 2


def test_a_base_of_the_hub_stays_at_the_commit_it_began_with(tiny_recipe, tmp_path, monkeypatch):
    run = train(tiny_recipe, runs=tmp_path)
    assert run.environment["commit"] is None  # a local folder has none
    loaded = []

    def load(recipe):
        loaded.append(recipe.model_revision)
        raise InputError("not here")

    (run.path / "SHA256SUMS").unlink()
    run.set_environment({**run.environment, "commit": "c0ffee"})
    monkeypatch.setattr("intuitor_lib.policy.loading.load_policy", load)
    with pytest.raises(InputError, match="not here"):
        load_run(run)
    assert at_commit(run.recipe.replace(model_revision="v1"), "c0ffee").model_revision == "v1"
    run.set_status("interrupted")
    checkpoint = run.path / "checkpoints" / "checkpoint-1"
    monkeypatch.setattr("intuitor_lib.training.training.newest_checkpoint", lambda *_: checkpoint)
    monkeypatch.setattr("intuitor_lib.training.training.load_policy", load)
    with pytest.raises(InputError, match="not here"):
        train(tiny_recipe, runs=tmp_path)
    assert loaded == ["c0ffee", "c0ffee"]


def test_moments_in_8_bits_make_nearly_the_same_update(tiny_recipe, tmp_path):
    """All weights: those with fewer than 4,096 values keep moments of 32 bits."""
    recipe = tiny_recipe.replace(quantization="none", use_lora=False, max_steps=4)
    start = dict(load_policy(recipe).model.named_parameters())
    moves = []
    for optim in ("adamw_torch", "paged_adamw_8bit"):
        model, _ = load_run(train(recipe.replace(optim=optim), runs=tmp_path))
        trained = dict(model.named_parameters())
        moves.append(torch.cat([(trained[n] - start[n]).flatten() for n in start]))
    alike = torch.cosine_similarity(*moves, dim=0).item()
    assert 0.95 < alike < 1 - 1e-7


@pytest.mark.parametrize(
    "changes",
    [{}, {"quantization": "none", "use_lora": False, "optim": "paged_adamw_8bit"}],
    ids=["nf4", "8 bits"],
)
def test_an_interrupted_run_goes_on(tiny_recipe, tmp_path, monkeypatch, changes):
    recipe = tiny_recipe.replace(max_steps=4, **changes)
    whole = train(recipe, runs=tmp_path / "whole")

    original = RunStore.open.__globals__["Run"].append
    written = []

    def interrupt(self, file, rows):
        original(self, file, rows)
        written.append(file)
        if written.count("metrics.jsonl") == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("intuitor_lib.store.runs.Run.append", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, runs=tmp_path / "broken")
    (run,) = RunStore(tmp_path / "broken")
    assert run.status["state"] == "interrupted"
    monkeypatch.setattr("intuitor_lib.store.runs.Run.append", original)
    nothing = types.SimpleNamespace(available=0)  # weights that were unpacked stay so
    monkeypatch.setattr("psutil.virtual_memory", lambda: nothing)
    monkeypatch.setenv("INTUITOR_MEMORY_CHECK", "0")
    run = train(recipe, runs=tmp_path / "broken")
    assert run.finished
    assert run.environment["unpacked"] is whole.environment["unpacked"] is True
    assert [row["step"] for row in run.metrics] == [1, 2, 3, 4]
    for a, b in zip(run.metrics, whole.metrics, strict=True):
        assert a["reward"] == b["reward"]


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


def test_snapshots_are_the_policy_on_the_way(tiny_recipe, tmp_path):
    recipe = tiny_recipe.replace(max_steps=3, snapshot_steps=1)
    run = train(recipe, runs=tmp_path)
    assert [*run.snapshots] == [1, 2, 3]
    assert run.verify() == {}

    def weights(step=None):
        policy = load_run(run, step=step)
        return torch.cat([p.detach().flatten() for n, p in policy.model.named_parameters()
            if "lora_B.default" in n])  # fmt: skip

    torch.testing.assert_close(weights(3), weights(), rtol=0, atol=0)
    assert not torch.equal(weights(1), weights(2))
    with pytest.raises(InputError, match="kept no snapshot of step 7; it kept: 1, 2, 3"):
        load_run(run, step=7)
    # Whether some are kept changes nothing of the training.
    without = train(recipe.replace(snapshot_steps=None), runs=tmp_path / "other")
    assert without.id == run.id
    assert without.snapshots == {}
    for a, b in zip(without.metrics, run.metrics, strict=True):
        assert a["reward"] == b["reward"]


@pytest.mark.parametrize("rewards", [("plurality",), ("negative_entropy",), ("random", "accuracy")])
def test_other_rewards_train(rewards, tiny_recipe, tmp_path):
    run = train(tiny_recipe.replace(rewards=rewards), runs=tmp_path)
    for name in (*rewards, "self_certainty", "accuracy"):
        assert all(f"rewards/{name}/mean" in row for row in run.metrics)


@pytest.mark.parametrize("how", ["sum_then_normalize", "normalize_then_sum"])
def test_mixed_rewards_are_normalized_together_or_each_by_itself(how, tiny_recipe, tmp_path):
    """The advantages of one update, by hand from the recorded rewards."""
    recipe = tiny_recipe.replace(
        rewards=("self_certainty", "random"),
        reward_weights=(0.01, 1.0),
        multi_objective_aggregation=how,
        num_generations=4,
        per_device_train_batch_size=8,
        max_steps=1,
    )
    policy = load_policy(recipe)
    rewards, weights = reward_functions(recipe, policy, labelled=True)
    args = grpo_config(recipe, tmp_path, torch.device("cpu"))
    args.reward_weights = weights
    problems = load_problems(recipe)
    seen = []
    trainer = IntuitorTrainer(
        policy.model, reward_funcs=rewards, args=args, processing_class=policy.tokenizer,
        train_dataset=to_dataset(problems.train, recipe), on_completions=seen.extend,
    )  # fmt: skip
    prepare, advantages = trainer._generate_and_score_completions, []

    def spy(*arguments):
        found = prepare(*arguments)
        advantages.append(found["advantages"])
        return found

    trainer._generate_and_score_completions = spy
    trainer.train()
    values = torch.tensor([[row["self_certainty"], row["random"]] for row in seen[:8]])
    groups = values.view(2, 4, 2)

    def normalized(x):
        return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-4)

    weigh = torch.tensor([0.01, 1.0])
    if how == "sum_then_normalize":
        expected = normalized((groups * weigh).sum(-1)).flatten()
        torch.testing.assert_close(advantages[0], expected, rtol=1e-3, atol=1e-3)
    else:  # TRL then normalizes the sum over the batch, which keeps the order and the signs
        mixed = (normalized(groups) * weigh).sum(-1).flatten()
        together = normalized((groups * weigh).sum(-1)).flatten()
        standard = (mixed - mixed.mean()) / (mixed.std() + 1e-4)
        torch.testing.assert_close(advantages[0], standard, rtol=1e-2, atol=1e-2)
        assert not torch.allclose(advantages[0], together, atol=1e-2)


def test_programming_problems_are_rewarded_by_their_tests(tiny_recipe, tmp_path):
    recipe = tiny_recipe.replace(
        model=str(longer_model(tiny_recipe, tmp_path)),
        dataset="embedded:humaneval",
        answer_column=None,
        rewards=("unit_tests",),
        max_prompt_length=1024,
        max_problems=8,
    )
    run = train(recipe, runs=tmp_path)
    assert all(row["rewards/unit_tests/mean"] == 0 for row in run.metrics)
    assert all("rewards/accuracy/mean" not in row for row in run.metrics)


def longer_model(recipe, folder):
    """The tiny model with room for a programming problem of many tokens."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(recipe.model, max_position_embeddings=2048)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "longer")
    AutoTokenizer.from_pretrained(recipe.model).save_pretrained(folder / "longer")
    return folder / "longer"


def test_self_certainty_rises_when_it_is_rewarded(tiny_recipe, tmp_path):
    """Learning as learning: the rise is larger than seeds vary, and a coin brings none."""

    def rise(seed, **changes):
        recipe = tiny_recipe.replace(
            seed=seed,
            max_steps=32,
            learning_rate=3e-3,
            per_device_train_batch_size=128,
            num_generations=16,
            temperature=1.0,
            save_steps=100,
            **changes,
        )
        values = [r["rewards/self_certainty/mean"] for r in train(recipe, runs=tmp_path).metrics]
        return sum(values[-3:]) / 3 - sum(values[:3]) / 3

    rises = torch.tensor([rise(seed) for seed in (1, 2, 3)])
    controls = torch.tensor([rise(seed, rewards=("random",)) for seed in (1, 2)])
    assert rises.mean() > rises.std()
    assert rises.min() > controls.max() + 3 * controls.std()
