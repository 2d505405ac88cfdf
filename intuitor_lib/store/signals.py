"""Signals that are handled for the length of a block."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def handling(signals: Sequence[signal.Signals], handler: Any) -> Iterator[None]:
    """Handle signals within the block, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
