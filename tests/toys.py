"""A toy benchmark."""

from intuitor_lib.evaluation.benchmarks.benchmarks import Benchmark
from intuitor_lib.evaluation.benchmarks.graders import Item, MathGrader
from intuitor_lib.evaluation.benchmarks.sources import Embedded


def toy(n=7, **changes):
    """A benchmark of sums that the tiny model can read."""
    rows = [{"id": f"sum/{i}", "question": f"{i}+{i * i}=", "answer": str(i)} for i in range(n)]
    settings = {
        "name": "toy",
        "title": "toy sums",
        "source": Embedded(lambda count, seed: rows, "made here", n),
        "to_item": lambda row: Item(row["id"], row["question"], row["question"], row["answer"]),
        "grader": MathGrader(),
        "licence": "none",
        "max_new_tokens": 6,
        **changes,
    }
    return Benchmark(**settings)
