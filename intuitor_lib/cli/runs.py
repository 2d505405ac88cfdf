"""Commands that manage the run store, and the preflight."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..recipe.constants import InputError
from ..recipe.recipe import Recipe
from ..store.evaluations import EvaluationRecord
from ..store.files import files
from ..store.locks import owner
from ..store.run_store import RunStore
from ..store.runs import Run
from .arguments import add_recipe, add_shared, print_table, read_recipe

if TYPE_CHECKING:
    from ..report.tables import Table
    from ..training.readiness import Preflight

__all__ = ["add_verbs"]

_LARGE = ("model/", "checkpoints/")


def add_verbs(new: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands; `new(name, command, text)` makes the parser of one."""
    verb = new("runs", _runs, "list the runs of the store; show, verify, export or delete some")
    verb.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=["list", *_ACTIONS],
        help="list (default); show: settings, state, alarms; verify: checksums of all or some, "
        "exit status 1 if one is damaged; export: a zip of the small records; delete",
    )
    verb.add_argument("ids", nargs="*", metavar="RUN", help="runs, or 'evaluations/NAME'")
    verb.add_argument("--json", action="store_true", help="list as JSON")
    verb.add_argument("--output", metavar="FILE", default="runs.zip", help="of export")
    verb.add_argument("--adapters", action="store_true", help="export trained adapters too")
    verb.add_argument("--yes", action="store_true", help="delete without a question")
    add_shared(verb, "--runs")

    text = "check a training before it begins; exit status 1: do not begin it"
    verb = new("preflight", _preflight, text)
    add_recipe(verb)
    verb.add_argument(
        "--dataset",
        action="append",
        metavar="NAME",
        help="these problems instead, repeatable to compare them; a generator's configuration "
        """as JSON behind its name: 'reasoning-gym:chain_sum {"max_terms": 2}'""",
    )
    add_shared(verb, "--csv", "--runs")


def _runs(options: argparse.Namespace) -> int:
    store = RunStore(options.runs)
    if options.action == "list":
        return _list(store, as_json=options.json)
    return _ACTIONS[options.action](store, options)


def _list(store: RunStore, *, as_json: bool) -> int:
    rows = []
    for run in store:
        try:
            rows.append(_row(run))
        except (OSError, ValueError, KeyError) as error:
            rows.append({"id": run.id, "state": "damaged", "path": str(run.path.resolve())})
            print(f"{run.id}: {error}", file=sys.stderr)
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        line = [row["id"], row["state"]]
        if "steps" in row:
            steps = f"{row['steps']}/{row['max_steps']} steps"
            line += [steps, f"{row['seconds']:.0f} s", row["profile"]]
        print("  ".join(line + ["collapsed"] * bool(row.get("collapse"))))
    if not rows:
        print(f"no runs in {store.root}", file=sys.stderr)
    return 0


def _row(run: Run) -> dict[str, Any]:
    recipe, status = run.recipe, run.status
    return {
        "id": run.id,
        "state": status["state"],
        "steps": run.steps,
        "max_steps": recipe.max_steps,
        "seconds": round(run.seconds, 1),
        "profile": recipe.profile,
        "model": recipe.model,
        "changed": status.get("changed"),
        "collapse": status.get("collapse"),
        "path": str(run.path.resolve()),
    }


def _named(store: RunStore, ids: list[str]) -> list[Run | EvaluationRecord]:
    """Find the named runs and evaluations; all without names."""
    every: list[Run | EvaluationRecord] = [*store, *store.evaluations()]
    if not ids:
        return every
    known = {_name(stored): stored for stored in every}
    unknown = [name for name in ids if name not in known]
    if unknown:
        raise InputError(
            f"no run {unknown[0]!r} in {store.root}; it holds: {', '.join(known) or 'none'}"
        )
    return [known[name] for name in ids]


def _name(stored: Run | EvaluationRecord) -> str:
    return stored.id if isinstance(stored, Run) else f"evaluations/{stored.id}"


def _require_names(options: argparse.Namespace) -> None:
    if not options.ids:
        raise InputError(f"name the runs to {options.action}; `intuitor runs` lists them")


def _show(store: RunStore, options: argparse.Namespace) -> int:
    _require_names(options)
    for stored in _named(store, options.ids):
        print(_name(stored))
        if isinstance(stored, EvaluationRecord):
            print(json.dumps(stored.spec, indent=2))
            continue
        row = _row(stored)
        for key in ("state", "steps", "max_steps", "seconds", "changed", "path"):
            print(f"  {key}: {row[key]}")
        holder = owner(stored.path)
        if holder is not None and holder.alive:
            print(f"  trained by: {holder}, last sign of life {holder.silent_for:.0f} s ago")
        for key in ("error", "collapse", "restored"):
            if stored.status.get(key):
                print(f"  {key}: {stored.status[key]}")
        for metrics in stored.metrics:
            if "collapse" in metrics:
                print(f"  step {metrics['step']} alarms: {', '.join(metrics['collapse'])}")
        print("  settings that are not the defaults:")
        defaults = Recipe().to_dict()
        for key, value in stored.recipe.to_dict().items():
            if value != defaults[key]:
                print(f"    {key}: {json.dumps(value, ensure_ascii=False)}")
    return 0


def _verify(store: RunStore, options: argparse.Namespace) -> int:
    damaged = 0
    for stored in _named(store, options.ids):
        found = stored.verify()
        damaged += bool(found)
        state = stored.status["state"] if isinstance(stored, Run) else ""
        print(f"{_name(stored)}  {'DAMAGED' if found else 'whole'}  {state}".rstrip())
        for name, fault in found.items():
            print(f"  {name}: {fault}")
    return int(damaged > 0)


def _export(store: RunStore, options: argparse.Namespace) -> int:
    """Write a zip of the small records, atomically."""
    target = Path(options.output).resolve()
    if target.exists():
        raise InputError(f"{target} exists: name another file with --output, or remove it")
    scratch = target.with_name(f".{target.name}.part")
    try:
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as archive:
            for stored in _named(store, options.ids):
                for name in _small(stored.path, adapters=options.adapters):
                    archive.write(stored.path / name, f"{_name(stored)}/{name}")
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    print(target)
    return 0


def _small(folder: Path, *, adapters: bool) -> Iterator[str]:
    left_out = _LARGE if adapters else (*_LARGE, "adapter/")
    return (name for name in files(folder) if not name.startswith(left_out))


def _delete(store: RunStore, options: argparse.Namespace) -> int:
    _require_names(options)
    chosen = _named(store, options.ids)
    for stored in chosen:
        holder = owner(stored.path)
        if holder is not None and holder.alive:
            raise InputError(f"{_name(stored)} is in use by {holder}: end that first")
    for stored in chosen:
        size = sum((stored.path / name).stat().st_size for name in files(stored.path))
        question = f"delete {stored.path} ({size / 2**20:.1f} MiB)? [y/N] "
        if not options.yes:
            if not sys.stdin.isatty():
                raise InputError("no terminal to ask on: give --yes to delete without a question")
            if input(question).strip().lower() not in ("y", "yes"):
                print(f"kept {_name(stored)}")
                continue
        shutil.rmtree(stored.path)
        print(f"deleted {_name(stored)}")
    return 0


_ACTIONS: dict[str, Callable[[RunStore, argparse.Namespace], int]] = {
    "show": _show,
    "verify": _verify,
    "export": _export,
    "delete": _delete,
}


def _preflight(options: argparse.Namespace) -> int:
    from ..problems.problems import load_problems

    recipe = read_recipe(options)
    recipes = [recipe]
    if options.dataset:
        recipes = [recipe.replace(**_dataset(text)) for text in options.dataset]
    problems = [load_problems(recipe) for recipe in recipes]
    from ..policy.loading import load_policy
    from ..training.memory_advice import require_memory
    from ..training.readiness import preflight

    pairs = list(zip(recipes, problems, strict=True))
    estimates = [require_memory(recipe, problems=loaded.train) for recipe, loaded in pairs]
    policy = load_policy(recipe)  # the same for all
    found = []
    for (recipe, loaded), estimate in zip(pairs, estimates, strict=True):
        found.append(preflight(recipe, loaded, policy, runs=options.runs))
        print(f"{loaded.source} ({found[-1].numbers.get('seconds', 0)} s to sample)")
        needed = "not estimated" if estimate is None else f"{estimate.total / 2**30:.1f} GiB, fits"
        print(f"ok       memory      {needed}")
        print(found[-1], end="\n\n", flush=True)
    if len(found) > 1 or options.csv is not None:
        print_table(_signals(recipes, found), options.csv)
    return int(any(one.faults for one in found))


def _dataset(text: str) -> dict[str, Any]:
    """Parse --dataset: NAME, or NAME {"its": "configuration"}."""
    name, _, configuration = text.partition(" ")
    try:
        kwargs = json.loads(configuration or "{}")
    except json.JSONDecodeError as error:
        raise InputError(
            f"--dataset {text!r}: the text after the name is not JSON ({error})"
        ) from error
    return {"dataset": name, "dataset_kwargs": kwargs}


def _signals(recipes: list[Recipe], found: list[Preflight]) -> Table:
    from ..report.intervals import Estimate
    from ..report.tables import Table

    rows = []
    for recipe, one in zip(recipes, found, strict=True):
        numbers = one.numbers
        auc = numbers.get("auc")
        accuracy = numbers.get("accuracy", numbers.get("plurality"))
        kwargs = json.dumps(dict(recipe.dataset_kwargs), sort_keys=True)
        rows.append(
            [
                recipe.dataset + (f" {kwargs}" if recipe.dataset_kwargs else ""),
                numbers.get("against", "-"),
                "-" if accuracy is None else f"{accuracy:.3f}",
                "-" if auc is None else Estimate(**auc).text(),
                numbers.get("mixed_groups", 0),
                numbers.get("problems", 0),
                f"{numbers['clipped_ratio']:.2f}" if numbers else "-",
                f"{numbers['mean_length']:.1f}" if numbers else "-",
            ]
        )
    header = ["problems", "good by", "share good", "AUC within problems", "problems with both"]
    header += ["problems sampled", "cut off", "tokens"]
    caption = (
        f"AUC of self-certainty (95 % interval) of {recipes[0].model}, "
        f"{recipes[0].quantization}, {recipes[0].num_generations} completions a problem at "
        f"temperature {recipes[0].temperature}, at most {recipes[0].max_completion_length} tokens"
    )
    return Table(header, rows, caption)
