"""Whether grading is right: reference answers score 1, corrupted ones 0.

    python tests/benchmarks/grading_check.py [--benchmarks DIR] [NAME ...]

grades every reference answer of the named benchmarks, by default of all at hand, and a corrupted
copy of each. Exit status 1: a verdict is wrong.
"""

import argparse
import os
import sys

from intuitor_lib.evaluation.benchmarks import benchmarks_folder, check_grading
from intuitor_lib.evaluation.benchmarks.benchmarks import BENCHMARKS, get_benchmark, load_items
from intuitor_lib.grading.sandbox import protections
from intuitor_lib.problems import DataError
from intuitor_lib.report import Table


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a verdict is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--benchmarks", metavar="DIR", help="folder of benchmark files")
    options = parser.parse_args(arguments)
    rows, wrong = [], False
    benchmarks = [get_benchmark(name) for name in options.names or BENCHMARKS]
    if any(benchmark.grader.runs_code for benchmark in benchmarks):
        print(protections(), file=sys.stderr)
    folder = benchmarks_folder(options.benchmarks)
    if not options.names:
        os.environ["HF_HUB_OFFLINE"] = "1"  # before a library of the hub is imported
    for benchmark in benchmarks:
        try:
            items = load_items(benchmark, folder=folder)
        except DataError as error:
            if options.names or "Hugging Face hub" not in str(error):
                raise
            rows.append([benchmark.name, "-", "-", "-", "only on the hub: name it to fetch it"])
            continue
        found = check_grading(benchmark, items)
        wrong |= bool(found["odd"])
        for line in found["odd"]:
            print(f"{benchmark.name} {line}", file=sys.stderr)
        n, took = found["n"], f"{found['seconds']:.1f} s"
        took = took if n else "graded by an outside judge, or no reference answers"
        right, corrupted = (f"{found[kind]}/{n}" for kind in ("right", "wrong"))
        rows.append([benchmark.name, f"{n} of {len(items)}", right, corrupted, took])
    caption = "Completions made from reference answers; no corrupted one should be graded right."
    header = ["benchmark", "items with a reference", "reference right", "corrupted right", ""]
    print(Table(header, rows, caption))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
