"""Run Python that a model wrote, isolated from the rest of the machine.

In: the text of a program. Out: its output and how it ended. `confine` is the interface and `layout`
the file system; `jail`, `cell` and `syscalls` run inside, without the package. Uses: nothing of the
library.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
