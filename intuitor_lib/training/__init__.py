"""From a recipe to a trained run: rewards, trainer, monitor, preflight.

In: a recipe. Out: a finished `Run` in the store, with metrics, completions and weights. TRL's
`GRPOTrainer` trains; `IntuitorTrainer` adds self-certainty from its rollouts. Uses: recipe, store,
report, problems, grading, certainty, policy, rollouts.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
