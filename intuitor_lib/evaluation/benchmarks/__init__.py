"""The benchmarks: sources of their items, prompts and graders.

In: a benchmark's name, and its rows from the hub, a folder or this package. Out: items with their
prompts, and verdicts on completions. Uses: recipe, problems, grading.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
