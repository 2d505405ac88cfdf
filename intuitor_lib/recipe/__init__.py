"""What to train, and on what machine.

`Recipe` holds every setting of a training with the source of its default; `RECIPES` names one or
more for each experiment of the paper and `PROFILES` scale them to a machine. In: names, files and
single settings. Out: a validated, immutable `Recipe`, or a `RecipeError` that names every fault.
Uses: nothing of the library.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
