"""Every notebook under every profile: resolved before anything is made, and executed to its end."""

import ast
import asyncio
import dataclasses
import json
import sys

import nbformat
import pytest
from conftest import character_tokenizer

import intuitor_lib
from intuitor_lib import paper
from intuitor_lib.cli.notebooks import find_notebooks
from intuitor_lib.paper import plan
from intuitor_lib.policy.tiny import make_tiny_model
from intuitor_lib.recipe import recipes
from intuitor_lib.recipe.recipe import Recipe
from intuitor_lib.recipe.recipes import PROFILES
from intuitor_lib.report.records import load_record

SHRUNK = {
    **{"max_steps": 2, "num_generations": 2, "per_device_train_batch_size": 4},
    **{"gradient_accumulation_steps": 1, "rollout_batch_size": None, "preflight_problems": 2},
    **{"max_prompt_length": 768, "max_completion_length": 8, "save_steps": 2, "dtype": "float32"},
}
every_notebook = pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: path.stem)


@pytest.fixture
def tiny_profiles(tmp_path, benchmark_files, monkeypatch):
    """Every profile with its settings, but a tiny Qwen2, few problems, and small numbers."""
    model = make_tiny_model(
        "Qwen2",
        tmp_path / "model",
        tokenizer=character_tokenizer(),
        max_position_embeddings=8192,
        initializer_range=0.2,
    )
    problems = tmp_path / "math.jsonl"
    rows = [
        {"problem": f"What is ${a}+{b}$?", "solution": f"\\boxed{{{a + b}}}"}
        for a in range(5)
        for b in range(5)
    ]
    problems.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    # Several, so that tests of some of them and of all have different problems.
    three = [
        {**row, "answer": "3", "unique_id": f"test/{i}.json"} for i, row in enumerate(rows[:3])
    ]
    (benchmark_files / "math500.jsonl").write_text("\n".join(map(json.dumps, three)))

    def shrunk(**settings):
        small = SHRUNK | {"model": str(model), "model_revision": None}
        if settings.get("dataset", Recipe.dataset) == Recipe.dataset:
            small["dataset"] = str(problems)
        elif settings.get("max_problems") or settings["dataset"].startswith("reasoning-gym"):
            small["max_problems"] = 12
        if settings.get("eval_problems"):
            small["eval_problems"] = 4
        if settings.get("eval_steps"):
            small["eval_steps"] = 1
        if settings.get("snapshot_steps"):
            small["snapshot_steps"] = 1
        return Recipe(**settings | small)

    monkeypatch.setattr(recipes, "Recipe", shrunk)
    suites = {
        profile: {
            name: dataclasses.replace(test, n=test.n and 1, max_new_tokens=8, batch_size=None)
            for name, test in suite.items()
        }
        for profile, suite in plan.SUITES.items()
    }
    tasks = {name: plan.TASKS[name] for name in ("differences", "decimal-products")}
    for module in [m for name, m in sys.modules.items() if name.startswith("intuitor_lib.paper")]:
        for name, fewer in {"SUITES": suites, "TASKS": tasks}.items():
            if name in vars(module):
                monkeypatch.setattr(module, name, fewer)
    monkeypatch.setattr(paper, "SUITES", suites, raising=False)
    monkeypatch.setenv("INTUITOR_BENCHMARKS", str(benchmark_files))
    monkeypatch.setenv("INTUITOR_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("intuitor_lib.paper.results.data_folder", lambda: None)
    return tmp_path


def run(path, profile, values):
    """Execute a notebook's code with a profile."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            source = cell.source.replace("%matplotlib inline", "")
            waiting = eval(
                compile(source, path.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), values
            )
            if waiting is not None:
                asyncio.run(waiting)
            if "parameters" in cell.metadata.get("tags", []):
                values["profile"] = profile


@pytest.mark.slow
@every_notebook
def test_every_cell_runs_under_a_gpu_profile(path, tiny_profiles):
    run(path, "gpu-12gb", {})
    record = load_record(path.stem, "gpu-12gb", tiny_profiles / "runs")
    assert record["profile"] == "gpu-12gb"


class Resolved(Exception):
    """Everything that a notebook asks for is there."""


@pytest.mark.parametrize("profile", [*PROFILES])
@every_notebook
def test_a_fault_is_told_before_anything_is_made(path, profile, tiny_profiles, monkeypatch):
    """The first call that would train or evaluate is reached, and nothing before it fails."""

    def refuse(*args, **kwargs):
        raise Resolved

    # The package first: it keeps what it finds in the modules.
    monkeypatch.setattr(intuitor_lib, "train", refuse, raising=False)
    monkeypatch.setattr(intuitor_lib, "evaluate", refuse, raising=False)
    monkeypatch.setattr("intuitor_lib.training.training.train", refuse)
    monkeypatch.setattr("intuitor_lib.evaluation.evaluation.evaluate", refuse)
    monkeypatch.setattr("intuitor_lib.evaluation.confidence.measure_confidence", refuse)
    with pytest.raises(Resolved):
        run(path, profile, {})
