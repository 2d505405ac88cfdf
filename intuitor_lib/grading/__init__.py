"""Is it correct? Answers, their equivalence, other forms of answer, unit tests.

In: the text of a completion and a reference answer or tests. Out: the extracted answer and a
verdict. math-verify compares mathematics in workers that can be ended; programs run in `sandbox`.
Uses: nothing of the library.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
