"""Problems made by this project, for machines where the benchmarks are not available.

Programs to write (`programming`, from the parts in `program_items`), outputs of small functions
(`program_outputs`), and instructions that a program can check (`instructions`). In: a number and a
seed. Out: problems with their tests or checks. Uses: nothing of the library.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
