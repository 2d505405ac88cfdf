from .benchmarks import (
    BENCHMARKS as BENCHMARKS,
    Benchmark as Benchmark,
    get_benchmark as get_benchmark,
    held_out_benchmark as held_out_benchmark,
    load_items as load_items,
)
from .confidence import measure_confidence as measure_confidence
from .evaluation import evaluate as evaluate
from .scoreboard import comparison_table as comparison_table, evaluation_table as evaluation_table
from .selection import SELECTORS as SELECTORS, best_of_n as best_of_n
from .subjects import Subject as Subject, find_subject as find_subject
