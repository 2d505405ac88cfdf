"""Does self-certainty separate right from wrong? Tables, panels and the verdict on Figure 8."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..report import Table, auc_within_groups, mann_whitney, separation, separation_change, spearman
from .numbers import FIGURES
from .plan import SEEDS, SUITES, Rows, arm_recipe
from .trials import Trial
from .verdicts import answer, direction

PAIRS = ("base → base", "INTUITOR → INTUITOR", "base → INTUITOR", "GRPO → GRPO")
"""Who answers → who scores, as in Figure 8."""

_SIGNALS = {
    "self-certainty": lambda row: row["self_certainty"],
    "minus entropy": lambda row: -row["entropy"],
    "mean log-probability (minus log perplexity)": lambda row: row["log_prob"],
    "minus length": lambda row: -row["tokens"],
}


def _known(rows: Rows) -> Rows:
    return [row for row in rows if row["self_certainty"] is not None]


def signals_table(rows: Rows, profile: str) -> Table:
    """Tabulate what signals say of a pair of `confidence`: within a problem, do higher ones win?"""
    known, lines = _known(rows), []
    certainty = [row["self_certainty"] for row in known]
    for name, signal in _SIGNALS.items():
        values = [signal(row) for row in known]
        scored = [{**row, "value": value} for row, value in zip(known, values, strict=True)]
        found = auc_within_groups(scored, "value")
        constant = len({*values}) < 2
        rho = "-" if constant else f"{spearman(values, certainty):+.2f}"
        told = "-" if found is None else f"{found.text()} ({found.n} problems)"
        lines.append([name, rho, told])
    title = SUITES[profile]["in_domain_sampled"].title
    return Table(
        ["signal", "rank correlation with self-certainty", "AUC within problems"],
        lines,
        f"Profile {profile}, {title}, n = {len({row['id'] for row in known})} problems, "
        f"{len(known)} completions; 95 % intervals over problems.",
    )


def figure_8(
    rows: Mapping[str, Rows], profile: str
) -> tuple[dict[str, tuple[Sequence[float], Sequence[float], str]], Table]:
    """The panels of `confidence_histograms` and the table of Figure 8, ours beside the paper's.

    `rows` are those of `confidence` by pair.
    """
    printed, lines = FIGURES["figure-8"]["printed"], []
    panels: dict[str, tuple[Sequence[float], Sequence[float], str]] = {}
    for pair in PAIRS:
        known = _known(rows[pair])
        right, wrong = (
            [row["self_certainty"] for row in known if bool(row["correct"]) is kind]
            for kind in (True, False)
        )
        cells, text = ["-", "-"], "one kind only"
        if right and wrong:
            ranks, effect = mann_whitney(right, wrong), separation(known, "self_certainty")
            text = f"U = {ranks['U']:.0f}, p = {ranks['p']:.1g}, r = {ranks['r']:.2f}"
            cells = [f"{ranks['p']:.1g}", effect.text()]
        panels[pair] = (right, wrong, text)
        theirs = [f"{printed[pair]['p']:.1g}", f"{printed[pair]['r']:.2f}"]
        lines.append([pair, *theirs, *cells, f"{len(right)} / {len(wrong)}"])
    base, test = _known(rows[PAIRS[0]]), SUITES[profile]["in_domain_sampled"]
    table = Table(
        ["answers → scores", "paper: p", "paper: r", "ours: p", "ours: r", "right / wrong"],
        lines,
        f"Paper: MATH500, Qwen2.5-3B. Ours: {test.title}, profile {profile}, n = "
        f"{len({row['id'] for row in base})} problems x {test.num_samples} completions, one seed "
        f"of training ({SEEDS[profile][0]}); 95 % intervals over problems.",
    )
    return panels, table


def separation_answer(rows: Mapping[str, Rows], profile: str) -> list[dict[str, Any]]:
    """Answer whether training made self-certainty separate better, as `ask` answers.

    Empty where on one side all completions are right, or all wrong.
    """
    before, after = _known(rows["base → base"]), _known(rows["INTUITOR → INTUITOR"])
    if any(len({bool(row["correct"]) for row in side}) < 2 for side in (before, after)):
        return []
    effects = {
        "INTUITOR": separation(after, "self_certainty"),
        "base": separation(before, "self_certainty"),
    }
    gap = separation_change(before, after, "self_certainty")
    recipe = arm_recipe("intuitor", profile, SEEDS[profile][0])
    arm, gaps = [Trial("intuitor", "INTUITOR", profile, recipe)], {"base": gap}
    what = ("separates", "sampled", "in_domain_sampled")
    return [answer(*what, profile, arm, effects, gaps, direction(gap))]
