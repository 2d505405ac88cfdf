"""From a finished run to files that others load without this library.

In: a finished `Run`. Out: a folder with its adapter or its merged weights, tokenizer and model
card, which transformers and PEFT load, and a repository on the hub. Uses: recipe, store, report,
problems, certainty, policy, rollouts, evaluation.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
