"""Choose the word problems of the CPU experiments by the rule of docs/protocol.md.

    python tests/benchmarks/reasoning_family.py [--runs FOLDER]

The base answers held-out problems of each family, greedily and sampled, as the tests of the profile
`cpu` do. The first family is taken at which it is right in .15 to .85 of its completions and cut
off in under 5 % of them, in both ways. Nothing is trained. Evaluations are kept in the run store.
"""

import argparse
import sys

from intuitor_lib import get_recipe
from intuitor_lib.evaluation import evaluate
from intuitor_lib.evaluation.benchmarks.benchmarks import held_out_benchmark
from intuitor_lib.paper import SUITES
from intuitor_lib.report import summarize

FAMILIES = {
    "gsm_symbolic": {},
    "basic_arithmetic": {"min_terms": 3, "max_terms": 4},
    "leg_counting": {},
}
TESTS = ("reasoning", "reasoning_sampled")
LOW, HIGH, CUT_OFF = 0.15, 0.85, 0.05


def main() -> None:
    """Print a line for each family and decoding, and the family that the rule chooses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default=None, help="the run store")
    options = parser.parse_args()
    chosen = None
    for family, settings in FAMILIES.items():
        recipe = get_recipe("intuitor-reasoning", "cpu").replace(
            dataset=f"reasoning-gym:{family}", dataset_kwargs=settings
        )
        passed = True
        for test in (SUITES["cpu"][name] for name in TESTS):
            how = {key: getattr(test, key) for key in ("n", "temperature", "num_samples")}
            record = evaluate(
                recipe,
                held_out_benchmark(recipe),
                batch_size=test.batch_size,
                runs=options.runs,
                **how,
            )
            found = summarize(record.rows)
            right, cut_off = found["accuracy"], found["clipped"]
            fits = LOW <= right.value <= HIGH and cut_off.value < CUT_OFF
            passed = passed and fits
            print(
                f"{family}  T={test.temperature}  right={right.text(3)}  "
                f"cut_off={cut_off.value:.3f}  tokens={found['tokens'].value:.1f}  passed={fits}",
                flush=True,
            )
        if passed:
            chosen = family
            break
    print(f"family: {chosen}")
    sys.exit(chosen is None)


if __name__ == "__main__":
    main()
