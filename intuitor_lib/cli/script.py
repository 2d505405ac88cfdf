"""The console script `intuitor`: train, evaluate, compare, reproduce, report and others.

Results go to standard output, progress and messages to standard error. Exit status: 0 success,
1 failure, 2 bad input, 130 interrupted.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..paper.plan import PLANS
from ..recipe import EMBEDDED_MODELS, PROFILES, RECIPES, SMOLLM2, InputError, Recipe, get_recipe
from ..store import RunStore
from . import evaluate as evaluate_verbs, runs as run_verbs
from .arguments import ASSIGNMENTS, SHARED, Command, add_recipe, positive, print_table, read_recipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the console script; returns the exit status."""
    # A thread that waits for the others must not keep a core busy that other work could use.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console may lack the characters of a result
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except InputError as error:
        print(f"intuitor: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        message = str(error) or "interrupted; the same command resumes"
        print(f"intuitor: {message}", file=sys.stderr)
        return 130
    except (OSError, RuntimeError) as error:
        print(f"intuitor: {type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="intuitor", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Command)

    def new(
        name: str, command: Callable[..., int], text: str, *shared: str
    ) -> argparse.ArgumentParser:
        verb = commands.add_parser(name, help=text, description=text)
        verb.set_defaults(command=command)
        for flag in shared:
            verb.add_argument(flag, **SHARED[flag])
        return verb

    add_recipe(new("train", _train, "train a recipe; prints the run's folder last", "--runs"))

    verb = new("memory", _memory, "estimate the memory of a recipe; exit status 1: too much")
    add_recipe(verb)
    verb.add_argument("--gpu-gb", type=float, metavar="N", help="for a GPU of N GiB")
    verb.add_argument("--device", choices=["cuda", "cpu"], help="default: by --gpu-gb and profile")
    verb.add_argument("--prompt-tokens", type=int, metavar="N", help="length of the longest prompt")

    shared = ("--profile", "--runs")
    verb = new("reproduce", _reproduce, "execute notebooks under a profile", *shared)
    verb.add_argument("--force", action="store_true", help="execute finished ones again")
    verb.add_argument("--jobs", type=positive, default=1, help="notebooks at a time; default 1")
    text = "what `reproduce` would train and test: what is there, work, hours, memory, disk"
    other = new("plan", _plan, text, *shared)
    speed = other.add_mutually_exclusive_group()
    speed.add_argument("--measure", action="store_true", help="train two steps of each kind first")
    speed.add_argument("--step-seconds", type=float, metavar="N", help="of a step, on your machine")
    for one in (verb, other):
        one.set_defaults(profile=None)  # that of the plan, or cpu
        one.add_argument("notebooks", nargs="*", help="name or number of a notebook; default all")
        one.add_argument("-p", "--parameter", metavar="NAME=VALUE", help="set one", **ASSIGNMENTS)
        one.add_argument("--plan", choices=PLANS, help="the notebooks of a plan, not of names")
    new("quickstart", _quickstart, "fetch the model, execute 00_quickstart", *shared)

    verb = new("recipes", _recipes, "list the recipes, or print one with its sources", "--profile")
    verb.add_argument("recipe", nargs="?")

    text = "the paper's claims beside the notebooks' findings, or a comparison of runs"
    verb = new("report", _report, text, "--csv", "--runs")
    verb.add_argument("ids", nargs="*", metavar="RUN", help="runs to compare: ids of `runs`")
    verb.add_argument("--markdown", action="store_true", help="the tables as Markdown")
    verb.add_argument("--short", action="store_true", help="a line for each question and claim")
    verb.add_argument("--profile", choices=[*PROFILES], help="the answers of this one alone")
    verb.add_argument("--figure", metavar="FILE", help="draw the training curves there")

    run_verbs.add_verbs(new)
    evaluate_verbs.add_verbs(new)
    verb = new("fetch", _fetch, "fetch and convert an embedded model, once")
    verb.add_argument("model", nargs="?", default=SMOLLM2, choices=[*EMBEDDED_MODELS])
    return parser


def _train(options: argparse.Namespace) -> int:
    recipe = read_recipe(options)
    from ..problems.problems import load_problems

    problems = load_problems(recipe)
    # Imported here so that bad problems are reported before torch is imported.
    from ..store.processes import join
    from ..training.training import train

    run = train(recipe, runs=options.runs, problems=problems)
    if join().is_main_process:
        print(run.path.resolve())
    return 0


def _memory(options: argparse.Namespace) -> int:
    recipe = read_recipe(options)
    gpu = options.gpu_gb is not None or recipe.profile.startswith("gpu-")
    device = options.device or ("cuda" if gpu or recipe.profile == "paper" else None)
    import torch

    from ..training.memory import estimate_memory, gib
    from ..training.memory_advice import advice, available_memory

    estimate = estimate_memory(recipe, device=device, prompt_tokens=options.prompt_tokens)
    print(estimate)
    if options.gpu_gb is not None:
        budget = int(options.gpu_gb * 2**30)
    elif estimate.device == "cpu":
        budget = available_memory("cpu") + estimate.parts["runtime"]
    elif torch.cuda.is_available():
        budget = available_memory("cuda")
    else:
        print("compared with no GPU, as this machine has none: name one's memory by --gpu-gb N")
        return 0
    fits = estimate.total <= budget
    print(f"{'fits' if fits else 'does not fit'} in {gib(budget)}")
    if not fits:
        found = advice(recipe, budget, device=estimate.device, prompt_tokens=options.prompt_tokens)
        print("\n".join(f"it fits with {text}: {gib(peak)}" for text, peak in found.items()))
    return int(not fits)


def _batch(options: argparse.Namespace) -> tuple[str, list[Path], dict[str, dict[str, Any]]]:
    """The profile of a batch, its notebooks, and the parameters of each by its name."""
    from .notebooks import check_parameters, find_notebooks

    given = dict(options.parameter)
    if "profile" in given:
        raise InputError(f"-p profile={given['profile']}: use --profile {given['profile']}")
    if options.plan is None:
        profile, own = options.profile or "cpu", {}
        notebooks = find_notebooks(options.notebooks)
    else:
        if options.notebooks:
            raise InputError(f"--plan {options.plan} has its own notebooks: leave the names out")
        plan = PLANS[options.plan]
        profile, own = plan.get("profile", options.profile or "cpu"), plan.get("notebooks", {})
        if options.profile not in (None, profile):
            raise InputError(
                f"--plan {options.plan} is of the profile {profile}: leave --profile "
                f"{options.profile} out, or name notebooks instead of the plan"
            )
        notebooks = find_notebooks([*own])
    parameters = {notebook.stem: {**own.get(notebook.stem, {}), **given} for notebook in notebooks}
    for notebook in notebooks:
        check_parameters(notebook, parameters[notebook.stem])
    return profile, notebooks, parameters


def _reproduce(options: argparse.Namespace) -> int:
    from ..paper.batch import Progress
    from ..paper.gallery import build_gallery
    from .notebooks import reproduce

    profile, notebooks, parameters = _batch(options)
    failed, runs = 0, RunStore(options.runs).root.resolve()  # papermill changes the folder
    settings = {"runs": runs, "force": options.force, "jobs": options.jobs}
    if options.jobs == 1:
        settings["note"] = Progress(profile, parameters, runs)
    for done in reproduce(notebooks, profile, parameters, **settings):
        status = "failed" if done.error else "kept" if done.kept else "done"
        failed += bool(done.error)
        print(f"{status} in {done.seconds:.0f} s: {done.notebook}", flush=True)
        if done.error:
            print(done.error, file=sys.stderr)
    passed = f"{len(notebooks) - failed} of {len(notebooks)} notebooks passed"
    print(f"{passed}, profile {profile}")
    print(f"all of them on one page: {build_gallery(profile, runs)}")
    return int(failed > 0)


def _plan(options: argparse.Namespace) -> int:
    from ..paper import batch

    profile, notebooks, parameters = _batch(options)
    work = batch.jobs(profile, parameters, runs=options.runs)
    left = {batch.shape(job.measured): job.measured for job in work if not job.done}
    needs = [*batch.needs(work)]  # before a training changes what this process holds
    if options.step_seconds is not None:
        known = {key: batch.assumed(one, options.step_seconds) for key, one in left.items()}
        source = "given, half of it sampling at the full length"
    else:
        known, source = batch.speeds(options.runs), "by the runs here"
        for key, recipe in left.items() if options.measure else ():
            if key not in known:
                print(f"two steps of {batch.describe(recipe)}", file=sys.stderr)
                known[key] = batch.measure(recipe, options.runs)
    print(f"profile {profile}: {', '.join(notebook.stem for notebook in notebooks)}\n")
    print(f"{batch.batch_table(work, known)}\n")
    for key, recipe in left.items():
        speed = known.get(key)
        text = "not known: --measure" if speed is None else f"{speed.step:.1f} s, {source}"
        print(f"a step of {batch.describe(recipe)}: {text}")
    print("\n".join(needs))
    return 0


def _quickstart(options: argparse.Namespace) -> int:
    from ..policy.embedded import embedded_model_folder
    from ..report.records import load_record
    from ..report.tables import Table
    from .notebooks import execute, find_notebooks

    (notebook,) = find_notebooks(["00_quickstart"])
    model = get_recipe("quickstart", options.profile).model
    if model in EMBEDDED_MODELS:
        print(f"model    {embedded_model_folder(model)}", flush=True)
    done = execute(notebook, options.profile, runs=options.runs)
    if done.error:
        print(f"notebook {done.notebook}\n{done.error}", file=sys.stderr)
        return 1
    record = load_record("00_quickstart", options.profile, options.runs)
    run = RunStore(options.runs)[record["values"]["run"]]
    print(f"\n{Table(**record['table'])}\n")
    print(f"run      {run.path}: {run.steps} steps in {run.seconds:.0f} s of training")
    print(f"notebook {done.notebook}, executed in {done.seconds:.0f} s")
    print(f"html     {done.html}")
    return 0


def _recipes(options: argparse.Namespace) -> int:
    if options.recipe is None:
        width = max(map(len, RECIPES))
        for named in RECIPES.values():
            print(f"{named.name:<{width}}  {named.reproduces}")
        print("\nprofiles:")
        for profile in PROFILES.values():
            verified = profile.verified or "never run on its hardware yet"
            print(f"{profile.name:<{width}}  {profile.description} (run on: {verified})")
        return 0
    recipe = get_recipe(options.recipe, options.profile)
    for key, value in recipe.to_dict().items():
        print(f"{key}: {json.dumps(value, ensure_ascii=False)}  # default: {Recipe.source(key)}")
    return 0


def _report(options: argparse.Namespace) -> int:
    if not options.ids:
        if options.csv or options.figure:
            raise InputError("--csv and --figure are of runs: name some (see `intuitor runs`)")
        from ..paper import comparison as shown

        if options.profile and options.short:
            raise InputError("--short is of all profiles: leave --profile out")
        if options.profile:
            records = shown.load_records(options.profile, options.runs)
            tables = [shown.answers_table(shown.answers_of(records.values()))]
        else:
            every = shown.every_record(options.runs)
            answers = shown.verdicts_table if options.short else shown.questions_table
            tables = [answers(every), shown.claims_table(every, short=options.short)]
            tables += filter(None, [shown.others_table(every)])
        for table in tables:
            print(table.to_markdown() if options.markdown else table, end="\n\n")
        return 0
    if options.profile or options.short:
        raise InputError("--profile and --short are of the notebooks' findings: name no run")
    from ..report.tables import training_summary

    store = RunStore(options.runs)
    runs = [store[run_id] for run_id in options.ids]
    print_table(training_summary(runs), options.csv, markdown=options.markdown)
    if options.figure is not None:
        from ..report.curves import training_curves

        curves = training_curves({run.id: run.metrics for run in runs})
        try:
            curves.savefig(options.figure, dpi=150)
        except ValueError as error:  # a format that matplotlib does not write
            raise InputError(f"--figure {options.figure}: {error}") from error
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from ..policy.embedded import embedded_model_folder

    print(embedded_model_folder(options.model))
    return 0
