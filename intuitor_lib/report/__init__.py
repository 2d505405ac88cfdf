"""Numbers to look at: intervals, tables, figures, progress.

Pure functions of stored rows. In: metrics and per-item results. Out: estimates with 95 %
intervals, `Table`s, matplotlib figures, notebook records. Uses: store.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
