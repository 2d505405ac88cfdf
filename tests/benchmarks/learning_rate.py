"""Choose the learning rate of the CPU experiments by the rule of docs/protocol.md.

    python tests/benchmarks/learning_rate.py [--runs FOLDER] [--csv FILE]

From the largest rate down, the random reward and GRPO are trained with spare seeds, INTUITOR is
not. A rate fails at the first seed at which the random reward moves held-out accuracy by more than
.05, or at which GRPO's sampled accuracy does not rise. Trainings and evaluations are kept in the
run store, so that the tool goes on where it was stopped.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from typing import Any

from intuitor_lib import get_recipe, train
from intuitor_lib.evaluation import evaluate
from intuitor_lib.evaluation.benchmarks.benchmarks import held_out_benchmark
from intuitor_lib.report import difference_over_problems

RATES = (1e-4, 3e-5, 1e-5, 5e-6)
SEEDS = (101, 102)
DECODINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.9, "num_samples": 8},
}
TOLERANCE = 0.05


def main() -> None:
    """Print a line for each policy and decoding, and the rate that the rule chooses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default=None, help="the run store")
    parser.add_argument("--csv", default=None, help="also write the lines there")
    options = parser.parse_args()
    lines, chosen = [], None
    for rate in RATES:
        passed = True
        for line in _lines(rate, options.runs):
            lines.append(line)
            print("  ".join(f"{key}={value}" for key, value in line.items()), flush=True)
            passed = passed and line["passed"]
        if passed:
            chosen = rate
            break
    print(f"learning rate: {chosen}")
    if options.csv:
        with open(options.csv, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, lines[0])
            writer.writeheader()
            writer.writerows(lines)
    sys.exit(chosen is None)


def _lines(rate: float, runs: str | None) -> Iterator[dict[str, Any]]:
    """A line for each policy and decoding, up to the first that fails."""
    base_recipe = get_recipe("random", "cpu")
    base = {name: _rows(base_recipe, name, runs) for name in DECODINGS}
    for arm in ("random", "grpo"):
        for seed in SEEDS:
            run = train(get_recipe(arm, "cpu", seed=seed, learning_rate=rate), runs=runs)
            for name in DECODINGS:
                rows = _rows(run, name, runs)
                change = difference_over_problems(base[name], rows, "correct")
                if arm == "random":
                    passed = abs(change.value) <= TOLERANCE
                else:
                    passed = name == "greedy" or change.low > 0
                yield {
                    "learning_rate": rate,
                    "arm": arm,
                    "seed": seed,
                    "decoding": name,
                    "base": round(_mean(base[name]), 4),
                    "trained": round(_mean(rows), 4),
                    "change": change.text(3),
                    "kl": round(run.metrics[-1]["kl"], 4),
                    "seconds": round(run.seconds),
                    "passed": passed,
                }
                if not passed:
                    return


def _rows(policy: Any, decoding: str, runs: str | None) -> list[dict[str, Any]]:
    benchmark = held_out_benchmark(get_recipe("intuitor", "cpu"))
    how: dict[str, Any] = {**DECODINGS[decoding], "batch_size": 128, "runs": runs}
    return evaluate(policy, benchmark, **how).rows


def _mean(rows: list[dict[str, Any]]) -> float:
    return sum(row["correct"] for row in rows) / len(rows)


if __name__ == "__main__":
    main()
