"""Settings of a training and of the machine it runs on.

`Recipe` holds every setting with the source of its default. `RECIPES` has one or more for each
experiment of the paper, and `PROFILES` scale them to a machine. In: names, files and single
settings. Out: a validated, immutable `Recipe`, or a `RecipeError` that lists every fault. Uses:
nothing of the library.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
