"""INTUITOR: reinforcement learning from a language model's own confidence (arXiv 2505.19590).

Data flows one way, through a package each: recipe -> problems -> policy -> rollouts -> training ->
store -> evaluation -> report. Names are loaded on first use, so importing the library is fast and
needs no torch.
"""

import logging

import lazy_loader

# On CPUs with AVX512-BF16 it warns of a kernel that this library does not use.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
