"""Commands that evaluate, and that show and compare evaluations."""

import argparse
import sys

from ..recipe import SYSTEM_PROMPTS
from ..store import RunStore
from .arguments import print_table

# Options of `intuitor evaluate` that `evaluation.evaluate` takes as they are.
_SETTINGS = (
    "n seed temperature num_samples max_new_tokens batch_size certainty adapter revision "
    "quantization dtype trust_remote_code extraction benchmarks runs"
)


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


COMMANDS = {
    "benchmarks": _benchmarks,
    "evaluate": _evaluate,
    "evaluations": _evaluations,
    "compare": _compare,
}
