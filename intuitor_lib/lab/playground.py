"""The playground: a prompt, completions of a policy, ranked by self-certainty, and their vote."""

import html
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets

from ..grading import extract_answers, plurality
from ..problems import Problem
from ..recipe import InputError, Recipe
from ..report.tables import html_table
from ..store import Run, RunStore
from . import display


def playground(
    policy: Run | Recipe | str,
    prompt: str = "",
    *,
    num_samples: int = 8,
    base: bool = True,
    seed: int = 0,
    runs: str | Path | None = None,
) -> None:
    """Sample a prompt from a policy, and beside it from the one it was trained from.

    Completions are ranked by self-certainty, surest first; the answer that most of them give is
    named. They are sampled as the recipe trains. A policy is loaded at the first sampling, into
    this kernel. In batch the prompt is sampled once.

    Args:
        policy: a finished run, its id, or a recipe, which is sampled untrained.
        prompt: the problem, which the recipe's template and system prompt surround.
        num_samples: completions of each policy.
        base: whether to sample the untrained policy beside a run.
        seed: of the sampling; the button "Sample again" counts it up.
        runs: folder of the run store; by default as in `RunStore`.

    Raises:
        InputError: a run that is not finished; in batch an empty prompt, or a policy that cannot be
            loaded.
    """
    store = RunStore(runs)
    policy = store[policy] if isinstance(policy, str) else policy
    sides: list[Run | Recipe] = [policy]
    if isinstance(policy, Run):
        policy.require_finished()
        sides = [policy.recipe, policy] if base else sides
    table = _Samples(sides, store, num_samples)
    if display.person_there():
        first = table.html(prompt, seed) if prompt else ""
        display.show([first], _widget(table, prompt, first, seed))
    elif not prompt:
        raise InputError("prompt='': give the text to sample, since nobody can type it here")
    else:
        display.show([table.html(prompt, seed)])


class _Samples:
    """Policies that are loaded once, and their completions of prompts."""

    def __init__(self, sides: Sequence[Run | Recipe], store: RunStore, num_samples: int) -> None:
        self._sides, self._store, self._num_samples = sides, store, num_samples
        self._loaded: list[Any] = []

    def html(self, prompt: str, seed: int) -> str:
        """The completions of every policy side by side, as HTML."""
        from ..evaluation import find_subject

        if not self._loaded:
            self._loaded = [find_subject(side, self._store).load() for side in self._sides]
        cells = []
        for side, policy in zip(self._sides, self._loaded, strict=True):
            recipe = side.recipe if isinstance(side, Run) else side
            name = side.id if isinstance(side, Run) else f"untrained {recipe.model}"
            cells.append(f"<b>{html.escape(name)}</b>{self._sampled(policy, recipe, prompt, seed)}")
        width = f"{100 // len(cells)}%"
        style = f"width:{width};min-width:20em;vertical-align:top;overflow-x:auto"
        parts = "".join(f'<div style="{style}">{cell}</div>' for cell in cells)
        return f'<div style="display:flex;flex-wrap:wrap">{parts}</div>'

    def _sampled(self, policy: Any, recipe: Recipe, prompt: str, seed: int) -> str:
        from ..training.samples import sample_problems

        problem = Problem(prompt, None, "playground", "typed")
        completions, texts = sample_problems(
            policy, [problem], recipe, group=self._num_samples, seed=seed
        )
        certainty = [completion.mean_certainty or 0.0 for completion in completions]
        answers = extract_answers(texts, recipe.answer_extraction)
        votes = plurality(answers, recipe.answer_extraction)
        order = sorted(range(len(texts)), key=lambda i: -certainty[i])
        rows = [
            [
                f"{certainty[i]:.2f}",
                "-" if answers[i] is None else html.escape(str(answers[i])) + " ★" * votes[i],
                str(len(completions[i].ids)),
                display.text_html(texts[i]),
            ]
            for i in order
        ]
        named = next((a for a, vote in zip(answers, votes, strict=True) if vote), None)
        vote = (
            f"{sum(votes)} of {len(votes)} say {named!r} (★)" if named else "none states an answer"
        )
        header = ["self-certainty (nats)", "answer", "tokens", "completion"]
        said = (
            f"<p>{html.escape(vote)}; mean self-certainty {statistics.mean(certainty):.2f} nats</p>"
        )
        return said + html_table(header, rows)


def _widget(table: _Samples, prompt: str, first: str, seed: int) -> ipywidgets.Widget:
    """A text field and a button above the samples."""
    wide = {"width": "100%"}
    asked = ipywidgets.Textarea(prompt, placeholder="a problem for the policy", rows=3, layout=wide)
    button = ipywidgets.Button(description="Sample again" if prompt else "Sample", icon="play")
    shown, count = ipywidgets.HTML(first), seed

    def sample(_: Any) -> None:
        nonlocal count
        if not asked.value.strip():
            shown.value = "Type a problem first."
            return
        count += bool(shown.value)
        button.disabled, shown.value = True, "sampling; the first time, the policies are loaded"
        try:
            shown.value = table.html(asked.value, count)
        except (OSError, ValueError, RuntimeError) as error:
            shown.value = display.text_html(f"{type(error).__name__}: {error}")
        finally:
            button.disabled = False
        button.description = "Sample again"

    button.on_click(sample)
    return ipywidgets.VBox([asked, button, shown])
