"""The panel of a training: state, time left, curves, alarms, newest completions, two buttons."""

import html
import threading
from typing import Any

import ipywidgets

from ..report.curves import first_alarms, training_curves
from ..store.files import last_rows
from . import display
from .live import LiveRun

_POLL = 2.0  # seconds between two looks at the run
_NEWEST = 2**16  # bytes at the end of the completions that are read
_SHOWN = 8  # completions
_AT_REST = ("finished", "interrupted", "failed", "damaged")

_COLORS = {"running": "#009E73", "stopping": "#E69F00", "failed": "#D55E00", "finished": "#0072B2"}


class Panel:
    """Widgets that follow a `LiveRun`.

    A thread redraws them, also while a cell computes. When the training is finished, a static
    figure takes their place, which the notebook keeps.
    """

    def __init__(self, live: LiveRun) -> None:
        self.live = live
        self._headline = ipywidgets.HTML()
        self._message = ipywidgets.HTML()  # what went wrong in the panel itself
        self._passing = False  # whether that is over once a redraw succeeds
        self._curves = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        self._newest = ipywidgets.HTML()
        stop, resume = lambda _: self._ask(self.live.stop), lambda _: self._ask(self.live.resume)
        self._stop = _button("Stop", "stop", "ends after this step, and saves", stop)
        self._resume = _button("Resume", "play", "goes on from the last save", resume)
        buttons = ipywidgets.HBox([self._stop, self._resume])
        parts = [self._headline, buttons, self._message, self._curves, self._newest]
        self.box = ipywidgets.VBox(parts)
        self._drawn = -1  # the step that the curves show
        self._handles: list[Any] = []  # of the panel, and of the figure that is left at the end
        self._drawing = threading.Lock()  # of matplotlib, which serves one thread at a time

    def show(self) -> None:
        """Display the panel, and follow the run until it is finished."""
        self.refresh()
        self._handles = [display.show([headline(self.live)], self.box), display.show([""])]
        threading.Thread(target=self._watch, daemon=True).start()

    def refresh(self) -> str:
        """Redraw what has changed; the state that is shown."""
        with self._drawing:
            live = self.live
            steps = live.run.steps
            if steps != self._drawn:
                self._curves.value = display.image(_figure(live))
                self._newest.value = newest(live)
                self._drawn = steps
            state = live.state
            self._headline.value = headline(live)
            self._stop.disabled = state not in ("starting", "running")
            self._resume.disabled = state not in ("new", "interrupted", "failed")
        return state

    def _watch(self) -> None:
        """Redraw until the run is finished or removed; whoever resumes it, the panel shows it."""
        pause, kept = threading.Event(), ""
        while kept != "finished":
            if not self.live.run.path.is_dir():
                self._say(f"{self.live.run.path} is gone: run the cell again")
                return
            try:
                state = self.refresh()
                if self._passing:
                    self._passing, self._message.value = False, ""
                if state != kept and state in _AT_REST:
                    self._keep(state)
                kept = state
            except Exception as error:  # of a file that is being written: tried again
                self._say(error)
                self._passing = True
            pause.wait(_POLL)

    def _keep(self, state: str) -> None:
        """Leave what is shown in the notebook, without widgets once the run is finished."""
        finished = state == "finished"
        text = headline(self.live) + newest(self.live)
        self._handles[0].update(display.bundle(text, None if finished else self.box), raw=True)
        self._handles[1].update(display.bundle(_figure(self.live) if finished else ""), raw=True)

    def _ask(self, action: Any) -> None:
        self._passing, self._message.value = False, ""
        try:
            action()
        except (OSError, ValueError) as error:
            self._say(error)
            return
        self.refresh()

    def _say(self, text: object) -> None:
        self._message.value = f"<b>{html.escape(str(text))}</b>"


def _button(text: str, icon: str, tooltip: str, action: Any) -> ipywidgets.Button:
    button = ipywidgets.Button(description=text, icon=icon, tooltip=tooltip)
    button.on_click(action)
    return button


def static(live: LiveRun) -> None:
    """Display what a training has done so far, without widgets."""
    display.show([headline(live), _figure(live), newest(live)])


def _figure(live: LiveRun) -> Any:
    return training_curves({live.recipe.name: live.run.metrics})


def headline(live: LiveRun) -> str:
    """State, step n of N and time left as HTML; the reason of a failure."""
    rows, state, last = live.run.metrics, live.state, live.recipe.max_steps
    done = int(rows[-1]["step"]) if rows else 0
    text = f"step {done} of {last}"
    times = [row["step_time"] for row in rows[-10:] if row.get("step_time")]
    if state == "running" and times:
        step = sum(times) / len(times)
        text += f", {duration(step * (last - done))} left ({step:.3g} s a step)"
    elif state == "running":
        text += ": loading the policy, or the first step"
    elif state == "starting":
        text += ": the process starts"
    elif state == "stopping":
        text += ": this one is finished and saved first"
    elif state == "interrupted":
        text += ": Resume goes on from the last save"
    elif state == "finished":
        text += f" in {duration(live.run.seconds)}"
    if alarms := first_alarms(rows):
        text += f"; alarms: {', '.join(alarms)}"
    why = live.error
    color = _COLORS.get(state, "#5A5A5A")
    return (
        f"<b>{html.escape(live.run.id)}</b> "
        f'<span style="background:{color};color:white;padding:1px 8px;border-radius:8px">{state}'
        f"</span> {html.escape(text)}" + (display.text_html(why) if why else "")
    )


def newest(live: LiveRun) -> str:
    """The newest completions as HTML, most rewarded first."""
    file, size = live.run.path / "completions.jsonl", _NEWEST
    rows = last_rows(file, size)
    while not rows and file.is_file() and file.stat().st_size > size:  # a single long one
        size *= 4
        rows = last_rows(file, size)
    if not rows:
        return ""
    group = [row for row in rows if row["problem"] == rows[-1]["problem"]][-_SHOWN:]
    group = [row for row in group if row["step"] == rows[-1]["step"]]
    return (
        f"<b>Newest completions</b>, step {rows[-1]['step']}:"
        f"{display.text_html(rows[-1]['prompt'])}{display.completions_html(group)}"
    )


def duration(seconds: float) -> str:
    """Seconds in words: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
