"""The paper's numbers and claims, the trainings behind the notebooks, and verdicts.

In: names of arms, a profile and seeds. Out: `Trial`s with their measurements, read from
`data/results` or made now, and verdicts on the paper's claims. Uses: recipe, store, report,
problems, grading, certainty, policy, training, evaluation.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
