"""How long grading takes: generated short answers by math-verify, HumanEval's own programs.

The answers are pairs of a gold and another spelling of it, or of a value beside it, so that how
many are right is known beforehand.
"""

import os
import random
import sys
import time
from typing import Any

from grading_check import example

from intuitor_lib.evaluation.benchmarks.benchmarks import get_benchmark, load_items
from intuitor_lib.grading.answers import grade
from intuitor_lib.grading.sandbox import protections
from intuitor_lib.report import Table

__all__ = ["short_answers", "time_grading"]


def short_answers(n: int, seed: int = 0) -> list[tuple[str, str, bool]]:
    """`n` triples of an answer, a gold and whether they are equal; all spelled differently.

    An eighth each: integers with separators, fractions not reduced, decimals for fractions,
    roots, sums in another order, products multiplied out, pairs, equations.
    """
    rng = random.Random(seed)
    return [_pair(i % 8, rng, right=rng.random() < 0.5) for i in range(n)]


def _pair(kind: int, rng: random.Random, *, right: bool) -> tuple[str, str, bool]:
    a, b, k = rng.randint(2, 99), rng.randint(2, 99), rng.randint(2, 9)
    off = 0 if right else rng.randint(1, 5)
    match kind:
        case 0:
            n = 1000 * a + b
            return f"{n + off:,}", str(n), right
        case 1:
            return rf"\frac{{{k * a + k * off}}}{{{k * b}}}", rf"\frac{{{a}}}{{{b}}}", right
        case 2:
            return str((a + off) / 8), rf"\frac{{{a}}}{{8}}", right
        case 3:
            return rf"\sqrt{{{k * k * 7}}} + {off}", rf"{k}\sqrt{{7}}", right
        case 4:
            return f"{b + off} + {a}x", f"{a}x + {b}", right
        case 5:
            return f"x^2 + {a + b}x + {a * b + off}", f"(x+{a})(x+{b})", right
        case 6:
            return rf"\left({a + off}, \frac{{{2 * b}}}{{2}}\right)", f"({a},{b})", right
        case _:
            return f"y = {a}x + {b + off}", f"y = {b} + {a}x", right


def time_grading(answers: int = 5000) -> list[dict[str, Any]]:
    """Grade `answers` short answers and HumanEval's 164 solutions.

    Returns:
        A row each: `what`, `n`, `right`, `expected` (how many are right by construction) and
        `seconds`, the start of the workers included.

    Raises:
        SandboxError: programs cannot be confined on this machine.
    """
    triples = short_answers(answers)
    texts = [f"So it is \\boxed{{{answer}}}." for answer, _, _ in triples]
    started = time.monotonic()
    verdicts = grade(texts, [gold for _, gold, _ in triples])
    middle = time.monotonic()
    benchmark = get_benchmark("humaneval")
    items = load_items(benchmark)
    solutions = [str(example(benchmark.grader, item, right=True)) for item in items]
    programs = time.monotonic()
    passed = [verdict.correct for verdict in benchmark.grader.grade(items, solutions)]
    return [
        {
            "what": "short answers",
            "n": answers,
            "right": sum(verdicts),
            "expected": sum(right for _, _, right in triples),
            "seconds": middle - started,
        },
        {
            "what": "HumanEval programs",
            "n": len(items),
            "right": sum(map(bool, passed)),
            "expected": len(items),
            "seconds": time.monotonic() - programs,
        },
    ]


def main() -> int:
    """Print the times; 1 if a verdict is wrong."""
    rows = time_grading()
    cells = [
        [r["what"], r["n"], f"{r['right']} of {r['expected']}", f"{r['seconds']:.1f}"] for r in rows
    ]
    caption = f"On {os.cpu_count()} cores. {protections()}."
    print(Table(["what", "n", "found right", "seconds"], cells, caption))
    return int(any(row["right"] != row["expected"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
