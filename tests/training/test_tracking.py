"""Trackers: the run's name, every step, some completions; nothing else changes."""

import importlib.machinery
import sys
import types
from unittest import mock

import pytest

from intuitor_lib.recipe.constants import InputError
from intuitor_lib.store.run_store import RunStore
from intuitor_lib.training import tracking
from intuitor_lib.training.recorder import Recorder
from intuitor_lib.training.training import train

ALL = ("tensorboard", "trackio", "wandb")


@pytest.fixture
def tiny_recipe(tiny_recipe):
    """Quicker still: not quantized."""
    return tiny_recipe.replace(quantization="none", eval_problems=4, eval_steps=2)


@pytest.fixture
def service(monkeypatch):
    """Stand-ins for the three packages, which keep the calls they get, and for a W&B run."""
    calls = mock.MagicMock()
    calls.wandb.run = None

    def init(**settings):
        calls.wandb.run = mock.MagicMock(id=settings["id"])

    def finish(exit_code=0):
        calls.wandb.run = None

    calls.wandb.init.side_effect, calls.wandb.finish.side_effect = init, finish
    calls.trackio.context_vars.current_space_id.get.return_value = None
    errors = types.ModuleType("wandb.sdk.lib.config_util")
    errors.ConfigError = ValueError
    modules = {
        "tensorboard": types.ModuleType("tensorboard"),
        "torch.utils.tensorboard": calls.tensorboard,
        "trackio": calls.trackio,
        "wandb": calls.wandb,
        **{name: types.ModuleType(name) for name in ("wandb.sdk", "wandb.sdk.lib")},
        "wandb.sdk.lib.config_util": errors,
    }
    for name, module in modules.items():
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    # TRL has looked for it when it was imported.
    monkeypatch.setattr("trl.trainer.base_trainer.is_wandb_available", lambda: False)
    return calls


def logged(log, column):
    """The values of a metric in the calls of a tracker's `log`, by step."""
    rows = [call.args[0] for call in log.call_args_list]
    return {row["train/global_step"]: row[column] for row in rows if column in row}


@pytest.mark.parametrize("name", ALL)
def test_a_missing_package_is_told_before_anything_is_loaded(
    name, tiny_recipe, tmp_path, monkeypatch
):
    monkeypatch.setitem(tracking._AVAILABLE, name, lambda: False)
    monkeypatch.setattr("intuitor_lib.training.training.load_policy", pytest.fail)
    with pytest.raises(InputError, match=f"report_to='{name}' .* pip install {name}"):
        train(tiny_recipe.replace(report_to=name), runs=tmp_path)


@pytest.mark.slow
def test_every_step_reaches_every_tracker(service, tiny_recipe, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = train(tiny_recipe.replace(report_to=ALL), runs=tmp_path / "runs")
    plain = train(tiny_recipe, runs=tmp_path / "plain")
    assert (run.id, run.metrics[1]["loss"]) == (plain.id, plain.metrics[1]["loss"])
    assert not run.verify()
    assert not [*(tmp_path / "here").iterdir()]

    losses = {row["step"]: row["loss"] for row in run.metrics}
    logs = tmp_path / "runs" / "logs" / run.id
    begun = service.wandb.init.call_args.kwargs
    assert (begun["id"], begun["name"], begun["resume"]) == (run.id, run.id, "allow")
    assert (begun["project"], begun["dir"]) == ("intuitor", str(logs))
    assert begun["config"]["max_steps"] == tiny_recipe.max_steps
    service.wandb.finish.assert_called_once_with(exit_code=0)
    begun = service.trackio.init.call_args.kwargs
    assert (begun["name"], begun["project"], begun["resume"]) == (run.id, "intuitor", "allow")
    service.trackio.finish.assert_called_once_with()
    for tracker in (service.wandb, service.trackio):
        assert logged(tracker.log, "train/loss") == losses
        assert logged(tracker.log, "train/held_out/n") == {2: 4}
        assert set(logged(tracker.log, "completions")) == {1, 2}
        for step, call in enumerate(tracker.Table.call_args_list, 1):
            table = call.kwargs["dataframe"].to_dict("records")
            recorded = [row["completion"] for row in run.completions if row["step"] == step]
            assert [row["completion"] for row in table] == recorded
            assert "token_ids" not in table[0]
            assert "self_certainty" in table[0]

    (begun,) = service.tensorboard.SummaryWriter.call_args_list
    assert begun.kwargs == {"log_dir": str(logs), "purge_step": 1}
    writer = service.tensorboard.SummaryWriter.return_value
    scalars = [call.args for call in writer.add_scalar.call_args_list]
    assert {step: value for name, value, step in scalars if name == "train/loss"} == losses
    texts = [call.args for call in writer.add_text.call_args_list if call.args[0] == "completions"]
    assert [step for *_, step in texts] == [1, 2]
    assert texts[0][1].startswith("| step | problem | prompt | completion |")
    writer.close.assert_called()


@pytest.mark.slow
def test_a_resumed_training_goes_on_in_the_same_run(service, tiny_recipe, tmp_path, monkeypatch):
    original = Recorder.on_step_end

    def interrupt(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise OSError("the machine")
        original(self, args, state, control, **kwargs)

    recipe = tiny_recipe.replace(report_to=ALL)
    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "on_step_end", interrupt)
        with pytest.raises(OSError, match="the machine"):
            train(recipe, runs=tmp_path)
    service.wandb.finish.assert_called_once_with(exit_code=1)
    service.trackio.finish.assert_called_once_with()
    service.tensorboard.SummaryWriter.return_value.close.assert_called()
    train(recipe, runs=tmp_path)
    for tracker in (service.wandb, service.trackio):
        assert len({call.kwargs["name"] for call in tracker.init.call_args_list}) == 1
        assert tracker.init.call_count == 2
    begun = service.tensorboard.SummaryWriter.call_args_list
    assert [call.kwargs["purge_step"] for call in begun] == [1, 2]
    assert service.wandb.finish.call_args.kwargs == {"exit_code": 0}


@pytest.mark.slow
def test_a_wandb_run_of_the_users_is_used_and_left_open(service, tiny_recipe, tmp_path):
    service.wandb.run = mock.MagicMock(id="theirs")
    train(tiny_recipe.replace(report_to="wandb"), runs=tmp_path)
    service.wandb.init.assert_not_called()
    service.wandb.finish.assert_not_called()
    assert set(logged(service.wandb.log, "train/loss")) == {1, 2}


@pytest.mark.slow
def test_a_login_that_fails_is_told(service, tiny_recipe, tmp_path):
    service.wandb.init.side_effect = RuntimeError("api_key not configured")
    with pytest.raises(InputError, match=r"api_key not configured. Log in with `wandb login`"):
        train(tiny_recipe.replace(report_to=["wandb"]), runs=tmp_path)
    (run,) = RunStore(tmp_path)
    assert run.status["state"] == "failed"
    assert not run.metrics
