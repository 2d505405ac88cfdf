"""A batch before it begins: what is there, how much is left, for how long."""

import math
import os

import pytest
from test_trials import made, project

from intuitor_lib.cli.script import main
from intuitor_lib.evaluation.benchmarks import BENCHMARKS
from intuitor_lib.paper import batch
from intuitor_lib.paper.plan import arm_recipe, asked
from intuitor_lib.paper.trials import collect
from intuitor_lib.recipe.constants import InputError
from intuitor_lib.store.run_store import RunStore

__all__ = ["made", "project"]  # fixtures
PLAN = {"02_main_results": {"arms": ["grpo"]}}
RECIPE = arm_recipe("grpo", "smoke", 7)


def row(step, **changes):
    """Metrics of a step: 4 completions of 5 tokens, 2 prompts of 10 tokens, 3 of 8 s sampling."""
    base = {"step": step, "step_time": 8.0, "rollout_time": 3.0, "num_tokens": step * 4 * 15}
    return {**base, "completions/mean_length": 5.0, **changes}


def put_run(runs, recipe, rows, *, finished=False, at=None):
    run = RunStore(runs).open(recipe, {"fingerprint": recipe.digest})
    run.append("metrics.jsonl", rows)
    if finished:
        (run.path / "adapter").mkdir()
        run.finish()
    if at is not None:
        os.utime(run.path / "recipe.json", (at, at))
    return run


def the_training(work):
    (training,) = (job for job in work if job.test is None)
    return training


def test_a_speed_is_that_of_the_steps_after_the_first():
    assert (RECIPE.completions_per_step, RECIPE.problems_per_step) == (4, 2)
    speed = batch.Speed.of(RECIPE, [row(1, step_time=60.0, rollout_time=30.0), row(2), row(3)])
    assert (speed.step, speed.prompt, speed.length) == (8.0, 10.0, 5.0)
    assert speed.token == pytest.approx(3.0 / (2 * 10 + 4 * 5))
    assert batch.Speed.of(RECIPE, [row(1, step_time=60.0)]).step == 60.0
    assert batch.Speed.of(RECIPE, [row(1, rollout_time=None)]) is None
    # Completions that become shorter leave the prompt what it is.
    first = row(1, num_tokens=4 * 30, **{"completions/mean_length": 20.0})
    shorter = batch.Speed.of(RECIPE, [first, row(2, num_tokens=4 * 45)])
    assert (shorter.prompt, shorter.length) == (10.0, 5.0)
    # Several updates of one rollout: tokens of a rollout, and seconds of an update.
    second = {"step": 2, "step_time": 5.0}
    both = [row(1), second, row(3, num_tokens=2 * 4 * 15), {**second, "step": 4}]
    twice = batch.Speed.of(RECIPE.replace(num_iterations=2), both)
    assert (twice.prompt, twice.step) == (10.0, 5.0)


def test_a_batch_is_what_collecting_makes(project, made, tmp_path):
    work = batch.jobs("smoke", {**PLAN, "03_early_learning": {}}, runs=tmp_path)
    names = [(job.store.folder, job.test and job.store.key(job.test, job.step)[0]) for job in work]
    for name, settings in (("02_main_results", {"arms": ["grpo"]}), ("03_early_learning", {})):
        collect(**asked(name, "smoke", **settings), runs=tmp_path)
    calls = [(call[1], None) if call[0] == "train" else (call[1], call[0]) for call in made]
    steps = {call[2] for call in made if call[0] != "train"}
    at = {(folder, name.partition("@")[0] if name else name) for folder, name in names}
    assert set(calls) == at
    assert len(calls) == len(names)
    assert steps == {None, 1}
    assert all(job.done for job in work if job.test)


def test_what_is_left_of_a_training(project, made, tmp_path):
    def left():
        return the_training(batch.jobs("smoke", PLAN, runs=tmp_path))

    assert (left().steps_left, left().completions, left().done) == (2, 8, False)
    run = put_run(tmp_path, RECIPE, [row(1)])
    assert left().steps_left == 2  # without a checkpoint it begins anew
    (run.path / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    assert (left().steps_left, left().completions) == (1, 4)
    before = left()
    (run.path / "adapter").mkdir()
    run.finish()
    assert left().done
    assert before.done  # as the line of progress sees it


def test_a_training_on_record_is_done_again_for_a_test_that_is_not(project, made, tmp_path):
    collect(["grpo"], "smoke", tests=["in_domain"], runs=tmp_path)
    training = the_training(batch.jobs("smoke", PLAN, runs=tmp_path))
    assert (training.steps_left, training.done) == (2, False)
    collect(["grpo"], "smoke", tests=asked("02_main_results", "smoke")["tests"], runs=tmp_path)
    assert the_training(batch.jobs("smoke", PLAN, runs=tmp_path)).done


def test_parameters_of_notebooks_change_the_batch(project, tmp_path):
    def folders(notebook, **parameters):
        work = batch.jobs("smoke", {notebook: parameters}, runs=tmp_path)
        return {job.store.folder.partition("-s7")[0] for job in work}

    assert {"unquantized", "base-unquantized"} <= folders("09_reward_controls")
    assert "unquantized" not in folders("09_reward_controls", unquantized=False)
    assert "intuitor-code" in folders("05_emergent_reasoning", code_arms=["intuitor-code"])
    assert "intuitor-code" not in folders("05_emergent_reasoning")
    work = batch.jobs("smoke", {"03_early_learning": {"seeds": [8]}}, runs=tmp_path)
    assert {job.recipe.seed for job in work if job.test is None} == {8}
    with pytest.raises(InputError, match=r"seeds=8: give a list, as \[8\]"):
        batch.jobs("smoke", {"03_early_learning": {"seeds": 8}}, runs=tmp_path)


def test_with_retrain_committed_results_do_not_count(project, made, tmp_path):
    collect(["base"], "smoke", tests=["in_domain"], runs=project / "data")
    done = [job for job in batch.jobs("smoke", PLAN, runs=tmp_path) if job.done]
    assert [job.test.name for job in done] == ["in_domain"]
    again = {"02_main_results": {"arms": ["grpo"], "retrain": True}}
    assert not any(job.done for job in batch.jobs("smoke", again, runs=tmp_path))


def test_the_number_of_items_needs_no_file(project, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "load_items", None)
    work = batch.jobs("gpu-12gb", {"02_main_results": {}}, runs=tmp_path)
    items = {job.test.name: job.items for job in work if job.test}
    assert (items["in_domain"], items["gsm8k"], items["mmlu_pro"]) == (500, 1319, 12032)
    assert BENCHMARKS["humaneval"].size is None


def test_the_time_left_follows_the_speed(project, made, tmp_path):
    work = batch.jobs("smoke", PLAN, runs=tmp_path)
    assert math.isnan(batch.seconds(work, {}))
    put_run(tmp_path, RECIPE.replace(seed=5), [row(1), row(2)])  # another seed is as fast
    known = batch.speeds(tmp_path)
    assert the_training(work).seconds(known) == pytest.approx(2 * 8.0)
    sampled = next(job for job in work if job.test and job.test.name == "in_domain_sampled")
    token = known[batch.shape(RECIPE)].token
    assert sampled.seconds(known) == pytest.approx(4 * (10 + 4 * 5) * token)
    twice = {key: batch.assumed(RECIPE, 16.0) for key in known}
    assert the_training(work).seconds(twice) == pytest.approx(2 * 16.0)


def test_the_newest_run_of_a_shape_counts_unless_it_only_warmed_up(tmp_path):
    put_run(tmp_path, RECIPE.replace(seed=5), [row(1), row(2, step_time=9.0)], at=1000)
    put_run(tmp_path, RECIPE.replace(seed=3), [row(1), row(2, step_time=7.0)], at=2000)
    put_run(tmp_path, RECIPE.replace(seed=6), [row(1, step_time=60.0)], at=3000)
    assert batch.speeds(tmp_path)[batch.shape(RECIPE)].step == 7.0
    other = RECIPE.replace(max_completion_length=9)
    put_run(tmp_path, other, [row(1, step_time=60.0)], at=4000)
    assert batch.speeds(tmp_path)[batch.shape(other)].step == 60.0


def test_two_steps_measure_a_speed_and_it_is_kept(tiny_recipe, tmp_path):
    speed = batch.measure(tiny_recipe, tmp_path)
    assert 0 < speed.token < speed.step
    assert not list(RunStore(tmp_path))
    assert batch.speeds(tmp_path) == {batch.shape(tiny_recipe): speed}


def test_progress_counts_what_is_left_at_the_pace_so_far(project, made, tmp_path, monkeypatch):
    clock = iter([0.0, 500.0, 0.0])
    monkeypatch.setattr(batch.time, "monotonic", lambda: next(clock))
    progress = batch.Progress("smoke", PLAN, tmp_path)
    collect(["base"], "smoke", tests=["in_domain"], runs=tmp_path)
    put_run(tmp_path, RECIPE.replace(seed=5), [row(1), row(2)])
    # One test of 14 is done: 4 x (10 + 5) tokens of all, at .075 s each. It took 500 s.
    tests = 2 * (60 + 120 + 30 + 40 + 30 + 40) + 80
    expected = (2 * 8 + (tests - 60) * 0.075) * 500 / (60 * 0.075) / 3600
    assert progress() == f"  13 of 14 trainings and tests left: some {expected:.2f} hours"
    assert batch.Progress("smoke", {"08_model_families": {}}, tmp_path)() == ""


def test_a_fault_does_not_end_the_line_of_progress(project, made, tmp_path, monkeypatch):
    progress = batch.Progress("smoke", PLAN, tmp_path)
    assert (
        progress() == "  14 of 14 trainings and tests left: some 0.00 hours, and 14 not timed yet"
    )
    monkeypatch.setattr(batch, "speeds", lambda runs: 1 / 0)
    assert progress() == ""
    assert batch.Progress("smoke", {"03_early_learning": {"seeds": 8}}, tmp_path)() == ""


def test_the_plan_is_printed(project, made, tmp_path, capsys):
    asked = ["plan", "02", "-p", 'arms=["grpo"]', "--profile", "smoke", "--runs", str(tmp_path)]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("profile smoke: 02_main_results")
    assert "not known: --measure" in shown
    assert "0 of 14 trainings and tests are on record" in shown
    assert main([*asked, "--step-seconds", "3600"]) == 0
    shown = capsys.readouterr().out
    assert "given, half of it sampling at the full length" in shown
    assert "memory: " in shown
    assert "disk: " in shown
    (training,) = [line.split() for line in shown.splitlines() if line.startswith("grpo-s7-")]
    assert training[1:4] == ["2", "6", str(2 * 4 + 4 + 16 + 2 + 4 + 2 + 4)]


def test_a_plan_has_its_own_notebooks_and_profile(capsys, tmp_path, monkeypatch):
    assert main(["plan", "02", "--plan", "evening"]) == 2
    assert "leave the names out" in capsys.readouterr().err
    assert main(["plan", "02", "-p", "profile=smoke"]) == 2
    assert "use --profile smoke" in capsys.readouterr().err
    seen = []
    monkeypatch.setattr(batch, "jobs", lambda *args, **kwargs: seen.append(args) or [])
    assert main(["plan", "--plan", "evening"]) == 0
    assert main(["plan", "--plan", "weekend", "--profile", "gpu-24gb"]) == 0
    assert main(["plan", "--plan", "everything", "--profile", "gpu-24gb"]) == 0
    arms = {"arms": ["grpo", "intuitor", "random"]}
    assert seen[0] == ("gpu-evening", {"02_main_results": arms})
    assert seen[1][0] == "gpu-24gb"
    assert seen[1][1]["03_early_learning"] == {}
    assert {"00_quickstart", "09_reward_controls"} <= set(seen[2][1])
