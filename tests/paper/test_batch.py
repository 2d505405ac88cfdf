"""A batch before it begins: what is there, how much is left, for how long."""

import math

import pytest
from test_trials import made, project  # noqa: F401

from intuitor_lib.cli.script import main
from intuitor_lib.paper import batch
from intuitor_lib.paper.plan import arm_recipe
from intuitor_lib.paper.trials import collect
from intuitor_lib.store.run_store import RunStore

PLAN = {"02_main_results": {"arms": ["grpo"]}}


def row(step, **changes):
    """Metrics of a step: 4 completions of 5 tokens, 2 prompts of 10 tokens, 3 of 8 s sampling."""
    base = {"step": step, "step_time": 8.0, "rollout_time": 3.0, "num_tokens": step * 4 * 15}
    return {**base, "completions/mean_length": 5.0, **changes}


def put_run(runs, recipe, rows):
    run = RunStore(runs).open(recipe, {"fingerprint": recipe.digest})
    run.append("metrics.jsonl", rows)
    return run


def test_a_speed_is_that_of_the_steps_after_the_first():
    recipe = arm_recipe("grpo", "smoke", 7)
    assert (recipe.completions_per_step, recipe.problems_per_step) == (4, 2)
    speed = batch.Speed.of(recipe, [row(1, step_time=60.0, rollout_time=30.0), row(2), row(3)])
    assert (speed.step, speed.prompt, speed.length) == (8.0, 10.0, 5.0)
    assert speed.token == pytest.approx(3.0 / (2 * 10 + 4 * 5))
    assert batch.Speed.of(recipe, [row(1, step_time=60.0)]).step == 60.0
    assert batch.Speed.of(recipe, [row(1, rollout_time=None)]) is None


def test_a_batch_lists_everything_once_with_what_is_left(project, made, tmp_path):  # noqa: F811
    collect(["base"], "smoke", tests=["in_domain"], runs=tmp_path)
    put_run(
        tmp_path, arm_recipe("grpo", "smoke", 7), [row(1)]
    )  # interrupted after one of two steps
    work = batch.jobs("smoke", PLAN, runs=tmp_path)
    assert len(work) == 1 + 6 + 7
    training = next(job for job in work if job.test is None)
    assert (training.steps_left, training.completions) == (1, 4)
    assert [job.test.name for job in work if job.done] == ["in_domain"]
    both = batch.jobs("smoke", {**PLAN, "03_early_learning": {}}, runs=tmp_path)
    shared = {(job.store.folder, job.test and job.store.key(job.test, job.step)[0]) for job in both}
    assert len(both) == len(shared)


def test_the_time_left_follows_the_speed(project, made, tmp_path):  # noqa: F811
    work = batch.jobs("smoke", PLAN, runs=tmp_path)
    assert math.isnan(batch.seconds(work, {}))
    recipe = arm_recipe("grpo", "smoke", 7)
    put_run(tmp_path, recipe.replace(seed=5), [row(1), row(2)])  # another seed is as fast
    known = batch.speeds(tmp_path)
    training = next(job for job in work if job.test is None)
    assert training.seconds(known) == pytest.approx(2 * 8.0)
    sampled = next(job for job in work if job.test and job.test.name == "in_domain_sampled")
    token = known[batch.shape(recipe)].token
    assert sampled.seconds(known) == pytest.approx(4 * (10 + 4 * 5) * token)
    twice = {key: batch.assumed(recipe, 16.0) for key in known}
    assert training.seconds(twice) == pytest.approx(2 * 16.0)


def test_two_steps_measure_a_speed_and_it_is_kept(tiny_recipe, tmp_path):
    speed = batch.measure(tiny_recipe, tmp_path)
    assert 0 < speed.token < speed.step
    assert not list(RunStore(tmp_path))
    assert batch.speeds(tmp_path) == {batch.shape(tiny_recipe): speed}


def test_progress_counts_what_is_left_at_the_pace_so_far(project, made, tmp_path, monkeypatch):  # noqa: F811
    clock = iter([0.0, 50.0, 50.0])
    monkeypatch.setattr(batch.time, "monotonic", lambda: next(clock))
    progress = batch.Progress("smoke", PLAN, tmp_path)
    put_run(tmp_path, arm_recipe("grpo", "smoke", 7).replace(seed=5), [row(1), row(2)])
    collect(["base"], "smoke", tests=["in_domain"], runs=tmp_path)
    known = batch.speeds(tmp_path)
    left = batch.jobs("smoke", PLAN, runs=tmp_path)
    done = next(job for job in left if job.done).seconds(known)
    expected = batch.hours(batch.seconds(left, known) * 50.0 / done)
    assert progress() == f"  13 trainings and tests left, some {expected} hours"
    assert batch.Progress("smoke", {"08_model_families": {}}, tmp_path)() == ""


def test_the_plan_is_printed(project, made, tmp_path, capsys):  # noqa: F811
    asked = ["plan", "02", "-p", 'arms=["grpo"]', "--profile", "smoke", "--runs", str(tmp_path)]
    assert main(asked) == 0
    shown = capsys.readouterr().out
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
    seen = []
    monkeypatch.setattr(batch, "jobs", lambda *args, **kwargs: seen.append(args) or [])
    assert main(["plan", "--plan", "evening", "--profile", "gpu-24gb"]) == 0
    assert main(["plan", "--plan", "weekend", "--profile", "gpu-24gb"]) == 0
    arms = {"arms": ["grpo", "intuitor", "random"]}
    assert seen[0] == ("gpu-evening", {"02_main_results": arms})
    assert seen[1][0] == "gpu-24gb"
    assert seen[1][1]["03_early_learning"] == {}
