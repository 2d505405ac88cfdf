from .benchmarks import (
    BENCHMARKS as BENCHMARKS,
    EMBEDDED as EMBEDDED,
    Benchmark as Benchmark,
    check_grading as check_grading,
    get_benchmark as get_benchmark,
    load_items as load_items,
)
from .graders import Grader as Grader, Item as Item, Verdict as Verdict
from .sources import benchmarks_folder as benchmarks_folder
