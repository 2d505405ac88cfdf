"""The record of a training: a row for every step, whatever a rollout serves."""

from types import SimpleNamespace

import pytest
from trainers import CPU, make_trainer

from intuitor_lib.policy.loading import load_policy
from intuitor_lib.report.progress import LiveTraining
from intuitor_lib.store.run_store import RunStore
from intuitor_lib.training.recorder import Recorder
from intuitor_lib.training.trainer import grpo_config
from intuitor_lib.training.training import train


@pytest.fixture
def tiny_recipe(tiny_recipe):
    """Quicker still: not quantized."""
    return tiny_recipe.replace(quantization="none")


@pytest.fixture
def recorder(tiny_recipe, tmp_path):
    """Of a run that stops at a collapse; its held-out accuracy counts its measurements."""
    recipe = tiny_recipe.replace(max_steps=4, on_collapse="stop", eval_steps=1, eval_problems=4)
    run = RunStore(tmp_path / "runs").open(recipe, {"fingerprint": "0"})
    measured = []

    def measure():
        measured.append(None)
        return len(measured) / 100, 8

    return Recorder(recipe, run, LiveTraining("t", 4, shown=False), measure)


def firsts(run, column):
    return [row["step"] for row in run.metrics if column in row]


@pytest.mark.slow
@pytest.mark.parametrize(("iterations", "steps"), [(2, 4), (4, 5)])
def test_every_update_of_a_rollout_has_its_row(iterations, steps, tiny_recipe, tmp_path):
    recipe = tiny_recipe.replace(
        num_iterations=iterations, max_steps=steps, eval_steps=2, eval_problems=4, warmup_ratio=0.0
    )
    run = train(recipe, runs=tmp_path)
    every = list(range(1, steps + 1))
    for column in ("step", "loss", "grad_norm", "kl", "entropy", "step_time"):
        assert firsts(run, column) == every, column
    for column in ("reward", "completions/mean_length", "completions/repetition"):
        assert firsts(run, column) == every[::iterations], column
    assert firsts(run, "held_out/accuracy") == every[1::2]
    assert run.metrics[0]["kl"] == 0
    assert all(row["kl"] > 0 for row in run.metrics[1:])  # of the same rollout, too
    assert (run.steps, run.status["steps"]) == (steps, steps)
    assert {row["step"] for row in run.completions} == set(every[::iterations])
    # Every completion is kept, those of the first group token by token.
    assert len(run.completions) == recipe.completions_per_step * len(every[::iterations])
    first = [row for row in run.completions if "token_ids" in row]
    assert len(first) == recipe.num_generations * len(every[::iterations])
    for row in first:
        assert len(row["token_ids"]) == len(row["token_self_certainty"]) == row["tokens"]
        mean = sum(row["token_self_certainty"]) / row["tokens"]
        assert mean == pytest.approx(row["self_certainty"], abs=2e-3)


@pytest.mark.slow
def test_a_training_stopped_between_two_updates_ends_as_another(tiny_recipe, tmp_path, monkeypatch):
    recipe = tiny_recipe.replace(num_iterations=3, max_steps=7, eval_steps=2, eval_problems=4)
    whole = train(recipe, runs=tmp_path / "whole")
    original = Recorder.on_step_end

    def interrupt(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise KeyboardInterrupt
        original(self, args, state, control, **kwargs)

    monkeypatch.setattr(Recorder, "on_step_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, runs=tmp_path / "broken")
    monkeypatch.undo()
    run = train(recipe, runs=tmp_path / "broken")
    timed = ("step_time", "rollout_time")
    assert [{k: v for k, v in row.items() if k not in timed} for row in run.metrics] == [
        {k: v for k, v in row.items() if k not in timed} for row in whole.metrics
    ]
    assert run.completions == whole.completions


@pytest.mark.slow
@pytest.mark.parametrize("asked", [{"logging_steps": 3}, {"steps_per_generation": 2}])
def test_a_row_a_step_whatever_the_trainer_s_arguments(asked, recorder, tmp_path):
    policy = load_policy(recorder.recipe)
    trainer = make_trainer(
        recorder.recipe, policy, tmp_path, asked=asked, callbacks=[recorder],
        on_completions=recorder.completions,
    )  # fmt: skip
    trainer.train()
    rows = recorder.run.metrics
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["held_out/accuracy"] for row in rows] == [0.01, 0.02, 0.03, 0.04]
    rollouts = [1, 3] if "steps_per_generation" in asked else [1, 2, 3, 4]
    assert firsts(recorder.run, "reward") == firsts(recorder.run, "completions/distinct")
    assert firsts(recorder.run, "reward") == rollouts


def test_the_problems_with_a_label_are_counted(recorder):
    state, control = SimpleNamespace(global_step=1), SimpleNamespace(should_training_stop=False)
    made = [
        {"completion": str(i), "repetition": 0.0, "accuracy": None if i < 2 else 1.0}
        for i in range(recorder.recipe.completions_per_step)
    ]
    recorder.completions(made)
    recorder.on_log(None, state, control, logs={"loss": 0.1})
    groups = (recorder.recipe.completions_per_step - 2) / recorder.recipe.num_generations
    assert recorder.rows[-1]["rewards/accuracy/n"] == groups
    recorder.completions([row | {"accuracy": 0.0} for row in made])
    recorder.on_log(None, state, control, logs={"loss": 0.1})
    assert "rewards/accuracy/n" not in recorder.rows[-1]


@pytest.mark.parametrize(("broken", "alarmed"), [("grad_norm", False), ("loss", True)])
def test_an_update_that_the_loss_scaler_left_out_is_no_collapse(broken, alarmed, recorder):
    """fp16: the first scales are too large, and overflow on purpose."""
    state = SimpleNamespace(global_step=1, is_world_process_zero=True)
    control = SimpleNamespace(should_training_stop=False)
    logs = {"loss": 0.1, "grad_norm": 1.0, "kl": 0.0, broken: float("inf")}
    skipped = SimpleNamespace(step_was_skipped=True)
    recorder.on_log(None, state, control, logs=logs, optimizer=skipped)
    assert recorder.rows[-1]["update_skipped"] == 1.0
    assert ("collapse" in recorder.rows[-1]) == control.should_training_stop == alarmed
    other = SimpleNamespace(step_was_skipped=False)
    recorder.on_log(None, state, control, logs=logs, optimizer=other)
    assert recorder.rows[-1]["collapse"] == ["not finite"]


@pytest.mark.parametrize("broken", ["grad_norm", "loss"])
def test_the_monitor_sees_updates_without_a_rollout(broken, recorder):
    state = SimpleNamespace(global_step=1, is_world_process_zero=True)
    control = SimpleNamespace(should_training_stop=False)
    healthy = {"loss": 0.1, "grad_norm": 1.0, "kl": 0.0}
    recorder.on_log(None, state, control, logs={**healthy, "reward": 0.2})
    state.global_step = 2
    recorder.on_log(None, state, control, logs={**healthy, broken: float("nan")})
    assert recorder.rows[-1]["collapse"] == ["not finite"]
    assert control.should_training_stop
    recorder.on_log(None, state, control, logs={"train_loss": 0.1, "train_runtime": 3.0})
    assert [row["step"] for row in recorder.run.metrics] == [1, 2]


def test_the_checkpoint_before_a_collapse_of_rollouts_is_kept(tiny_recipe, tmp_path):
    """The monitor's window holds three rollouts, here of two updates each."""
    recipe = tiny_recipe.replace(num_iterations=2, save_steps=2)
    assert grpo_config(recipe, tmp_path, CPU).save_total_limit == 5
