"""Commands that manage the run store, and the preflight."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..recipe import InputError, Recipe
from ..store import EvaluationRecord, Run, RunStore
from ..store.files import files
from ..store.locks import owner
from .arguments import add_recipe, add_shared, print_table, read_recipe

if TYPE_CHECKING:
    from ..report import Table
    from ..training import Preflight


def add_verbs(new: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands; `new(name, command, text)` makes the parser of one."""
    verb = new("runs", _runs, "list the runs of the store; show, verify, export or delete some")
    verb.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=[*_ACTIONS],
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
    if not options.ids and options.action in ("show", "delete"):
        raise InputError(f"name the runs to {options.action}; `intuitor runs` lists them")
    return {name: known[name] for name in options.ids or known}


def _show(store: RunStore, options: argparse.Namespace) -> int:
    for name, stored in _named(store, options).items():
        print(name)
        if isinstance(stored, EvaluationRecord):
            print(json.dumps(stored.spec, indent=2))
            continue
        row = _row(stored)
        for key in ("state", "steps", "max_steps", "seconds", "changed", "path"):
            print(f"  {key}: {row[key]}")
        holder = owner(stored.path)
        if holder is not None:
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
    for name, stored in _named(store, options).items():
        found = stored.verify()
        damaged += bool(found)
        state = stored.status["state"] if isinstance(stored, Run) else ""
        print(f"{name}  {'DAMAGED' if found else 'whole'}  {state}".rstrip())
        for file, fault in found.items():
            print(f"  {file}: {fault}")
    return int(damaged > 0)


def _export(store: RunStore, options: argparse.Namespace) -> int:
    """Write a zip of the small records, atomically."""
    target = Path(options.output).resolve()
    if target.exists():
        raise InputError(f"{target} exists: name another file with --output, or remove it")
    left_out = ("model/", "checkpoints/", *([] if options.adapters else ["adapter/"]))
    scratch = target.with_name(f".{target.name}.part")
    try:
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, stored in _named(store, options).items():
                for file in files(stored.path):
                    if not file.startswith(left_out):
                        archive.write(stored.path / file, f"{name}/{file}")
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    print(target)
    return 0


def _delete(store: RunStore, options: argparse.Namespace) -> int:
    chosen = _named(store, options)
    for name, stored in chosen.items():
        holder = owner(stored.path)
        if holder is not None:
            raise InputError(f"{name} is in use by {holder}: end that first")
    for name, stored in chosen.items():
        if not options.yes:
            if not sys.stdin.isatty():
                raise InputError("no terminal to ask on: give --yes to delete without a question")
            size = sum((stored.path / file).stat().st_size for file in files(stored.path))
            answer = input(f"delete {stored.path} ({size / 2**20:.1f} MiB)? [y/N] ")
            if answer.strip().lower() not in ("y", "yes"):
                print(f"kept {name}")
                continue
        shutil.rmtree(stored.path)
        print(f"deleted {name}")
    return 0


_ACTIONS: dict[str, Callable[[RunStore, argparse.Namespace], int]] = {
    "list": _list,
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
        accuracy = numbers.get("accuracy", numbers.get("plurality"))
        kwargs = json.dumps(dict(recipe.dataset_kwargs), sort_keys=True)
        rows.append(
            [
                f"{recipe.dataset} {kwargs}" if recipe.dataset_kwargs else recipe.dataset,
                numbers.get("against", "-"),
                "-" if accuracy is None else f"{accuracy:.3f}",
                Estimate(**numbers["auc"]).text() if numbers.get("auc") else "-",
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
