"""Scores of stored evaluations: of each with its interval, and of two on the same items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..recipe.constants import InputError
from ..report.intervals import (
    Estimate,
    difference_over_problems,
    mcnemar,
    pass_at_k,
    proportion,
    summarize,
)
from ..report.tables import Table
from ..store.evaluations import EvaluationRecord
from ..store.run_store import RunStore
from .benchmarks.alpaca import read_judgement
from .benchmarks.benchmarks import BENCHMARKS, PAPER_COLUMNS

__all__ = ["comparison_table", "evaluation_table", "find_evaluations", "paper_table", "score"]


def score(record: EvaluationRecord) -> dict[str, Estimate]:
    """Estimates with 95 % intervals of an evaluation.

    Those of `intervals.summarize`; of sampled ones also `pass@k` and `majority@k`, of all the k
    completions there are. An AlpacaEval verdict is `win_rate` and `length_controlled_winrate`
    (shares; 1.96 standard errors around).
    """
    rows = record.rows
    found = summarize(rows)
    k = record.spec["decoding"]["num_samples"]
    if k > 1 and record.finished and "accuracy" in found:
        found[f"pass@{k}"] = pass_at_k(rows, k)
        votes = record.table("majority") if record.has_table("majority") else []
        if votes:
            right = sum(bool(vote["correct"]) for vote in votes)
            found[f"majority@{k}"] = proportion(right, len(votes))
    judged = read_judgement(record.path)
    if judged is not None:
        n = int(judged["n_total"])
        for name, error in (
            ("length_controlled_winrate", "lc_standard_error"),
            ("win_rate", "standard_error"),
        ):
            value, half = judged[name] / 100, 1.96 * judged[error] / 100
            found[name] = Estimate(value, value - half, value + half, n, n)
    return found


def evaluation_table(records: Iterable[EvaluationRecord]) -> Table:
    """A row per evaluation: what was evaluated and how, n, and every score with its interval."""
    rows, stand_ins, trained_on = [], {}, []
    for record in records:
        spec, scores = record.spec, score(record)
        decoding, asked = spec["decoding"], spec["benchmark"]
        k = decoding["num_samples"]
        if asked["_stands_in_for"]:
            stand_ins[asked["_title"]] = asked["_stands_in_for"]
        seen = sum(bool(row.get("trained_on")) for row in record.rows)
        if seen:
            trained_on.append(f"{record.id}: {seen}")
        rows.append(
            [
                asked["_title"],
                spec["policy"]["_name"],
                str(asked["n"]) + ("" if record.finished else " (unfinished)"),
                _decoding_text(decoding),
                _headline(scores),
                *(_text(scores.get(f"{name}@{k}"), 2) for name in ("pass", "majority")),
                _text(scores.get("self_certainty"), 2),
                _text(scores.get("tokens"), 1),
                _text(scores.get("clipped"), 2),
            ]
        )
    caption = "95 % intervals: Wilson for one completion an item, else bootstrap over items."
    if stand_ins:
        pairs = ", ".join(f"{ours} for {theirs}" for ours, theirs in stand_ins.items())
        caption += f" Stand-ins, no results of the benchmarks they stand in for: {pairs}."
    if trained_on:
        caption += f" Items among the training problems: {', '.join(trained_on)}."
    header = ["benchmark", "policy", "n", "decoding", "score", "pass@k", "majority@k"]
    return Table([*header, "self-certainty (nats)", "tokens", "cut off"], rows, caption)


def paper_table(records: Iterable[EvaluationRecord]) -> Table:
    """The columns of the paper's Table 1: a row per policy, of greedy evaluations.

    A column that no policy was evaluated on is that of its stand-in, under the stand-in's name;
    where there is neither, its cells say "not tested here".
    """
    found: dict[str, dict[str, str]] = {}
    for record in records:
        spec = record.spec
        if record.finished and not spec["decoding"]["temperature"]:
            cells = found.setdefault(spec["policy"]["_name"], {})
            text = f"{_headline(score(record))} (n={spec['benchmark']['n']})"
            cells[spec["benchmark"]["name"]] = text
    columns = []
    for column in PAPER_COLUMNS:
        (real,) = [b for b in BENCHMARKS.values() if b.column == column]
        stand_ins = [b for b in BENCHMARKS.values() if b.stands_in_for == real.title]
        tested = [b for b in (real, *stand_ins) if any(b.name in row for row in found.values())]
        columns.append(tested[0] if tested else real)
    rows = [
        [name, *(cells.get(column.name, "not tested here") for column in columns)]
        for name, cells in found.items()
    ]
    used = [c for c in columns if c.stands_in_for]
    caption = "Score [95 % interval] (items), greedy."
    if used:
        pairs = ", ".join(f"{c.title} for {c.stands_in_for}" for c in used)
        caption += f" Stand-ins, no results of the benchmarks they stand in for: {pairs}."
    return Table(["policy", *(column.title for column in columns)], rows, caption)


def comparison_table(
    before: Sequence[EvaluationRecord], after: Sequence[EvaluationRecord]
) -> Table:
    """Two policies on the same items: a row per benchmark and way of decoding that both have.

    The difference of scores has a bootstrap interval over items; McNemar's exact test compares
    single completions.

    Raises:
        InputError: they have no evaluation of the same items in common.
    """
    others = {_same_question(record): record for record in after if record.finished}
    pairs = [
        (record, others[_same_question(record)])
        for record in before
        if record.finished and _same_question(record) in others
    ]
    if not pairs:
        raise InputError(
            f"nothing to compare: {_names(before)} and {_names(after)} have no finished "
            "evaluation of the same benchmark with the same n, seed and decoding in common"
        )
    rows = []
    for ours, theirs in pairs:
        asked, decoding = ours.spec["benchmark"], ours.spec["decoding"]
        cells = [asked["_title"], asked["n"], _decoding_text(decoding)]
        before_rows, after_rows = ours.rows, theirs.rows
        if any(row["correct"] is None for row in [*before_rows, *after_rows]):
            rows.append([*cells, *(_headline(score(r)) for r in (ours, theirs)), "-", "-", "-"])
            continue
        change = difference_over_problems(before_rows, after_rows, "correct")
        cells += [_headline(score(record)) for record in (ours, theirs)]
        cells.append(f"{change.value:+.2f} [{change.low:+.2f}, {change.high:+.2f}]")
        if decoding["num_samples"] == 1:
            test = mcnemar(before_rows, after_rows)
            cells += [f"{test['won']} / {test['lost']}", f"{test['p']:.2g}"]
        else:
            cells += ["-", "-"]
        rows.append(cells)
    names = [pairs[0][i].spec["policy"]["_name"] for i in (0, 1)]
    header = ["benchmark", "n", "decoding", *names, "difference", "won / lost", "McNemar p"]
    caption = (
        "Difference: second minus first, paired bootstrap over items, 95 %. Won / lost: items "
        "that only the second / only the first got right."
    )
    return Table(header, rows, caption)


def find_evaluations(store: RunStore, name: str) -> list[EvaluationRecord]:
    """The evaluations of a policy, by the name it has in tables or its run's id, or one by id.

    Raises:
        InputError: there are none.
    """
    records = list(store.evaluations())
    found = [r for r in records if r.id == name or str(r.path) == name.rstrip("/")]
    found = found or [r for r in records if _policy_name(r.spec["policy"], name)]
    if not found:
        known = ", ".join(dict.fromkeys(r.spec["policy"]["_name"] for r in records)) or "none"
        raise InputError(
            f"no evaluation of {name!r} in {store.root}; it holds evaluations of: {known}. Make "
            "one with `intuitor evaluate`"
        )
    return found


def _policy_name(policy: Mapping[str, Any], name: str) -> bool:
    return name in (policy["_name"], policy.get("run"))


def _same_question(record: EvaluationRecord) -> tuple[Any, ...]:
    spec = record.spec
    decoding = {key: value for key, value in spec["decoding"].items() if key[0] != "_"}
    return spec["benchmark"]["name"], spec["benchmark"]["items"], tuple(sorted(decoding.items()))


def _names(records: Sequence[EvaluationRecord]) -> str:
    return ", ".join(dict.fromkeys(record.spec["policy"]["_name"] for record in records))


def _decoding_text(decoding: Mapping[str, Any]) -> str:
    k, temperature = decoding["num_samples"], decoding["temperature"]
    way = f"{k} x at {temperature:g}" if temperature else "greedy"
    return f"{way}, <= {decoding['max_new_tokens']}"


def _headline(scores: Mapping[str, Estimate]) -> str:
    for name in ("length_controlled_winrate", "accuracy"):
        if name in scores:
            return scores[name].text()
    return "not judged" if scores else "-"


def _text(estimate: Estimate | None, digits: int) -> str:
    return "-" if estimate is None else estimate.text(digits)
