"""Results on disk: runs, evaluations, checkpoints.

A `RunStore` is a folder in which a training or an evaluation is found again by its settings. In: a
recipe and the fingerprint of its problems, then rows and weights. Out: a `Run` or an
`EvaluationRecord`, whose files are written whole, locked against other processes and checked by
SHA-256. Uses: recipe.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
