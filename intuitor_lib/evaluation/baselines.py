"""What a policy without any skill would score on a benchmark: the floor of its accuracies."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..grading import echoed
from ..report import proportion
from .benchmarks.benchmarks import Benchmark
from .benchmarks.graders import Item, MathGrader


def baselines(benchmark: Benchmark, items: Sequence[Item]) -> dict[str, dict[str, Any]]:
    """Estimate two accuracies without skill, by name, as JSON-ready estimates.

    "echo" is the share of items whose answer is a number of the question: no policy that repeats a
    part of it scores more. "most frequent answer" is the score of always saying that. Only for
    answers to mathematics; empty for other benchmarks.
    """
    if not isinstance(benchmark.grader, MathGrader):
        return {}
    references = [str(item.reference) for item in items]
    [(_, most)] = Counter(references).most_common(1)
    echoes = sum(echoed([item.question for item in items], references))
    return {
        "echo": proportion(echoes, len(items)).to_dict(),
        "most frequent answer": proportion(most, len(items)).to_dict(),
    }
