"""Work in JupyterLab: trainings to watch and stop, completions to open, runs to compare.

In: a recipe, runs of the store, their rows. Out: widgets in a notebook with a person at it, and the
same as static HTML in one that is executed in batch or read elsewhere. Uses: recipe, store, report,
problems, grading, policy, training, evaluation, paper.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
