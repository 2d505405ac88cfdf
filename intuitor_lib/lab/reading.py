"""Reading completions of two policies side by side without knowing which is which."""

import html
import random
import time
from collections import Counter
from typing import Any

import ipywidgets
from scipy.stats import binomtest

from ..recipe import InputError
from ..report.tables import html_table
from ..store import EvaluationRecord
from . import display

_TOO_SOON = 0.3  # seconds; a second click is of a double click
_CHOICES = ("left is better", "no difference", "right is better")


def read_blind(
    before: EvaluationRecord, after: EvaluationRecord, *, n: int = 20, seed: int = 0
) -> "BlindReading":
    """Show pairs of completions of two policies, side by side in random order, to be judged.

    Pairs that are the same text are left out. In batch the pairs are shown with the key below.

    Args:
        before, after: evaluations of the same prompts; the first sample of each is read.
        n: pairs at most.
        seed: of the choice and the sides.

    Raises:
        InputError: no prompt on which the two differ.
    """
    reading = BlindReading(before, after, n=n, seed=seed)
    display.show([reading.static_html()], reading.widget() if display.person_there() else None)
    return reading


class BlindReading:
    """Pairs to read and the judgements so far."""

    def __init__(
        self, before: EvaluationRecord, after: EvaluationRecord, *, n: int, seed: int
    ) -> None:
        first, second = ({r["id"]: r for r in e.rows if r["sample"] == 0} for e in (before, after))
        differing = [
            (first[id]["prompt"], first[id]["completion"], second[id]["completion"])
            for id in first
            if id in second and first[id]["completion"] != second[id]["completion"]
        ]
        if not differing:
            raise InputError(
                f"{before.id} and {after.id} have no prompt with different completions: there is "
                "nothing to choose between"
            )
        self.same = sum(id in second for id in first) - len(differing)  # pairs of equal texts
        draw = random.Random(seed)
        self.pairs = draw.sample(differing, min(n, len(differing)))
        self.swapped = [draw.random() < 0.5 for _ in self.pairs]  # whether `after` is on the left
        self.judgements: list[str] = []  # "after", "before" or "neither", in the order of the pairs

    def judge(self, choice: str) -> None:
        """Record one of the three choices for the next pair."""
        left, right = (
            ("after", "before") if self.swapped[len(self.judgements)] else ("before", "after")
        )
        self.judgements.append(dict(zip(_CHOICES, (left, "neither", right), strict=True))[choice])

    def result(self) -> str:
        """How often the second policy was preferred, with an exact sign test."""
        count = Counter(self.judgements)
        decided = count["after"] + count["before"]
        if not decided:
            return f"{len(self.judgements)} pairs read, none decided"
        p = binomtest(count["after"], decided).pvalue
        return (
            f"{len(self.judgements)} pairs read: the trained policy was better in "
            f"{count['after']}, the base in {count['before']}, neither in {count['neither']} "
            f"(exact sign test, p = {p:.2g}). {self.same} more pairs are the same text"
        )

    def _pair_html(self, i: int) -> str:
        prompt, before, after = self.pairs[i]
        sides = (after, before) if self.swapped[i] else (before, after)
        cells = [display.text_html(text) for text in sides]
        head = f"<b>pair {i + 1} of {len(self.pairs)}</b>{display.text_html(prompt)}"
        return head + html_table(["left", "right"], [cells])

    def static_html(self) -> str:
        """All pairs, and below them, folded, which side is the trained policy."""
        pairs = "".join(self._pair_html(i) for i in range(len(self.pairs)))
        key = ", ".join(
            f"{i + 1} {'left' if swapped else 'right'}" for i, swapped in enumerate(self.swapped)
        )
        return f"{pairs}<details><summary>which is the trained policy</summary>{key}</details>"

    def widget(self) -> ipywidgets.Widget:
        """One pair at a time, with three buttons, and the result after the last."""
        shown = ipywidgets.HTML(self._pair_html(0))
        buttons = [ipywidgets.Button(description=choice) for choice in _CHOICES]

        drawn = time.monotonic()

        def choose(button: Any) -> None:
            nonlocal drawn
            done = len(self.judgements) == len(self.pairs)
            if done or time.monotonic() - drawn < _TOO_SOON:
                return
            self.judge(button.description)
            drawn = time.monotonic()
            if len(self.judgements) < len(self.pairs):
                shown.value = self._pair_html(len(self.judgements))
                return
            shown.value = f"<b>{html.escape(self.result())}</b>"
            for each in buttons:
                each.disabled = True

        for button in buttons:
            button.on_click(choose)
        return ipywidgets.VBox([shown, ipywidgets.HBox(buttons)])
