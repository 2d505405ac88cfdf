from .benchmarks import (
    BENCHMARKS as BENCHMARKS,
    EMBEDDED as EMBEDDED,
    HELD_OUT as HELD_OUT,
    Benchmark as Benchmark,
    get_benchmark as get_benchmark,
    held_out_benchmark as held_out_benchmark,
    load_items as load_items,
)
from .graders import Grader as Grader, Item as Item, Verdict as Verdict
from .sources import benchmarks_folder as benchmarks_folder
