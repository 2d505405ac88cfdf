"""Trials: found on record, made when missing, never twice."""

import dataclasses

import notebook_results
import pytest
from grading_check import check_grading
from notebook_results import keep

from intuitor_lib.evaluation.benchmarks.benchmarks import held_out_benchmark, load_items
from intuitor_lib.grading.sandbox.confine import SandboxError
from intuitor_lib.paper import results, trials
from intuitor_lib.paper.plan import SUITES
from intuitor_lib.paper.trials import collect
from intuitor_lib.problems.problems import load_problems
from intuitor_lib.recipe.constants import SYSTEM_PROMPTS, InputError
from intuitor_lib.recipe.recipes import get_recipe
from intuitor_lib.store.run_store import RunStore


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of its own, so that the committed results of this one do not count."""
    root = tmp_path / "project"
    (root / "intuitor_lib").mkdir(parents=True)
    (root / "notebooks").mkdir()
    for module in (results, notebook_results):
        monkeypatch.setattr(module, "data_folder", lambda: root / "data")
    return root


@pytest.fixture
def made(monkeypatch):
    """Trainings and evaluations that were asked for, made up instead of done."""
    calls = []

    def training(self):
        calls.append(("train", self.folder))
        return self.recipe

    def evaluate(self, test, step):
        calls.append((test.name, self.folder, step))
        rows = [{"id": "a", "sample": 0, "correct": step is None, "tokens": 3}]
        return {"baselines": {"echo": {"value": 0.0}}, "rows": rows}

    monkeypatch.setattr(trials.TrialStore, "run", property(training))
    monkeypatch.setattr(trials, "_training", lambda recipe: {"metrics": [], "rows": []})
    monkeypatch.setattr(trials.TrialStore, "_evaluate", evaluate)
    return calls


def test_what_is_missing_is_made_once(project, made, tmp_path, capsys):
    ask = {"tests": ["in_domain"], "steps": (1,), "step_tests": ["transfer"], "runs": tmp_path}
    trials = collect(["base", "grpo"], "smoke", **ask)
    assert [call[0] for call in made] == ["in_domain", "transfer", "train", "in_domain", "transfer"]
    assert made[-1][-1] == 1
    (base,), (grpo,) = trials["base"], trials["GRPO"]
    assert base.rows("transfer", 0)[0]["correct"] is True  # of a base: its one state, as step 0
    assert grpo.rows("transfer", 1)[0]["correct"] is False
    assert not grpo.on_record
    assert base.baselines == {name: {"echo": {"value": 0.0}} for name in ("in_domain", "transfer")}
    told = capsys.readouterr().err
    assert "not on record, made now: base-s7-" in told
    assert "/transfer@1" in told
    made.clear()
    again = collect(["base", "grpo"], "smoke", **ask)
    assert made == []
    assert "made now" not in capsys.readouterr().err
    assert again["GRPO"][0].tables == grpo.tables
    assert again["GRPO"][0].on_record  # nothing had to be made
    with pytest.raises(KeyError, match="collected: in_domain, transfer@1"):
        grpo.rows("cool")


def test_kept_results_serve_a_clone_without_runs(project, made, tmp_path):
    collect(["grpo"], "smoke", tests=["in_domain"], runs=tmp_path / "here")
    written = keep("smoke", runs=tmp_path / "here")
    assert all(path.is_relative_to(project / "data" / "results" / "smoke") for path in written)
    made.clear()
    collect(["grpo"], "smoke", tests=["in_domain"], runs=tmp_path / "elsewhere")
    assert made == []
    collect(["grpo"], "smoke", tests=["in_domain"], runs=tmp_path / "elsewhere", retrain=True)
    assert [call[0] for call in made] == ["train", "in_domain"]
    with pytest.raises(InputError, match="execute the notebooks first"):
        keep("smoke", runs=tmp_path / "nothing")


@pytest.mark.parametrize(
    ("arms", "profile", "tests", "message"),
    [
        (["grop"], "smoke", [], "unknown arm 'grop'"),
        (["grpo"], "cpuu", [], "unknown profile 'cpuu'"),
        (["grpo"], "smoke", ["gsm"], "unknown test 'gsm'"),
    ],
)
def test_a_wrong_name_is_told_before_anything_is_made(arms, profile, tests, message, made):
    with pytest.raises(InputError, match=message):
        collect(arms, profile, tests=tests)
    assert made == []


def test_what_a_missing_test_needs_is_asked_for_before_anything_is_made(
    project, made, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("INTUITOR_BENCHMARKS", str(tmp_path))
    (tmp_path / "math500.jsonl").write_text("no JSON")

    def refuse(code):
        raise SandboxError("no namespaces here")

    monkeypatch.setattr(trials, "run_python", refuse)
    with pytest.raises(InputError, match="nothing was trained or tested yet") as told:
        collect(["grpo"], "cpu", tests=["in_domain", "math500", "code"], runs=tmp_path)
    assert "test math500: " in str(told.value)
    assert "test code: no namespaces here" in str(told.value)
    assert "in_domain" not in str(told.value)
    assert made == []


def test_a_run_without_the_snapshots_is_told_before_anything_is_made(project, made, tmp_path):
    store = trials.TrialStore("grpo", "smoke", 7, False, tmp_path)
    run = RunStore(tmp_path).open(store.recipe, load_problems(store.recipe).describe())
    ask = {"tests": ["in_domain"], "steps": [1], "step_tests": ["transfer"], "runs": tmp_path}
    run.append("metrics.jsonl", [{"step": 2}])
    run.finish()
    with pytest.raises(InputError, match="kept no snapshot of step 1"):
        collect(["base", "grpo"], "smoke", **ask)
    assert made == []
    (run.path / run.snapshot_name(1)).mkdir(parents=True)
    collect(["base", "grpo"], "smoke", **ask)
    assert made


def test_held_out_problems_are_asked_as_in_training_and_none_is_trained_on():

    recipe = get_recipe("intuitor", "cpu")
    items = load_items(held_out_benchmark(recipe))
    assert len(items) == recipe.eval_problems == 200
    assert items[0].prompt == f"{items[0].question} Answer with the number only."
    trained = {problem.prompt for problem in load_problems(recipe).train}
    assert len(trained) == 512
    assert not trained & {item.question for item in items}
    found = check_grading(held_out_benchmark(recipe), items[:10])
    assert (found["right"], found["wrong"]) == (10, 0)
    with pytest.raises(InputError, match="holds no problem out"):
        held_out_benchmark(recipe.replace(eval_problems=0, eval_steps=None))


@pytest.mark.parametrize(
    ("profile", "prompt"), [("gpu-12gb", "math-1.5b"), ("gpu-24gb", "math-3b")]
)
def test_a_model_is_tested_with_the_system_prompt_that_it_was_trained_with(profile, prompt):
    own, small = (get_recipe("intuitor", name) for name in (profile, "cpu"))
    for name in ("gsm8k", "in_domain", "in_domain_sampled"):
        benchmark = trials.benchmark_of(SUITES[profile][name], own)
        assert benchmark.system_prompt == SYSTEM_PROMPTS[prompt]
    code = trials.benchmark_of(SUITES[profile]["code"], own)
    assert code.system_prompt == SYSTEM_PROMPTS["code"]
    gsm8k = trials.benchmark_of(SUITES["cpu"]["gsm8k"], small)
    assert gsm8k.system_prompt == SYSTEM_PROMPTS["math-3b"]


@pytest.mark.parametrize("name", ["in_domain", "harder", "transfer", "reasoning"])
def test_no_answer_of_a_test_can_be_read_off_its_question(name):
    """All but word problems, where a number of the story may be the answer."""

    test = SUITES["cpu"][name]
    benchmark = trials.benchmark_of(test, get_recipe("intuitor", "cpu"))
    items = load_items(benchmark, test.n)
    assert len({item.prompt for item in items}) == test.n
    echo = benchmark.grader.baselines(items)["echo"]["value"]
    assert echo <= (0.1 if name == "reasoning" else 0)


def test_alarms_are_those_of_todays_rules():
    stored = [{"step": i, "kl": 2.0, "collapse": ["of an older rule"]} for i in range(1, 6)]
    recipe = get_recipe("grpo", "cpu")
    trial = trials.Trial("grpo", "GRPO", "cpu", recipe, {"metrics": stored})
    assert [row.get("collapse") for row in trial.metrics] == [None, None, None, ["kl"], ["kl"]]
    assert trial.metrics is trial.metrics  # judged once


def test_a_result_of_other_prompts_or_limits_is_not_taken(monkeypatch):
    """A test may ask as another recipe than the trained one, or as its benchmark says."""

    def found(name):
        store = trials.TrialStore("base", "cpu", 7, False, "nowhere")
        return store.find(*store.key(SUITES["cpu"][name], None)) is not None

    names = ("reasoning", "gsm8k", "in_domain")
    assert [found(name) for name in names] == [True, True, True]
    recipe_of, get_benchmark = trials.get_recipe, trials.get_benchmark

    def short(name, *arguments):
        recipe = recipe_of(name, *arguments)
        return recipe.replace(max_completion_length=96) if "reasoning" in name else recipe

    with monkeypatch.context() as patch:
        patch.setattr(trials, "get_recipe", short)
        assert [found(name) for name in names] == [False, True, True]

    def brief(name):
        return dataclasses.replace(get_benchmark(name), system_prompt="Be brief.")

    monkeypatch.setattr(trials, "get_benchmark", brief)
    assert [found(name) for name in names] == [True, False, True]
