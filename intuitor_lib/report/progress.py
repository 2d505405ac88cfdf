"""Progress of long work: a bar on a terminal, a live figure in a notebook.

A notebook run in batch has no terminal of its own: it writes its progress to the file that
`INTUITOR_PROGRESS` names, and the batch runner shows a line for each stage of it (`watch`).
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tqdm.std import tqdm

VARIABLE = "INTUITOR_PROGRESS"
_SECONDS_BETWEEN_FIGURES = 5.0
Item = TypeVar("Item")


def in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel."""
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython

    return get_ipython() is not None


def _report(**event: Any) -> None:
    with open(os.environ[VARIABLE], "a", encoding="utf-8") as stream:
        stream.write(json.dumps(event) + "\n")


def _bar_class() -> type[tqdm]:
    if in_notebook():
        from tqdm.notebook import tqdm as widget

        return widget
    return tqdm


def track(items: Iterable[Item], *, total: int, label: str) -> Iterator[Item]:
    """Yield `items` with a progress bar of `total` steps."""
    if VARIABLE in os.environ:
        _report(label=label, done=0, total=total)
        for done, item in enumerate(items, 1):
            yield item
            _report(label=label, done=done, total=total)
    else:
        yield from _bar_class()(items, total=total, desc=label, leave=False, file=sys.stderr)


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
    """Shows a training as it goes: a bar on a terminal, a figure of the curves in a notebook.

    `shown=False` shows nothing: of several processes on one training only one shows it.
    """

    def __init__(self, label: str, total: int, *, shown: bool = True) -> None:
        self.label, self.total, self.shown = label, total, shown
        self._bar: tqdm | None = None
        self._display: Any = None
        self._drawn = 0.0
        if not shown:
            return
        if in_notebook():
            from IPython import get_ipython
            from IPython.core.pylabtools import select_figure_formats
            from IPython.display import Markdown, display

            # Figures are made without pyplot, so the notebook may not know yet how to show one.
            select_figure_formats(get_ipython(), {"png"})
            self._display = display(Markdown(f"`{label}`: loading the policy"), display_id=True)
        elif VARIABLE not in os.environ:
            self._bar = tqdm(total=total, desc=label, unit="step", file=sys.stderr)
        if VARIABLE in os.environ:
            _report(label=label, done=0, total=total, text="loading the policy")

    def note(self, text: str) -> None:
        """Show a line of text before the first step."""
        if self._bar is not None:
            tqdm.write(text, file=sys.stderr)
        if self._display is not None:
            from IPython.display import Markdown

            self._display.update(Markdown(text))

    def update(self, rows: list[dict[str, Any]]) -> None:
        """Show the metrics of every step so far."""
        row = rows[-1]
        shown = {
            "self-certainty": row.get("rewards/self_certainty/mean"),
            "accuracy": row.get("rewards/accuracy/mean"),
            "length": row.get("completions/mean_length"),
            "kl": row.get("kl"),
        }
        text = ", ".join(f"{k} {v:.3g}" for k, v in shown.items() if v is not None)
        if self.shown and VARIABLE in os.environ:
            _report(
                label=self.label,
                done=row["step"],
                total=self.total,
                text=text,
                seconds=row.get("step_time"),
            )
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(row["step"] - self._bar.n)
        now = time.monotonic()
        if self._display is not None and now - self._drawn > _SECONDS_BETWEEN_FIGURES:
            from .curves import training_curves

            self._display.update(training_curves({self.label: rows}))
            self._drawn = now

    def close(self, text: str) -> None:
        """End the display; in a notebook one line of text takes the figure's place."""
        if self._bar is not None:
            self._bar.close()
        if self._display is not None:
            from IPython.display import Markdown

            self._display.update(Markdown(text))


@contextlib.contextmanager
def watch(file: Path) -> Iterator[None]:
    """Show the events that another process writes to `file`: a line for each stage of its work.

    A terminal shows how long a stage has taken and how long it will; elsewhere the line is written
    anew twice a minute.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_draw, args=(file, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _draw(file: Path, stop: threading.Event) -> None:
    position, line = 0, _line("starting", 0)
    while True:
        stopping = stop.is_set()
        lines = []
        if file.is_file():
            with file.open(encoding="utf-8") as stream:
                stream.seek(position)
                lines = stream.readlines()
                if lines and not lines[-1].endswith("\n"):
                    lines.pop()
                position += sum(len(text.encode()) for text in lines)
        for event in map(json.loads, lines):
            if line.desc.strip() != event["label"]:
                line.close()
                line = _line(event["label"], event["total"])
            if line.n == 0 and event.get("seconds"):
                # What went before the first step, or steps of an earlier process, is no measure.
                line.initial, line.start_t = event["done"] - 1, time.time() - event["seconds"]
            line.set_postfix_str(event.get("text", ""), refresh=False)
            line.update(event["done"] - line.n)
        if stopping:
            break
        if sys.stderr.isatty():
            line.refresh()
        stop.wait(0.5)
    line.close()


def _line(label: str, total: int) -> tqdm:
    """A line for a stage of `total` parts; 0: it has none."""
    counted = "{n_fmt:>4} of {total_fmt} in {elapsed}, {remaining} left{postfix}"
    return tqdm(
        total=total or None,
        desc=f"  {label}",
        bar_format="{desc:<36}" + (counted if total else "{elapsed}"),
        smoothing=0,  # the time left is by the mean of all parts so far
        mininterval=0.1 if sys.stderr.isatty() else 30,
        file=sys.stderr,
    )
