"""Which package may use which, and which need no torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import intuitor_lib

LIBRARY = Path(intuitor_lib.__file__).parent
PACKAGES = sorted(path.parent.name for path in LIBRARY.glob("*/__init__.py"))

# Data flows one way. Training and evaluation meet only through the run store.
USES = {
    "recipe": "",
    "store": "recipe",
    "report": "store",
    "grading": "",
    "problems": "recipe grading",
    "certainty": "",
    "policy": "recipe store report problems certainty",
    "rollouts": "recipe report certainty policy",
    "training": "recipe store report problems grading certainty policy rollouts",
    "evaluation": "recipe store report problems grading certainty policy rollouts",
    "sharing": "recipe store report problems certainty policy rollouts evaluation",
    "paper": "recipe store report problems grading certainty policy training evaluation",
    "lab": "recipe store report problems grading policy training evaluation paper",
    "cli": "recipe store report problems grading policy training evaluation sharing paper",
}
MOST_MODULES = 12

# Stored results are redrawn without torch.
NO_TORCH = (
    "recipe",
    "store",
    "report",
    "problems",
    "grading",
    "evaluation.benchmarks",
    "paper",
    "lab",
    "cli",
)


def imported(file: Path) -> set[str]:
    """Modules of the library that a file imports, anywhere in it: `store.files`, `recipe`."""
    package = file.relative_to(LIBRARY).parent.parts
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            module = (*base, *(node.module or "").split(".")) if node.module else base
            found |= {".".join(module)} if module else {alias.name for alias in node.names}
        else:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {n.partition(".")[2] for n in names if n.split(".")[0] == "intuitor_lib"}
    return found


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("from .files import write_text", {"store.files"}),
        ("def f():\n    from ..recipe.recipe import Recipe", {"recipe.recipe"}),
        ("from .. import recipe", {"recipe"}),
        ("import intuitor_lib.policy.loading as p", {"policy.loading"}),
        ("from intuitor_lib.training import train", {"training"}),
        ("import torch\nfrom pathlib import Path", set()),
    ],
)
def test_every_form_of_import_is_seen(source, modules, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.LIBRARY", tmp_path)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "module.py").write_text(source)
    assert imported(tmp_path / "store" / "module.py") == modules


def test_every_package_has_a_rule_and_uses_only_what_stands_above_it():
    assert sorted(USES) == PACKAGES
    order = list(USES)
    for package, used in USES.items():
        assert set(used.split()) <= set(order[: order.index(package)]), package


@pytest.mark.parametrize("package", USES)
def test_uses_only_what_it_may(package):
    used = {}
    for file in (LIBRARY / package).rglob("*.py"):
        others = {name.split(".")[0] for name in imported(file)} - {package, ""}
        used |= dict.fromkeys(others, str(file.relative_to(LIBRARY)))
    forbidden = {other: file for other, file in used.items() if other not in USES[package].split()}
    assert not forbidden, f"{package} may not use {forbidden}"


@pytest.mark.parametrize("package", USES)
def test_the_docstring_tells_what_it_uses(package):
    text = ast.get_docstring(ast.parse((LIBRARY / package / "__init__.py").read_text()))
    told = re.search(r"Uses:\s([^.]+)\.", text.replace("\n", " ")).group(1)
    wanted = ", ".join(USES[package].split()) or "nothing of the library"
    assert told == ("every package" if package == "cli" else wanted)


def test_no_modules_import_one_another():
    edges = {}
    for file in LIBRARY.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        package = file.relative_to(LIBRARY).parent.parts
        name = ".".join((*package, file.stem)) if file.stem != "__init__" else ".".join(package)
        edges[name] = {
            ".".join((*package[: len(package) - node.level + 1], *node.module.split(".")))
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.level and node.module
        }
    while leaves := {name for name, wanted in edges.items() if not wanted & set(edges)}:
        edges = {name: wanted for name, wanted in edges.items() if name not in leaves}
    assert not edges, f"these import one another: {', '.join(sorted(edges))}"


def test_no_folder_holds_more_than_a_dozen_modules():
    for folder in (LIBRARY, *(path.parent for path in LIBRARY.rglob("__init__.py"))):
        modules = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
        assert len(modules) <= MOST_MODULES, f"{folder.name}: {len(modules)} modules"


@pytest.mark.parametrize("package", NO_TORCH)
def test_needs_no_torch(package):
    code = (
        f"import sys, intuitor_lib.{package} as package; "
        "[getattr(package, name) for name in package.__all__]; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=LIBRARY.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "False", f"importing {package} imports torch"


def test_the_readme_shows_the_packages():
    text = (LIBRARY.parent / "README.md").read_text(encoding="utf-8")
    block = text.partition("\nintuitor_lib/\n")[2].partition("```")[0]
    assert re.findall(r"^  (\w+)/ ", block, re.M) == list(USES)


def test_every_public_name_is_there():
    for stub in LIBRARY.rglob("__init__.pyi"):
        package = ".".join(("intuitor_lib", *stub.relative_to(LIBRARY).parent.parts))
        module = __import__(package, fromlist=["x"])
        assert sorted(module.__all__) == sorted(set(module.__all__))
        for name in module.__all__:
            assert getattr(module, name) is not None, f"{package}.{name}"
