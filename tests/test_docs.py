"""README and docs/ agree with the project: links, commands, imports, numbers."""

import ast
import functools
import json
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from write_tables import FIGURE, blocks as table_blocks, figure, with_blocks

import intuitor_lib
from intuitor_lib.cli import main
from intuitor_lib.evaluation.benchmarks import benchmarks, questions
from intuitor_lib.paper.comparison import every_record
from intuitor_lib.paper.plan import Collection, asked
from intuitor_lib.recipe import recipes

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
MANUAL = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *MANUAL, ROOT / "data" / "README.md"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIBRARY = Path(intuitor_lib.__file__).parent
MOST_BYTES = 16_000  # two tables of verdicts among them

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in found]


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def notebook_cells(path: Path, kind: str) -> list[str]:
    cells = json.loads(read(path))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def test_the_readme_is_a_front_page():
    assert len(README.read_bytes()) <= MOST_BYTES


def test_the_readme_links_every_page():
    linked = {(ROOT / link.split("#")[0]).resolve() for link in links(read(README))}
    assert {page.resolve() for page in [*MANUAL, *NOTEBOOKS]} <= linked


# Links


def links(text: str) -> list[str]:
    """Targets of links and images in this project, code left out."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(text))
    return [link for link in found if "://" not in link]


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(text: str, folder: Path) -> list[str]:
    found = []
    for link in links(text):
        name, _, anchor = link.partition("#")
        target = folder / name
        missing = bool(name) and not target.exists()
        if missing or (anchor and anchor not in anchors(read(target) if name else text)):
            found.append(link)
    return found


@every_page
def test_every_relative_link_exists(page):
    assert not broken(read(page), page.parent)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_relative_link_of_a_notebook_exists(path):
    assert not broken("\n".join(notebook_cells(path, "markdown")), path.parent)


def test_a_broken_link_is_found():
    text = "# One two\n[a](README.md) [b](gone.md) [c](https://x.org) [d](#one-two) [e](#three)"
    assert broken(text, ROOT) == ["gone.md", "#three"]


# Imports


def not_public(source: str) -> list[str]:
    """What a snippet imports that is neither a package of the library nor a public name of one."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found += [name for name in names if is_ours(name) and not is_package(name)]
        elif isinstance(node, ast.ImportFrom) and is_ours(node.module or ""):
            if not is_package(node.module):
                found.append(node.module)
                continue
            public = __import__(node.module, fromlist=["x"]).__all__
            names = [alias.name for alias in node.names if alias.name not in public]
            names = [f"{node.module}.{name}" for name in names]
            found += [name for name in names if not is_package(name)]
    return found


def is_ours(module: str) -> bool:
    return module.split(".")[0] == "intuitor_lib"


def is_package(module: str) -> bool:
    return (LIBRARY.parent.joinpath(*module.split(".")) / "__init__.py").exists()


@every_page
def test_snippets_import_from_packages_only(page):
    for snippet in blocks(read(page), "python"):
        assert not not_public(snippet)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_import_from_packages_only(path):
    for cell in notebook_cells(path, "code"):
        magic_left_out = re.sub(r"^%.*$", "", cell, flags=re.MULTILINE)
        assert not not_public(magic_left_out)


@pytest.mark.parametrize(
    ("source", "refused"),
    [
        ("import intuitor_lib as intuitor", []),
        ("from intuitor_lib import paper, train", []),
        ("from intuitor_lib.report import Table", []),
        ("import torch", []),
        ("from intuitor_lib.report.tables import Table", ["intuitor_lib.report.tables"]),
        ("import intuitor_lib.training.memory", ["intuitor_lib.training.memory"]),
        ("from intuitor_lib.report import tables", ["intuitor_lib.report.tables"]),
        ("from intuitor_lib.store import write_text", ["intuitor_lib.store.write_text"]),
    ],
)
def test_a_module_below_a_package_is_refused(source, refused):
    assert not_public(source) == refused


# Commands


def commands(text: str) -> list[str]:
    """Commands of the shell blocks and of the code in the running text, continued lines joined."""
    shell = "".join(blocks(text, "sh")).replace("\\\n", " ")
    inline = re.findall(r"`([^`]+)`", prose(text))
    lines = [*shell.splitlines(), *(" ".join(code.split()) for code in inline)]
    parts = [part.strip() for line in lines for part in line.split("  #")[0].split(" && ")]
    return [re.sub(r"^.* -m intuitor_lib ", "intuitor ", part) for part in parts if part]


def faults(command: str, capsys) -> list[str]:
    """Verbs, options, targets and files of a command that do not exist."""
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in words[1:] if "=" not in word]
        return [name for name in targets if not re.search(rf"^{name}:", makefile, re.MULTILINE)]
    if words[0] == "python" and len(words) > 1 and words[1].endswith(".py"):
        return [] if (ROOT / words[1]).exists() else [words[1]]
    if words[0] != "intuitor" or len(words) == 1 or words[1] == "COMMAND":
        return []
    with pytest.raises(SystemExit) as ended:
        main([words[1], "--help"])
    shown = capsys.readouterr().out
    options = [word for word in words[2:] if word.startswith("-")]
    unknown = [word for word in options if not re.search(rf"(?<![\w-]){word}(?![\w-])", shown)]
    return [words[1]] if ended.value.code else unknown


@every_page
def test_every_command_exists(page, capsys):
    known = ("intuitor", "make", "python")
    found = [c for c in commands(read(page)) if c.split()[0] in known]
    assert found
    assert not [(c, wrong) for c in found if (wrong := faults(c, capsys))]


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("intuitor train quickstart --seed 7", []),
        ("intuitor train quickstart --sed 7", ["--sed"]),
        ("intuitor benchmark", ["benchmark"]),
        ("make lint tests", ["tests"]),
        ("make reproduce PROFILE=smoke", []),
        ("python tests/gone.py", ["tests/gone.py"]),
    ],
)
def test_a_command_that_is_gone_is_found(command, wrong, capsys):
    assert faults(command, capsys) == wrong


# Examples


def example(language: str, start: str) -> str:
    """The block of docs/extending.md that begins so."""
    every = blocks(read(ROOT / "docs" / "extending.md"), language)
    (found,) = (block for block in every if block.startswith(start))
    return found


def test_the_recipe_to_add_is_one_under_every_profile(monkeypatch):
    text = read(LIBRARY / "recipe" / "recipes.yaml")
    added = textwrap.indent(example("yaml", "kl-0.02: "), "  ")
    entry = yaml.safe_load(text + added)["recipes"]["kl-0.02"]
    known = {**recipes.RECIPES, "kl-0.02": recipes.NamedRecipe("kl-0.02", **entry)}
    monkeypatch.setattr(recipes, "RECIPES", known)
    for profile in recipes.PROFILES:
        beside = recipes.get_recipe("intuitor", profile)
        assert recipes.get_recipe("kl-0.02", profile) == beside.replace(name="kl-0.02", beta=0.02)


def test_the_reward_to_add_counts_tokens():
    found = {}
    exec(example("python", "class BrevityReward"), found)
    reward = found["BrevityReward"]()
    assert reward(["?"] * 2, ["ab", ""], [[5, 6], []]) == [-2.0, 0.0]
    assert reward.__name__ == "brevity"


def test_the_benchmark_to_add_has_items(monkeypatch):
    entry = yaml.safe_load(example("yaml", "leg_counting:"))["leg_counting"]
    scope = dict(vars(questions))
    exec(example("python", "def leg_counting_item"), scope)
    monkeypatch.setattr(questions, "leg_counting_item", scope["leg_counting_item"], raising=False)
    make = functools.partial(questions.generated_rows, "leg_counting")
    monkeypatch.setitem(benchmarks._ROWS, "leg_counting", make)
    items = benchmarks.load_items(benchmarks._benchmark("leg_counting", entry), 3)
    assert len({item.prompt for item in items}) == 3
    assert all("legs" in item.question and item.reference.isdigit() for item in items)


def test_the_notebook_to_add_is_planned(monkeypatch):
    entry = yaml.safe_load(example("yaml", "notebooks:\n  13"))["notebooks"]["13_name"]
    monkeypatch.setattr("intuitor_lib.paper.plan.PLAN", {"11_name": Collection(**entry)})
    found = asked("11_name", "cpu")
    assert (found["arms"], found["tests"]) == (entry["arms"], entry["tests"])


@pytest.mark.slow
def test_the_script_with_a_trainer_of_ones_own_trains(tiny_model, tmp_path):
    script = ROOT / "docs" / "own_trl_script.py"
    assert len(read(script).splitlines()) <= 40
    command = [sys.executable, script, "--model", tiny_model, "--max-steps", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    logged = re.search(r"'rewards/self_certainty/mean': '?([\d.]+)", done.stdout)
    assert 0 < float(logged[1]) < 10
    assert (tmp_path / "own_trl_script" / "adapter_model.safetensors").is_file()


# Numbers


@pytest.mark.parametrize("name", table_blocks([]))
def test_the_tables_of_a_page_are_those_of_the_records(name):
    page = read(ROOT / name)
    expected = with_blocks(page, table_blocks(every_record("nowhere"))[name])
    assert page == expected, "write them: python tests/write_tables.py"


def test_the_figure_is_that_of_the_notebook():
    assert (ROOT / FIGURE).read_bytes() == figure(ROOT), "write it: python tests/write_tables.py"
