"""Stopping a batch of notebooks: a training in a kernel ends its step and saves it first."""

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from types import FrameType

from jupyter_client.manager import AsyncKernelManager

from ..store.signals import handling

PROMISE = "stopping: a training ends its step and saves it first; Ctrl-C again ends all at once"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Interrupt at the first SIGINT or SIGTERM, which prints `PROMISE`, and then at SIGINT alone.

    SIGTERM may come twice, from two who ask. Outside the main thread nothing changes.
    """
    asked = False

    def take(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGTERM:
            return
        if not asked and multiprocessing.parent_process() is None:
            with contextlib.suppress(RuntimeError):  # in the middle of another print
                print(f"\n{PROMISE}", file=sys.stderr, flush=True)
        asked = True
        raise KeyboardInterrupt(
            f"stopped by {signal.Signals(number).name}; the same command resumes"
        )

    with handling(_SIGNALS, take):
        yield


def outlive_signals() -> None:
    """Let a worker of a pool, while it waits for work, outlive the signals that stop the batch.

    Ignoring them would be passed on to the kernels that it starts.
    """
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)


def stop_workers(pool: Executor) -> None:
    """Stop what the workers of a pool do, begin nothing else, wait; an interrupt kills them."""
    workers = multiprocessing.active_children()
    try:
        for worker in workers:
            worker.terminate()
        pool.shutdown(cancel_futures=True)
    except KeyboardInterrupt:
        for worker in workers:
            worker.kill()
        raise


class Kernel(AsyncKernelManager):
    """The kernel of an executed notebook."""

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:  # type: ignore[override]
        """End the kernel; if its notebook is interrupted, once the training in it has saved.

        A training takes SIGTERM twice, from here and from a batch system; other work ends at once.
        """
        if isinstance(sys.exception(), KeyboardInterrupt):
            await self.signal_kernel(signal.SIGTERM)
            client = self.client()
            client.start_channels()
            with contextlib.suppress(RuntimeError):  # it has ended
                await client.wait_for_ready()  # it answers when no cell runs
            client.stop_channels()
        await self.request_shutdown()
        await self.finish_shutdown()
