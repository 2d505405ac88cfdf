"""The wheel: every file of the library is in it, and it imports without the dependencies."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import lazy_loader
import pytest

import intuitor_lib

ROOT = Path(__file__).parent.parent
SOURCES = ("pyproject.toml", "README.md", "LICENSE")
# As pip does it, but with the setuptools that is here: pip would fetch one.
BUILD = "from setuptools import build_meta; build_meta.build_wheel('dist')"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder of the unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copy(ROOT / name, folder)
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "intuitor_lib", folder / "intuitor_lib", ignore=unwanted)
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "unpacked")
    return folder / "unpacked"


def files(folder):
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in path.parts}


def test_the_wheel_has_every_file_of_the_library(unpacked):
    assert files(unpacked / "intuitor_lib") == files(ROOT / "intuitor_lib")
    described = [path for path in files(unpacked) if not path.startswith("intuitor_lib")]
    (folder,) = {path.split("/")[0] for path in described}
    assert folder == f"intuitor-{intuitor_lib.__version__}.dist-info"
    assert f"{folder}/licenses/LICENSE" in described
    script = (unpacked / folder / "entry_points.txt").read_text(encoding="utf-8")
    assert "intuitor = intuitor_lib.cli:main" in script


def run(code, unpacked):
    """Python with the wheel and what loads its names, and no other package."""
    lazy = Path(lazy_loader.__file__).parent
    shutil.copytree(lazy, unpacked.parent / "bare" / lazy.name, dirs_exist_ok=True)
    path = [str(unpacked), str(unpacked.parent / "bare")]
    command = f"import sys; sys.path += {path!r}; import intuitor_lib as library; {code}"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", command], capture_output=True, text=True
    )


def test_without_the_dependencies_it_imports_and_names_what_is_missing(unpacked):
    done = run("print(library.__version__, library.__file__, *library.__all__)", unpacked)
    assert done.returncode == 0, done.stderr
    version, file, *names = done.stdout.split()
    assert version == intuitor_lib.__version__
    assert Path(file) == unpacked / "intuitor_lib" / "__init__.py"
    assert set(intuitor_lib.__all__) == set(names)
    answer = "from intuitor_lib.grading import code_answer_type as f; print(f('```python\\n1```'))"
    done = run(answer, unpacked)
    assert done.returncode == 0, done.stderr
    done = run("library.train", unpacked)
    assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError: No module named ")
