"""Commands that show and verify the run store, and the preflight."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import yaml

from ..recipe import InputError, Recipe
from ..store import EvaluationRecord, Run, RunStore
from ..store.locks import owner
from .arguments import add_recipe, read_recipe


def add_verbs(new: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands; `new(name, command, text, *shared)` makes the parser of one."""
    verb = new("runs", _runs, "list the runs of the store; show or verify some", "--runs")
    verb.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=[*_ACTIONS],
        help="list (default); show: settings, state, alarms; verify: checksums of all or some, "
        "exit status 1 if one is damaged",
    )
    verb.add_argument("ids", nargs="*", metavar="RUN", help="runs, or 'evaluations/NAME'")
    verb.add_argument("--json", action="store_true", help="as JSON")

    text = "write a run's adapter or merged model with its card, for others; prints how to load it"
    verb = new("export", _export, text, "--runs")
    verb.add_argument("run", metavar="RUN", help="the id of a finished run")
    verb.add_argument("folder", metavar="FOLDER", help="a new folder")
    verb.add_argument("--merged", action="store_true", help="one model in 16 bits, no adapter")
    verb.add_argument("--base-model", metavar="ID", help="name on the hub of a local base model")
    verb.add_argument("--push", metavar="OWNER/NAME", help="upload it to the hub, too; private")
    verb.add_argument("--public", action="store_true", help="a new repository that all can read")

    text = "check a training before it begins; exit status 1: do not begin it"
    add_recipe(new("preflight", _preflight, text, "--runs"))


def _runs(options: argparse.Namespace) -> int:
    return _ACTIONS[options.action](RunStore(options.runs), options)


def _list(store: RunStore, options: argparse.Namespace) -> int:
    rows = []
    for run in store:
        try:
            rows.append(_row(run))
        except (OSError, ValueError, KeyError) as error:
            rows.append({"id": run.id, "state": "damaged", "path": str(run.path.resolve())})
            print(f"{run.id}: {error}", file=sys.stderr)
    if options.json:
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


def _named(store: RunStore, options: argparse.Namespace) -> dict[str, Run | EvaluationRecord]:
    """Find the named runs and evaluations; all without names."""
    known: dict[str, Run | EvaluationRecord] = {run.id: run for run in store}
    known |= {f"evaluations/{record.id}": record for record in store.evaluations()}
    unknown = [name for name in options.ids if name not in known]
    if unknown:
        raise InputError(
            f"no run {unknown[0]!r} in {store.root}; it holds: {', '.join(known) or 'none'}"
        )
    return {name: known[name] for name in options.ids or known}


def _show(store: RunStore, options: argparse.Namespace) -> int:
    shown = {
        name: stored.spec if isinstance(stored, EvaluationRecord) else _details(stored)
        for name, stored in _named(store, options).items()
    }
    if options.json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return 0
    for name, details in shown.items():
        print(yaml.safe_dump({name: details}, sort_keys=False, allow_unicode=True))
    return 0


def _details(run: Run) -> dict[str, Any]:
    status = run.status
    return {
        **_row(run),
        "trained by": owner(run.path),
        "error": status.get("error"),
        "restored": status.get("restored"),
        "alarms": {row["step"]: row["collapse"] for row in run.metrics if "collapse" in row},
        "settings that are not the defaults": run.recipe.changes(Recipe()),
    }


def _verify(store: RunStore, options: argparse.Namespace) -> int:
    faults = {}
    for name, stored in _named(store, options).items():
        faults[name] = found = stored.verify()
        if options.json:
            continue
        state = stored.status["state"] if isinstance(stored, Run) else ""
        print(f"{name}  {'DAMAGED' if found else 'whole'}  {state}".rstrip())
        for file, fault in found.items():
            print(f"  {file}: {fault}")
    if options.json:
        print(json.dumps(faults, indent=2))
    return int(any(faults.values()))


_ACTIONS: dict[str, Callable[[RunStore, argparse.Namespace], int]] = {
    "list": _list,
    "show": _show,
    "verify": _verify,
}


def _export(options: argparse.Namespace) -> int:
    if options.public and not options.push:
        raise InputError("--public is of a repository on the hub: name it with --push OWNER/NAME")
    run = RunStore(options.runs)[options.run]
    run.require_finished()  # before torch is imported
    from ..sharing.base import loading_lines
    from ..sharing.export import export_run

    folder = export_run(
        run,
        options.folder,
        merged=options.merged,
        base_model=options.base_model,
        push_to=options.push,
        private=not options.public,
    )
    place, base = options.push or str(folder), options.base_model
    print(f"{loading_lines(run, place, base=base, merged=options.merged)}\n")
    print(folder)
    return 0


def _preflight(options: argparse.Namespace) -> int:
    from ..problems.problems import load_problems

    recipe = read_recipe(options)
    problems = load_problems(recipe)
    from ..policy.loading import load_policy
    from ..training.memory_advice import require_memory
    from ..training.readiness import preflight

    try:
        estimate = require_memory(recipe, problems=problems.train)
    except InputError as error:  # the policy is not loaded, so nothing else is checked
        print(f"fault    memory      {error}")
        return 1
    found = preflight(recipe, problems, load_policy(recipe), runs=options.runs)
    print(f"{problems.source} ({found.numbers.get('seconds', 0)} s to sample)")
    needed = "not estimated" if estimate is None else f"{estimate.total / 2**30:.1f} GiB, fits"
    print(f"ok       memory      {needed}")
    print(found)
    return int(bool(found.faults))
