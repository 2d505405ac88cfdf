"""The project files agree with one another: versions, Makefile, conda environment, CI."""

import ast
import os
import re
import statistics
import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import intuitor_lib

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
DOCUMENTED = dict(re.findall(r"^([a-z-]+):.*?## (.+)$", MAKEFILE, flags=re.MULTILINE))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
EXTRAS = PROJECT["optional-dependencies"]
DOCS = next((ROOT / ".venv-docs").glob("lib/*/site-packages"), None)  # of `make docs`
CUDA = re.compile(r"triton$|(nvidia|cuda)-")


def declared() -> dict[str, Requirement]:
    extras = [line for extra in EXTRAS.values() for line in extra]
    lines = map(Requirement, [*PROJECT["dependencies"], *extras])
    return {canonicalize_name(each.name): each for each in lines}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def clean_environment(**variables: str) -> dict[str, str]:
    """Ours without what an enclosing `make` adds to it."""
    names = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PYTHON", "PROFILE", "ARGS")
    return {k: v for k, v in os.environ.items() if k not in names} | variables


def make(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=clean_environment(), capture_output=True, text=True
    )


# Versions


def test_version_is_told_once():
    assert PROJECT["version"] == intuitor_lib.__version__ == str(CITATION["version"])


def test_the_citation_is_that_of_project_and_readme():
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["keywords"] == PROJECT["keywords"]
    assert CITATION["authors"] == PROJECT["authors"]
    (paper,) = CITATION["references"]
    names = [f"{each['given-names']} {each['family-names']}" for each in paper["authors"]]
    entry = (ROOT / "README.md").read_text(encoding="utf-8").partition("```bibtex")[2]
    for text in (" and ".join(names), paper["title"], paper["year"], paper["url"]):
        assert f"= {{{text}}}" in entry


@pytest.mark.parametrize("name", declared())
def test_dependency_is_pinned_as_in_the_constraints(name):
    assert str(declared()[name].specifier) == f"=={constraints()[name]}"


def test_constraints_are_sorted_plain_pins():
    names = list(constraints())
    assert names == sorted(map(canonicalize_name, names))
    assert not {"intuitor", "pip", "wheel"} & set(names)
    assert not [name for name in names if CUDA.match(name)]
    local = [version for version in constraints().values() if "+" in version]
    assert not local, f"a local version ties everyone to one build: {local}"


@pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11),
    reason="constraints.txt is written for Linux and Python 3.11",
)
def test_constraints_cover_everything_that_is_installed(monkeypatch):
    """Walks the installed packages from the declared ones; the environments must be as pinned."""
    pinned, seen, queue = constraints(), set(), list(declared().values())
    absent = EXTRAS["docs"] if DOCS is None else []
    absent = absent + (EXTRAS["browser"] if find_spec("playwright") is None else [])
    left_out = {canonicalize_name(Requirement(line).name) for line in absent}
    queue = [each for each in queue if canonicalize_name(each.name) not in left_out]
    monkeypatch.setattr(sys, "path", [*sys.path, str(DOCS)])
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen or CUDA.match(name):
            continue
        seen.add(key)
        assert name in pinned, f"{name} is missing: `make constraints`"
        installed = metadata.version(name).partition("+")[0]
        assert installed == pinned[name], (
            f"{name} {installed} is installed: `make .venv/.installed`"
        )
        for line in metadata.requires(name) or []:
            wanted = Requirement(line)
            extras = [{"extra": extra} for extra in ("", *requirement.extras)]
            if wanted.marker is None or any(map(wanted.marker.evaluate, extras)):
                queue.append(wanted)
    spare = set(pinned) - {name for name, _ in seen}
    assert absent or not spare, f"more is pinned than installed: {spare}"


def test_every_import_of_the_library_is_declared():
    distributions = metadata.packages_distributions()
    # A script of the sandbox finds its neighbours without the package.
    ours = {
        "intuitor_lib",
        *(path.stem for path in (ROOT / "intuitor_lib/grading/sandbox").glob("*.py")),
    }
    for path in (ROOT / "intuitor_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = {node.module.split(".")[0]}
            else:
                continue
            for module in modules - sys.stdlib_module_names - ours:
                names = {canonicalize_name(name) for name in distributions.get(module, [module])}
                assert names & set(declared()), f"{path.name} imports {module}: not in pyproject"


def test_conda_installs_the_project_under_the_constraints():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["name"]
    assert environment["channels"] == ["conda-forge"]
    *conda, pip_section = environment["dependencies"]
    python, pip = conda
    assert pip == "pip"
    assert pip_section == {"pip": ["-c constraints.txt", "-e .[dev]"]}
    version = python.removeprefix("python=")
    assert version in SpecifierSet(PROJECT["requires-python"])
    assert version == PYPROJECT["tool"]["mypy"]["python_version"]
    assert "py" + version.replace(".", "") == PYPROJECT["tool"]["ruff"]["target-version"]


@pytest.mark.parametrize(
    ("version", "supported"),
    [("3.10", False), ("3.11", True), ("3.12", True), ("3.13", True), ("3.14", False)],
)
def test_makefile_and_pyproject_support_the_same_pythons(version, supported):
    assert (version in SpecifierSet(PROJECT["requires-python"])) is supported
    check = MAKEFILE.split("define CHECK_PYTHON\n")[1].split("endef")[0]
    fake = f"import sys; sys.version_info = ({version.replace('.', ', ')}, 0)\n"
    done = subprocess.run([sys.executable, "-c", fake + check], capture_output=True, text=True)
    assert (done.returncode == 0) is supported, done.stderr
    if not supported:
        assert f"is {version}." in done.stderr
        assert "make PYTHON=" in done.stderr


# Makefile, README, CI


def test_make_alone_lists_every_target():
    shown = make("-s")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == make("-s", "help").stdout
    lines = re.findall(r"^  make ([a-z-]+) +(.+)$", shown.stdout, flags=re.MULTILINE)
    assert dict(lines) == DOCUMENTED
    assert set(DOCUMENTED) == set(re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[1].split())
    assert max(map(len, shown.stdout.splitlines())) <= 100


@pytest.mark.parametrize("target", DOCUMENTED)
def test_target_exists(target):
    done = make("-n", target)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_clean_keeps_trained_runs_and_the_environment():
    removed = make("-n", "clean").stdout
    assert "runs/notebooks" in removed
    assert not re.search(r"runs(/\*)?(\s|$)", removed)
    assert ".venv" not in removed
    assert "cache" not in re.sub(r"\.(mypy|pytest|ruff)_cache|__pycache__", "", removed)


@pytest.mark.parametrize("command", ["make quickstart", "make test"])
def test_readme_shows_commands_that_exist(command):
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
    assert command.split()[1] in DOCUMENTED


STUB_MAKE = """#!/bin/sh
held=$(test -z "$INTUITOR_RUNS" || ls -A "$INTUITOR_RUNS")
echo "$* | CI=$CI runs=$INTUITOR_RUNS [$held] stdin=[$(cat)]" >>"$LOG"
case "$*" in *"$FAILING"*) exit 3 ;; esac
"""


def run_ci(folder: Path, failing: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """`.ci/run` from another folder, with a `make` that only writes down how it was called."""
    stub = folder / "make"
    stub.write_text(STUB_MAKE, encoding="utf-8")
    stub.chmod(0o755)
    variables = {"LOG": str(folder / "log"), "FAILING": failing, "TMPDIR": str(folder)}
    variables["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    environment = clean_environment(**variables)
    environment.pop("INTUITOR_RUNS", None)
    done = subprocess.run(
        [ROOT / ".ci" / "run"],
        cwd=folder,
        env=environment,
        input="nobody reads this",
        capture_output=True,
        text=True,
    )
    return done, (folder / "log").read_text(encoding="utf-8").splitlines()


def test_ci_checks_everything(tmp_path):
    done, calls = run_ci(tmp_path, failing="nothing")
    assert done.returncode == 0, done.stderr
    arguments = [call.split(" | ")[0] for call in calls]
    smoke = ["reproduce PROFILE=smoke ARGS=--jobs 2", "audit PROFILE=smoke", "seconds"]
    first = ["-j2 -Oline .venv/.browser docs", "lint", "-j2 test browser"]
    assert arguments == [*first, *smoke]
    assert all("| CI=true " in call and call.endswith("[] stdin=[]") for call in calls)
    # The notebooks train into a run store that is new, empty and removed afterwards.
    stores = {re.search(r"runs=(\S+) ", call)[1] for call in calls[-3:]}
    (runs,) = stores
    assert Path(runs).parent == tmp_path
    assert not Path(runs).exists()
    stages = ["environments and docs", "lint", "tests and browser", "notebooks", "results"]
    for name in [*stages, "seconds"]:
        assert re.search(rf"^==> {name}: \d+ s$", done.stdout, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("failing", "stage"),
    [
        (".browser", "environments and docs"),
        ("docs", "environments and docs"),
        ("lint", "lint"),
        ("test browser", "tests and browser"),
        ("reproduce", "notebooks"),
        ("audit", "results"),
        ("seconds", "seconds"),
    ],
)
def test_ci_stops_at_what_fails_and_names_it(tmp_path, failing, stage):
    done, calls = run_ci(tmp_path, failing)
    assert done.returncode != 0
    assert failing in calls[-1]
    assert f"==> {stage} FAILED" in done.stderr


# Import


def test_importing_the_library_is_light():
    code = (
        "import sys, time; start = time.perf_counter(); import intuitor_lib; "
        "print(time.perf_counter() - start, "
        "*[name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        time, *heavy = done.stdout.split()
        assert not heavy, f"import intuitor_lib imports {heavy}"
        seconds.append(float(time))
    assert statistics.median(seconds) < 0.5
