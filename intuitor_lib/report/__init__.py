"""Numbers to look at: intervals, tables, figures, progress.

Pure functions of stored rows, except for progress. In: metrics and results with one row each. Out:
estimates with 95 % intervals, `Table`s, matplotlib figures, records of notebooks. Uses: store.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
