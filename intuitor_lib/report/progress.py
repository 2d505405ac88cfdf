"""Progress of long work: a bar on a terminal or in a notebook.

A notebook run in batch has no terminal of its own: it draws its bars into the file that
`INTUITOR_PROGRESS` names, and the batch runner shows them on its own (`watch`).
"""

import contextlib
import functools
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeVar

import tqdm.auto

VARIABLE = "INTUITOR_PROGRESS"
Item = TypeVar("Item")


def in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel."""
    return "ipykernel" in sys.modules and sys.modules["IPython"].get_ipython() is not None


@functools.cache
def _stream(path: str) -> TextIO:
    return open(path, "a", encoding="utf-8")


def _bar(label: str, total: int, *, leave: bool, **settings: Any) -> Any:
    """A bar of `total` steps; in batch a line with the time left, which stays."""
    if VARIABLE not in os.environ:
        return tqdm.auto.tqdm(total=total, desc=label, leave=leave, file=sys.stderr, **settings)
    return tqdm.tqdm(
        total=total,
        desc=f"  {label}",
        bar_format="{desc:<36}{n_fmt:>4} of {total_fmt} in {elapsed}, {remaining} left{postfix}",
        position=0,  # one bar at a time
        smoothing=0,  # the time left is by the mean of all steps so far
        file=_stream(os.environ[VARIABLE]),
        **settings,
    )


def track(items: Iterable[Item], *, total: int, label: str) -> Iterator[Item]:
    """Yield `items` with a progress bar of `total` steps."""
    with _bar(label, total, leave=False) as bar:
        for item in items:
            yield item
            bar.update()


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within it transformers draws no bars of its own for loading and saving."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class LiveTraining:
    """Shows a training as it goes: a bar, and in a notebook a line of text, which stays.

    `shown=False` shows nothing: of several processes on one training only one shows it.
    """

    def __init__(self, label: str, total: int, *, shown: bool = True) -> None:
        self._line: Any = None
        if shown and in_notebook():
            from IPython.display import Markdown, display

            self._line = display(Markdown(f"`{label}`: loading the policy"), display_id=True)
        leave = self._line is None
        self._bar = _bar(label, total, leave=leave, unit="step", disable=not shown)
        self._bar.set_postfix_str("loading the policy")

    def note(self, text: str) -> None:
        """Show a line of text before the first step."""
        if self._line is not None:
            self._say(text)
        elif not self._bar.disable:
            self._bar.write(text, file=sys.stderr)

    def update(self, rows: list[dict[str, Any]]) -> None:
        """Show the metrics of the last step."""
        row, bar = rows[-1], self._bar
        shown = {
            "self-certainty": row.get("rewards/self_certainty/mean"),
            "accuracy": row.get("rewards/accuracy/mean"),
            "length": row.get("completions/mean_length"),
            "kl": row.get("kl"),
        }
        if bar.n == 0 and row.get("step_time"):
            # What went before the first step, or steps of an earlier process, is no measure.
            bar.initial, bar.start_t = row["step"] - 1, time.time() - row["step_time"]
        bar.update(row["step"] - bar.n)
        bar.set_postfix_str(", ".join(f"{k} {v:.3g}" for k, v in shown.items() if v is not None))

    def close(self, text: str) -> None:
        """End the display; in a notebook this text stays."""
        self._bar.close()
        if self._line is not None:
            self._say(text)

    def _say(self, text: str) -> None:
        from IPython.display import Markdown

        self._line.update(Markdown(text))


@contextlib.contextmanager
def watch(file: Path, note: Callable[[], str] | None = None) -> Iterator[None]:
    """Show the bars that another process draws into `file`: a line for each stage of its work.

    A terminal shows every change; elsewhere the line is written anew twice a minute. After a stage,
    the text of `note` is shown.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_copy, args=(file, stop, note), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _copy(file: Path, stop: threading.Event, note: Callable[[], str] | None) -> None:
    copied = b""
    print("  starting", end="", file=sys.stderr, flush=True)
    while True:
        stopping = stop.wait(0.5 if sys.stderr.isatty() else 30)
        text = file.read_bytes()[len(copied) :] if file.is_file() else b""
        copied += text
        # Each state of a bar begins with a carriage return; the last one of a line counts.
        shown = re.sub(rb"\r[^\r\n]*(?=\r)", b"", text).decode(errors="replace")
        before, line, rest = shown.rpartition("\n")
        said = note() if line and note else ""
        print(
            f"{before}{line}{said}{chr(10) * bool(said)}{rest}", end="", file=sys.stderr, flush=True
        )
        if stopping:
            break
    if not copied.endswith(b"\n"):
        print(file=sys.stderr)
