"""Stop at the next safe point after Ctrl-C, a kernel's interrupt or a batch system's SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Interrupted", "StopRequest"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Stopped by a signal, with everything saved. The message explains how to resume."""


class StopRequest:
    """Whether to stop: within `listening` the first signal sets `asked`, the second interrupts.

    Signals are handled in the main thread only; in another thread `listening` changes nothing.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def listening(self, promise: str) -> Iterator[None]:
        """Handle SIGINT and SIGTERM: the first one prints `promise` and sets `asked`.

        Raises:
            KeyboardInterrupt: at the second signal.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def take(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            # The signal may have come in the middle of another print.
            with contextlib.suppress(RuntimeError):
                print(f"\n{promise}", file=sys.stderr, flush=True)

        before = {number: signal.signal(number, take) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
