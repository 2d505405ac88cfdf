"""Commands that evaluate, and that show and compare evaluations."""

import argparse
import sys
from collections.abc import Callable

from ..grading import EXTRACTIONS
from ..recipe import SMOLLM2, SYSTEM_PROMPTS
from ..store import RunStore
from .arguments import positive, print_table

# Options of `intuitor evaluate` that `evaluation.evaluate` takes as they are.
_SETTINGS = (
    "n seed temperature num_samples max_new_tokens batch_size certainty adapter revision "
    "quantization dtype trust_remote_code extraction benchmarks runs"
)


def add_verbs(new: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands; `new(name, command, text, *shared)` makes the parser of one."""
    new("benchmarks", _benchmarks, "list the benchmarks: source, licence, what they stand in for")

    text = "evaluate a model, an adapter or a run on benchmarks"
    verb = new("evaluate", _evaluate, text, "--benchmarks", "--csv", "--runs")
    verb.add_argument("model", help=f"a run's id, '{SMOLLM2}', a folder, a hub name")
    verb.add_argument(
        *("-b", "--benchmark"),
        action="append",
        required=True,
        metavar="NAME",
        help="a name of `intuitor benchmarks`, repeatable; 'embedded' is all that need no hub",
    )
    verb.add_argument("--base", action="store_true", help="the policy the run started from")
    verb.add_argument("--adapter", metavar="DIR", help="a PEFT adapter to put on the model")
    verb.add_argument("--revision", help="of the model on the hub")
    verb.add_argument("--quantization", choices=("none", "nf4"), help="of a model; default none")
    verb.add_argument("--dtype", help="compute dtype; default auto")
    verb.add_argument(
        "--trust-remote-code", action="store_true", default=None, help="run the model's own code"
    )
    verb.add_argument("--n", type=int, help="number of items, drawn by the seed; default all")
    verb.add_argument("--seed", type=int, default=0, help="of items and sampling; default 0")
    verb.add_argument("--temperature", type=float, default=0.0, help="default 0, greedy")
    verb.add_argument("--samples", dest="num_samples", type=int, default=1, help="for pass@k")
    verb.add_argument("--max-new-tokens", type=int, help="instead of the benchmark's")
    verb.add_argument(
        "--system-prompt",
        metavar="TEXT",
        help=f"instead of the benchmark's: 'none', {', '.join(SYSTEM_PROMPTS)}, or a text",
    )
    verb.add_argument("--extraction", choices=EXTRACTIONS, help="where the answer is read")
    verb.add_argument("--batch-size", type=positive, help="completions at a time; default 32")
    verb.add_argument(
        "--no-certainty", dest="certainty", action="store_false", help="leave self-certainty out"
    )

    shared = ("--csv", "--runs")
    verb = new("evaluations", _evaluations, "the scores of every stored evaluation", *shared)
    verb.add_argument("names", nargs="*", metavar="NAME", help="of policies or evaluations")

    verb = new("compare", _compare, "compare two policies on the same items", *shared)
    verb.add_argument("before", help="a run's id, a policy's name or an evaluation's id")
    verb.add_argument("after", help="the same")


def _benchmarks(options: argparse.Namespace) -> int:
    from ..evaluation.benchmarks.benchmarks import BENCHMARKS

    for benchmark in BENCHMARKS.values():
        is_for = f"stands in for {benchmark.stands_in_for}" if benchmark.stands_in_for else ""
        column = f"Table 1, {benchmark.column}" if benchmark.column else is_for
        print(f"{benchmark.name:<15} {benchmark.title}{column and f' ({column})'}")
        print(f"{'':<15} {benchmark.source.describe()}")
        limit = f"<= {benchmark.max_new_tokens} tokens"
        print(f"{'':<15} {benchmark.metric}, {limit}, {benchmark.licence}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from ..evaluation.benchmarks.benchmarks import EMBEDDED, get_benchmark

    # Names are checked before torch is imported.
    names: list[str] = []
    for name in options.benchmark:
        names += EMBEDDED if name == "embedded" else [get_benchmark(name).name]
    from ..evaluation.benchmarks.alpaca import judging_command
    from ..evaluation.evaluation import BENCHMARKS_OWN, evaluate
    from ..evaluation.scoreboard import evaluation_table

    policy = options.model
    if options.base:
        policy = RunStore(options.runs)[options.model].recipe
    settings = {name: getattr(options, name) for name in _SETTINGS.split()}
    prompt = options.system_prompt
    prompt = BENCHMARKS_OWN if prompt is None else SYSTEM_PROMPTS.get(prompt, prompt)
    settings["system_prompt"] = None if prompt == "none" else prompt
    records = []
    for name in dict.fromkeys(names):
        record = evaluate(policy, name, **settings)
        records.append(record)
        judge = judging_command(record.path)
        if judge is not None:
            print(f"{name}: judge the outputs with\n  {judge}", file=sys.stderr)
    print_table(evaluation_table(records), options.csv)
    print()
    for record in records:
        print(record.path.resolve())
    return 0


def _evaluations(options: argparse.Namespace) -> int:
    from ..evaluation.scoreboard import evaluation_table, find_evaluations

    store = RunStore(options.runs)
    records = list(store.evaluations())
    if options.names:
        records = [record for name in options.names for record in find_evaluations(store, name)]
    if not records:
        print(f"no evaluations in {store.root}", file=sys.stderr)
        return 0
    print_table(evaluation_table(records), options.csv)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from ..evaluation.scoreboard import comparison_table, find_evaluations

    store = RunStore(options.runs)
    sides = [find_evaluations(store, name) for name in (options.before, options.after)]
    print_table(comparison_table(*sides), options.csv)
    return 0
