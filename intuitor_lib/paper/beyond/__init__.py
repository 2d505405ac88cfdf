"""Questions beyond the paper: where a gain can be told beforehand, and when to stop without labels.

In: trials and samples of bases. Out: tables, pairs for figures, and the protocol's rule as values.
Uses: paper's trials and verdicts, report, evaluation.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
