"""Reward functions with TRL's signature: `reward(prompts, completions, completion_ids, ...)`.

In: TRL's columns. Out: one float for each completion, None where it cannot be judged. `confidence`
needs the model, `answers` needs answers, votes or tests; `factory` makes the rewards of a recipe.
Uses: as training.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
