"""The file system of a program in the sandbox: the parts of the machine that Python needs."""

import contextlib
import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store")
_LIBRARIES = ("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/nix/store")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives")  # to find shared libraries
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def layout() -> dict[str, Any]:
    """Paths for the file system of a program, by their use.

    They are `binds` to show read-only, `links` to make, `shortcuts` to the program's folder,
    `devices`, folders to be `hidden`, and private folders that stay `visible`.
    """
    paths = sysconfig.get_paths()
    needed = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    needed += [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    needed += [os.path.dirname(os.path.realpath(sys.executable))]
    wanted = [path for path in (*_SYSTEM, *_SYSTEM_FILES, *needed) if os.path.exists(path)]
    real = {path: os.path.realpath(path) for path in wanted}
    binds: list[str] = []
    for path in sorted(set(real.values()) - {"/"}, key=len):
        if not _is_inside(path, binds):
            binds.append(path)
    # A link for each path that resolves elsewhere, outermost first; inner paths follow from it.
    links: dict[str, str] = {}
    for path in sorted(real, key=len):
        if path != real[path] and not _is_inside(path, [*binds, *links]):
            links[path] = real[path]
    shortcuts = [
        path
        for path in ("/tmp", "/dev/shm")
        if not any(_is_inside(known, [path]) for known in (*binds, *links))
    ]

    hidden: list[str] = []
    visible: list[str] = []
    for secret in sorted(_secrets() - {paths["purelib"], paths["platlib"]}, key=len):
        if _is_inside(secret, [*_LIBRARIES, *hidden]) or not _is_inside(secret, binds):
            continue
        if not any(_is_inside(path, [secret]) for path in real.values()):
            hidden.append(secret)
        elif secret not in _SYSTEM:
            visible.append(secret)
    return {
        "binds": binds,
        "links": links,
        "hidden": hidden,
        "visible": visible,
        "shortcuts": shortcuts,
        "devices": [path for path in _DEVICES if os.path.exists(path)],
    }


def _secrets() -> set[str]:
    """Folders of the user that may lie inside those that Python needs."""
    project = Path(__file__).resolve().parents[3]
    found = {str(project), str(project / "runs")}
    for variable in ("INTUITOR_RUNS", "INTUITOR_CACHE"):
        if os.environ.get(variable):
            found.add(os.path.expanduser(os.environ[variable]))
    with contextlib.suppress(RuntimeError):  # a user without a home
        found.add(str(Path.home()))
    with contextlib.suppress(FileNotFoundError):  # a working directory that was deleted
        found.add(os.getcwd())
    return {path for path in map(os.path.realpath, found) if os.path.isdir(path)}


def _is_inside(path: str, folders: Sequence[str]) -> bool:
    """Whether the path is one of the folders or lies in one."""
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
