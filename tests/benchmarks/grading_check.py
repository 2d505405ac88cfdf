"""Whether grading is right: reference answers score 1, corrupted ones 0.

    python tests/benchmarks/grading_check.py [--benchmarks DIR] [NAME ...]

grades every reference answer of the named benchmarks, by default of all at hand, and a corrupted
copy of each. Exit status 1: a verdict is wrong.
"""

import argparse
import ast
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from intuitor_lib.evaluation.benchmarks import (
    BENCHMARKS,
    Benchmark,
    benchmarks_folder,
    get_benchmark,
    load_items,
)
from intuitor_lib.evaluation.benchmarks.graders import (
    ChoiceGrader,
    CodeGrader,
    Grader,
    Item,
    MathGrader,
    ValueGrader,
)
from intuitor_lib.grading.sandbox import protections
from intuitor_lib.problems import DataError
from intuitor_lib.report import Table


def example(grader: Grader, item: Item, *, right: bool) -> str | None:
    """A right or a wrong completion of an item; None if its benchmark publishes no reference."""
    reference = item.reference
    if isinstance(grader, MathGrader):
        return f"So the answer is \\boxed{{{reference}{'' if right else ' + 1'}}}."
    if isinstance(grader, ChoiceGrader):
        letters, answer = reference["letters"], reference["answer"]
        shown = answer if right else letters[(letters.index(answer) + 1) % len(letters)]
        return f"Therefore the answer is ({shown})."
    if isinstance(grader, ValueGrader):
        answer = reference
        if not right:
            value = ast.literal_eval(answer)
            answer = repr(value + "x" if isinstance(value, str) else [value])
        return json.dumps({"reasoning": "Step by step.", "answer": answer})
    if isinstance(grader, CodeGrader):
        solution, name = reference.get("solution"), reference["defines"]
        spoiled = "" if right else f"\n\n\ndef {name}(*_, **__):\n    return None"
        return solution and f"```python\n{solution}{spoiled}\n```"
    return None


def check_grading(benchmark: Benchmark, items: Sequence[Item]) -> dict[str, Any]:
    """Grade a right and a wrong completion of every item, both made from its reference answer.

    Returns:
        `n` (items with a reference), `right` and `wrong` (number of these completions graded
        right; n and 0 if grading works), `odd` (ids and reasons of the others) and `seconds`.
    """
    started = time.monotonic()
    found: dict[str, Any] = {"right": 0, "wrong": 0, "odd": []}
    grader = benchmark.grader
    known = [item for item in items if example(grader, item, right=True) is not None]
    for side in ("right", "wrong"):
        texts = [str(example(grader, item, right=side == "right")) for item in known]
        for item, verdict in zip(known, grader.grade(known, texts), strict=True):
            found[side] += bool(verdict.correct)
            if bool(verdict.correct) != (side == "right"):
                found["odd"].append(f"{item.id} ({side}): {verdict.reason}")
    return {"n": len(known), **found, "seconds": time.monotonic() - started}


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
