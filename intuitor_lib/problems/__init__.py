"""Problems to solve, and prompts as the policy reads them.

In: a recipe that names a generator, a file or a data set of the hub. Out: `Problems` to train on
and to hold out, and their token ids through the chat template. Uses: recipe,
grading.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
