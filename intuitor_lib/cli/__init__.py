"""The console script `intuitor`.

In: a command line. Out: results on standard output, progress and messages on standard error, and
an exit status. Uses: every package.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
