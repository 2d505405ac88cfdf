"""The rollout browser: a training's completions by step and problem, their tokens coloured."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets

from ..recipe import InputError, Recipe
from ..report.tables import html_table
from ..store import Run, RunStore
from . import display

Rows = Sequence[Mapping[str, Any]]


def browse_rollouts(
    source: Run | str | Rows,
    *,
    step: int | None = None,
    problem: str | None = None,
    runs: str | Path | None = None,
) -> None:
    """Show a training's completions: step, problem, group; rewards, advantages, and tokens.

    Tokens are coloured by self-certainty where it is recorded, which it is for the first group of
    each step. Below a group stands the same problem at the other steps that sampled it. In batch
    one group is shown, without widgets.

    Args:
        source: a run, its id, or rows as `Run.completions` has them.
        step: the step that is shown first; by default the last.
        problem: id of the problem that is shown first; by default the step's first.
        runs: folder of the run store; by default as in `RunStore`.

    Raises:
        InputError: no completions, or none of that step or problem.
    """
    if isinstance(source, str):
        source = RunStore(runs)[source]
    rows = source.completions if isinstance(source, Run) else source
    if not rows:
        raise InputError("no completions to show: the training has not finished its first step")
    shown = _Rollouts(rows, source.recipe if isinstance(source, Run) else None)
    step = shown.steps[-1] if step is None else step
    shown.require(step, problem)
    problem = problem or shown.problems(step)[0]
    first = shown.group_html(step, problem)
    display.show([first], shown.widget(step, problem) if display.person_there() else None)


class _Rollouts:
    """Completions by step and problem."""

    def __init__(self, rows: Rows, recipe: Recipe | None) -> None:
        self._groups: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
        for row in rows:
            self._groups.setdefault((row["step"], str(row["problem"])), []).append(row)
        self.steps = sorted({step for step, _ in self._groups})
        values = [v for row in rows for v in row.get("token_self_certainty") or ()]
        self._limits = (min(values), max(values) + 1e-9) if values else (0.0, 1.0)
        self._recipe = recipe
        self._tokenizer: Any = None

    def problems(self, step: int) -> list[str]:
        """Problems of a step, in the order in which they were sampled."""
        return [problem for at, problem in self._groups if at == step]

    def require(self, step: int, problem: str | None) -> None:
        """Raise an `InputError` for a step or problem that has no completions."""
        if step not in self.steps:
            known = f"{self.steps[0]} to {self.steps[-1]}"
            raise InputError(f"step={step}: completions are recorded of steps {known}")
        if problem is not None and (step, problem) not in self._groups:
            at = [other for other, name in self._groups if name == problem]
            where = f"it was sampled at steps {at}" if at else "no step sampled it"
            raise InputError(f"problem={problem!r} is not of step {step}: {where}")

    def group_html(self, step: int, problem: str) -> str:
        """A group as HTML: prompt, completions, and what became of the problem at other steps."""
        group = self._groups[step, problem]
        prompt = display.text_html(group[0]["prompt"])
        known = self._recipe is not None and group[0].get("token_self_certainty")
        coloured = display.scale_html(self._limits) if known else ""
        return (
            f"<b>step {step}, problem {html.escape(problem)}</b>{prompt}"
            f"{display.completions_html(group, self._texts(group))}{coloured}"
            f"{self._elsewhere(step, problem)}"
        )

    def _texts(self, group: Rows) -> list[str]:
        return [
            display.tokens_html(self._split(row["token_ids"]), values, self._limits)
            if self._recipe is not None and (values := row.get("token_self_certainty"))
            else display.text_html(row["completion"])
            for row in group
        ]

    def _split(self, ids: Sequence[int]) -> list[str]:
        """The text of each token."""
        if self._tokenizer is None:
            from ..policy.pretrained import Source, load_tokenizer

            assert self._recipe is not None
            self._tokenizer = load_tokenizer(Source.of(self._recipe))
        return self._tokenizer.batch_decode([[token] for token in ids])

    def _elsewhere(self, step: int, problem: str) -> str:
        others = [at for at, name in self._groups if name == problem and at != step]
        if not others:
            return "<p>No other step sampled this problem.</p>"
        lines = []
        for at in sorted([*others, step]):
            group = self._groups[at, problem]
            lines.append([f"{at}" + " (shown)" * (at == step), *_summary(group)])
        header = ["step", "self-certainty (nats)", "right", "tokens", "most frequent completion"]
        table = html_table(header, lines)
        return f"<p>The same problem at every step that sampled it:</p>{table}"

    def widget(self, step: int, problem: str) -> ipywidgets.Widget:
        """A slider over steps and a list of the step's problems above the group."""
        style = {"description_width": "initial"}
        steps = ipywidgets.SelectionSlider(
            options=self.steps, value=step, description="step", continuous_update=False, style=style
        )
        problems = ipywidgets.Dropdown(
            options=self.problems(step), value=problem, description="problem", style=style
        )
        shown = ipywidgets.HTML(self.group_html(step, problem))

        def draw(_: Any = None) -> None:
            if problems.value is not None:
                shown.value = self.group_html(steps.value, problems.value)

        def move(_: Any) -> None:
            wanted, there = problems.value, self.problems(steps.value)
            problems.unobserve(draw, "value")
            problems.options = there
            problems.value = wanted if wanted in there else there[0]
            problems.observe(draw, "value")
            draw()

        steps.observe(move, "value")
        problems.observe(draw, "value")
        return ipywidgets.VBox([ipywidgets.HBox([steps, problems]), shown])


def _summary(group: Rows) -> list[str]:
    """Means of a group, and its most frequent completion."""
    certainty = [row["self_certainty"] for row in group if row.get("self_certainty") is not None]
    right = [row["accuracy"] for row in group if row.get("accuracy") is not None]
    texts = [row["completion"] for row in group]
    common = max(texts, key=texts.count)
    return [
        f"{sum(certainty) / len(certainty):.2f}" if certainty else "-",
        f"{sum(right):.0f} of {len(right)}" if right else "-",
        f"{sum(row['tokens'] for row in group) / len(group):.1f}",
        display.text_html(f"{texts.count(common)} × {common}"),
    ]
