"""INTUITOR: reinforcement learning from a language model's own confidence (arXiv 2505.19590).

Data flows one way, through a package each: recipe -> problems -> policy -> rollouts -> training ->
store -> evaluation -> report. Names are loaded on first use, so importing the library is fast and
needs no torch.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
