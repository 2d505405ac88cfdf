"""Evaluation of policies on benchmarks and on held-out problems.

In: a run, a recipe, a model or an adapter, and a benchmark. Out: an `EvaluationRecord` with a row
for each completion, and scores with intervals. Uses: recipe, store, report, problems, grading,
certainty, policy, rollouts.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
