"""The trainings and tests behind the notebooks: asked for by name, done once, shared by all.

A *trial* is one policy of an experiment: a recipe trained under a profile and a seed, or the base
it starts from. `collect` gives trials with what a notebook needs of them. Their results are small
files without weights:

    data/results/<profile>/<recipe>-s<seed>-<digest>/   committed with the project
    runs/results/<profile>/...                          of this machine
        training.json        settings, environment, metrics of every step, some completions
        <test>.json          a row per completion; <test>@<step>.json of a snapshot

Committed ones are read, unless `retrain` is asked for; what is missing is trained and evaluated,
through the run store, which does nothing twice. Nothing here imports torch before it must.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..recipe.constants import InputError
from ..store.files import write_text
from ..store.places import data_folder
from ..store.run_store import RunStore

__all__ = ["keep", "result"]


def result(
    name: str,
    make: Callable[[], Any],
    *,
    profile: str,
    key: Any = None,
    retrain: bool = False,
    runs: str | Path | None = None,
) -> Any:
    """A JSON-ready result by name: the one on record, else what `make` returns, recorded.

    Args:
        name: of its file, with `/` between folders.
        make: makes it.
        profile: under which it is kept.
        key: JSON-ready; a record made with another key does not count.
        retrain: do not read the results that come with the project.
        runs: the run store.
    """
    key = json.loads(json.dumps(key))
    for path in _places(name, profile, retrain, runs):
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["key"] == key:
                return found["result"]
    value = make()
    write_text(_places(name, profile, True, runs)[0], _dump({"key": key, "result": value}))
    return json.loads(json.dumps(value))


def _places(name: str, profile: str, retrain: bool, runs: str | Path | None) -> list[Path]:
    """Files of a result: the committed one unless `retrain`, and that of the run store."""
    stored = RunStore(runs).root / "results" / profile / f"{name}.json"
    committed = _committed(profile)
    return [stored] if retrain or committed is None else [committed / f"{name}.json", stored]


def _committed(profile: str) -> Path | None:
    data = data_folder()
    return None if data is None else data / "results" / profile


def _dump(value: Mapping[str, Any]) -> str:
    """JSON with a line for each column and each step, so that changes can be read."""

    def lines(value: Any, depth: int) -> str:
        pad = " " * depth
        if isinstance(value, Mapping) and depth < 3 and value:
            parts = [f"{pad} {json.dumps(k)}: {lines(v, depth + 1)}" for k, v in value.items()]
            return "{\n" + ",\n".join(parts) + f"\n{pad}}}"
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return "[\n" + ",\n".join(f"{pad} {_text(item)}" for item in value) + f"\n{pad}]"
        return _text(value)

    return lines(value, 0) + "\n"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def keep(
    profile: str, notebooks: Sequence[str] = (), *, runs: str | Path | None = None
) -> list[Path]:
    """Copy results and notebook records of the run store into the project's data folder.

    Args:
        profile: whose.
        notebooks: only the records of these, and no results; by default all of both.
        runs: the run store.

    Returns:
        The files written.

    Raises:
        InputError: there is no project around, or nothing to keep.
    """
    target, root = _committed(profile), RunStore(runs).root
    if target is None:
        raise InputError("no project here: keep results from within a clone of it")
    results = root / "results" / profile
    copies = {
        source: target / source.relative_to(results)
        for source in sorted(results.rglob("*.json"))
        if not notebooks
    }
    copies |= {
        source: target.parent.parent / "records" / source.name
        for source in sorted((root / "records").glob(f"*-{profile}.json"))
        if not notebooks or source.stem.startswith(tuple(notebooks))
    }
    if not copies:
        raise InputError(f"{root} holds no results under {profile}: execute the notebooks first")
    for source, copy in copies.items():
        write_text(copy, source.read_text(encoding="utf-8"))
    return [*copies.values()]
