"""Which module may import which, and which must stay free of torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import intuitor_lib

PACKAGE = "intuitor_lib"
FOLDER = Path(intuitor_lib.__file__).parent
MODULES = {path.stem for path in FOLDER.glob("*.py")}

# Data flows one way: recipe, problems and prompts, policy, rewards, trainer, run store,
# evaluation, figures and report. Trainer and evaluation meet only through the run store.
MAY_IMPORT = {
    "recipe": set(),
    "head": set(),
    "forward": {"head"},
    "linear": set(),
    "certainty": {"forward", "head"},
    "rollouts": {"certainty", "forward", "head", "linear"},
    "update": {"forward", "head"},
    "intervals": set(),
    "recipes": {"recipe"},
    # answers
    "equivalence": set(),
    "answers": {"equivalence"},
    "answer_forms": set(),
    # model-written programs
    "syscalls": set(),
    "cell": {"syscalls"},
    "jail": {"cell", "syscalls"},
    "sandbox": set(),
    "unit_tests": {"sandbox"},
    # problems and prompts
    "tables": {"recipe"},
    "program_items": set(),
    "programming": {"program_items"},
    "program_outputs": set(),
    "instructions": set(),
    "data": {"recipe", "tables", "programming"},
    "prompts": {"recipe", "data"},
    # policies
    "embedded": {"progress"},
    "progress": {"figures"},
    "policy": {"recipe", "prompts", "progress", "embedded", "processes"},
    "rewards": {
        *("answers", "answer_forms", "certainty", "policy", "processes", "prompts"),
        "unit_tests",
    },
    # the run store
    "files": set(),
    "locks": {"files"},
    "checkpoints": {"files"},
    "runs": {"recipe", "data", "files", "locks", "checkpoints"},
    # on the way
    "interrupts": set(),
    "monitor": set(),
    "savepoints": {"recipe", "checkpoints", "interrupts", "processes"},
    "recorder": {"recipe", "files", "monitor", "processes", "progress", "runs"},
    "preflight": {
        *("recipe", "data", "prompts", "policy", "answers", "certainty", "rollouts"),
        *("files", "intervals", "linear", "monitor", "runs"),
    },
    "processes": {"recipe"},
    "serving": {"recipe"},
    # memory
    "memory_configs": {"recipe", "embedded"},
    "memory_meta": {"recipe", "policy", "linear"},
    "memory_trace": {
        *("recipe", "policy", "certainty", "forward", "head", "linear", "rollouts", "update"),
        "memory_meta",
    },
    "memory": {"recipe", "linear", "policy", "memory_configs", "memory_meta", "memory_trace"},
    "memory_advice": {
        *("recipe", "data", "embedded", "processes", "prompts", "memory", "memory_configs"),
    },
    "memory_check": {
        *("recipe", "recipes", "data", "embedded", "memory", "memory_advice", "trainer"),
        *("grpo", "scoring_memory"),
    },
    "memory_table": {"recipe", "recipes", "memory"},
    "grpo": {
        *("recipe", "policy", "rewards", "rollouts", "update", "linear", "processes", "serving"),
        *("monitor", "sandbox", "savepoints"),
    },
    "trainer": {
        "grpo",
        *("recipe", "recipes", "data", "prompts", "policy"),
        *("answers", "certainty", "rewards", "progress", "runs"),
        *("processes", "serving", "linear", "rollouts", "update", "memory_advice"),
        *("checkpoints", "files", "interrupts", "monitor", "preflight", "recorder", "savepoints"),
    },
    "two_processes": {"recipe", "data", "policy", "prompts", "processes", "grpo"},
    "training_speed": {
        *("recipe", "recipes", "data", "policy", "prompts", "progress"),
        *("linear", "processes", "rewards", "rollouts", "scoring_memory"),
        *("grpo", "two_processes"),
    },
    "scoring_memory": {"certainty", "head"},
    # benchmarks
    "sources": {"recipe", "tables"},
    "livecodebench": {"tables"},
    "graders": {"answers", "answer_forms", "instructions", "unit_tests"},
    "questions": {
        *("recipe", "data", "tables", "sources", "graders", "livecodebench"),
        *("programming", "program_outputs", "instructions"),
    },
    "benchmarks": {"recipe", "tables", "sources", "graders", "questions", "livecodebench"},
    "grading_speed": {"answers", "benchmarks"},
    "alpaca": {"files", "tables"},
    "subjects": {"recipe", "data", "policy", "runs"},
    "evaluation": {
        *("recipe", "data", "prompts", "policy", "subjects"),
        *("answers", "certainty", "intervals", "progress", "runs"),
        *("linear", "rollouts"),
        *("alpaca", "benchmarks", "graders", "sandbox"),
    },
    # results
    "figures": {"runs", "intervals"},
    "report": {"runs", "figures", "files", "intervals", "recipe", "recipes"},
    "scoreboard": {"runs", "intervals", "recipe", "report", "alpaca", "benchmarks"},
    # the experiments
    "paper": set(),
    "selection": {"intervals"},
    "confidence": {
        *("answers", "benchmarks", "certainty", "evaluation", "progress", "subjects"),
    },
    "families": {"recipe", "recipes", "embedded"},
    "experiments": {
        *("recipe", "recipes", "data", "files", "monitor", "runs"),
        *("benchmarks", "graders", "prompts", "sources"),
        *("trainer", "subjects", "evaluation", "confidence"),  # when something is to be made
    },
    "replication": {"experiments", "intervals", "paper", "recipes", "report", "runs"},
    "audit": {"experiments", "replication", "runs"},
    "gallery": {"files", "replication", "report", "runs"},
    "notebooks": {"recipe", "recipes", "runs", "report", "progress", "files", "locks"},
    "__main__": {"cli"},
}
MAY_IMPORT["cli_runs"] = set(MAY_IMPORT) - {"__main__"}
MAY_IMPORT["cli_evaluate"] = set(MAY_IMPORT) - {"__main__"}
MAY_IMPORT["cli"] = set(MAY_IMPORT) - {"__main__"}
MAY_IMPORT["__init__"] = {*MAY_IMPORT} - {"__main__"}

# Stored results redraw without torch.
NO_TORCH = (
    *("recipe", "recipes", "answers", "answer_forms", "data", "intervals", "benchmarks"),
    *("files", "locks", "checkpoints", "monitor", "interrupts"),
    *("prompts", "runs", "figures", "report", "scoreboard", "progress", "sandbox", "cli"),
    *("paper", "selection", "experiments", "replication", "audit", "gallery"),
)


def imported_modules(source: str) -> set[str]:
    """Modules of ours that a source imports, at the top, in a function or for type checking."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # the package is flat: one dot is the package, more would leave it
                base = f"{PACKAGE}.{base}".rstrip(".")
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {_module_of(name) for name in names if name.split(".")[0] == PACKAGE}
    return found - {None}


def _module_of(name: str) -> str | None:
    """`intuitor_lib.data.Problem` -> `data`; a public name of the package -> where it lives."""
    second = name.split(".")[1] if "." in name else "__init__"
    if second in MODULES:
        return second
    if second.startswith("__"):  # __version__ and the like need no other module
        return None
    return intuitor_lib._MODULE_OF.get(second, second)


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("from . import recipe, runs", {"recipe", "runs"}),
        ("from .recipe import Recipe", {"recipe"}),
        ("def f():\n    from .runs import Run", {"runs"}),
        ("import intuitor_lib.recipe as r", {"recipe"}),
        ("from intuitor_lib import recipe", {"recipe"}),
        ("from intuitor_lib.recipe import Recipe", {"recipe"}),
        ("from . import train", {"trainer"}),
        ("from . import __version__", set()),
        ("import intuitor_lib", {"__init__"}),
        ("import torch\nfrom pathlib import Path", set()),
    ],
)
def test_every_form_of_import_is_seen(source, modules):
    assert imported_modules(source) == modules


def test_every_module_has_a_row():
    unknown = sorted(MODULES - set(MAY_IMPORT))
    assert not unknown, f"say in MAY_IMPORT what they may import: {', '.join(unknown)}"
    gone = sorted(set(MAY_IMPORT) - MODULES)
    assert not gone, f"in MAY_IMPORT but not in {PACKAGE}/: {', '.join(gone)}"


@pytest.mark.parametrize("module", sorted(MODULES & set(MAY_IMPORT)))
def test_imports_only_what_it_may(module):
    imported = imported_modules((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
    forbidden = sorted(imported - MAY_IMPORT[module])
    assert not forbidden, f"{module}.py may not import {', '.join(forbidden)}"


def test_the_table_has_no_cycle():
    rows = {name: set(allowed) for name, allowed in MAY_IMPORT.items()}
    while leaves := {name for name, allowed in rows.items() if not allowed & set(rows)}:
        rows = {name: allowed for name, allowed in rows.items() if name not in leaves}
    assert not rows, f"these import one another: {', '.join(sorted(rows))}"


@pytest.mark.parametrize("module", NO_TORCH)
def test_needs_no_torch(module):
    code = f"import sys, {PACKAGE}.{module}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "False", f"importing {module} imports torch"
