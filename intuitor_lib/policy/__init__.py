"""The model: 4 bits, LoRA adapters, the reference, the embedded model.

In: a recipe, a model by name, or a finished run. Out: a `Policy`, which is a model and its
tokenizer, on the device it computes on. Uses: recipe, store, report, problems,
certainty.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
