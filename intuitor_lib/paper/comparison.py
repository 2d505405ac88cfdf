"""What the notebooks measured, as tables and records, beside the paper's tables and claims."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..recipe import PROFILES
from ..report import Table, save_record
from ..report.records import read_record
from ..store import RunStore, data_folder
from .numbers import CLAIMS, TABLES
from .plan import PAPER_MODELS, SUITES
from .trials import Trial
from .verdicts import (
    INTERVALS,
    QUESTIONS,
    VERDICTS,
    answers_table,
    caption,
    differences_of,
    estimate,
    judged,
    policy_name,
    question_text,
    restored,
    step_of,
)

NO_GPU = "not run: it needs the paper's model on the paper's benchmark"

Trials = Mapping[str, Sequence[Trial]]


def accuracy_table(
    trials: Trials, profile: str, tests: Sequence[str], *, step: int | None = None
) -> Table:
    """Tabulate accuracies with 95 % intervals: a row per policy, and the baselines below.

    Baselines are scores without skill (echo, the most frequent answer) and what the base reaches
    by sampling alone: at T = 0.3, and by the vote of its samples. `step` selects snapshots.
    """
    suite = SUITES[profile]
    rows: list[list[str]] = [
        [
            label,
            str(sum(t.training is not None for t in several) or "-"),
            *(_cell(several, test, step) for test in tests),
        ]
        for label, several in trials.items()
    ]
    rows += _baseline_rows(trials.get("base", []), tests)
    first = next(several[0] for several in trials.values() if several[0].training)
    at = f"step {step} of {first.recipe.max_steps}" if step else f"{first.recipe.max_steps} steps"
    caption = (
        f"Profile {profile}, {policy_name(first)}, {at} of {first.recipe.completions_per_step} "
        f"completions. {INTERVALS}. "
        "In parentheses: the share of completions that state no answer."
    )
    header = ["policy", "seeds", *(_title(suite[test], first) for test in tests)]
    return Table(header, rows, caption)


def _baseline_rows(base: Sequence[Trial], tests: Sequence[str]) -> list[list[str]]:
    if not base:
        return []
    rows: dict[str, list[str]] = {}
    for name in ("echo", "most frequent answer"):
        found = [base[0].baselines.get(test, {}).get(name) for test in tests]
        rows[name] = [restored(values).text() if values else "-" for values in found]
    if ("cool", None) in base[0].tables:
        rows["base at T = 0.3"] = [_cool(base, test) for test in tests]
    several = {t for t, at in base[0].tables if any(row["sample"] for row in base[0].rows(t, at))}
    rows["base, vote of its samples"] = [
        estimate(base, f"{test}:vote").text() if test in several else "-" for test in tests
    ]
    return [[name, "-", *cells] for name, cells in rows.items() if {*cells} != {"-"}]


def _cool(base: Sequence[Trial], test: str) -> str:
    if not test.startswith("in_domain") or (test, None) not in base[0].tables:
        return "-"
    cool = estimate(base, "cool")
    return cool.text() + (f" (n = {cool.n})" if cool.n != estimate(base, test).n else "")


def _title(test: Any, trial: Trial) -> str:
    held = [rows for (name, _), rows in trial.tables.items() if name == test.name]
    return f"{test.heading} (n = {len({row['id'] for row in held[0]})})" if held else test.heading


def _cell(several: Sequence[Trial], test: str, step: int | None) -> str:
    key = (test, step_of(several, step))
    if any(key not in trial.tables for trial in several):
        return "-"
    if not judged(several, test, step):
        return "not judged yet, see docs/evaluation.md"
    rows = [row for trial in several for row in trial.tables[key]]
    silent = sum(row["answer"] is None for row in rows) / len(rows)
    return estimate(several, test, step=step).text() + (f" ({silent:.0%})" if silent else "")


def paper_cells(
    table_id: str,
    trials: Trials,
    profile: str,
    step: int | None = None,
    *,
    found: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
) -> list[Any]:
    """Account for every cell of a table of the paper: ours, where model and benchmark are the same.

    `found` holds values that were measured otherwise, by row and column.

    Raises:
        KeyError: no such table.
    """
    table, model = TABLES[table_id], PAPER_MODELS.get(profile)
    ours: dict[tuple[str, str], Mapping[str, Any]] = dict(found or {})
    for label, several in trials.items() if model else ():
        names = (f"{model} + {label}", label, *([str(model)] if label == "base" else []))
        for row in (name for name in names if name in table.rows):
            for test in SUITES[profile].values():
                if test.column in table.columns and judged(several, test.name, step):
                    at = step_of(several, step)
                    ours[row, str(test.column)] = _score(several, test.name, at)
    return [
        {"row": row, "column": column, "paper": value}
        | ({"ours": ours[row, column]} if (row, column) in ours else {"not tested": NO_GPU})
        for row, column, value in table.cells()
    ]


def paper_table(table_id: str, cells: Sequence[Mapping[str, Any]]) -> Table:
    """Tabulate a table of the paper with our values beside its own, where there are any."""
    table = TABLES[table_id]
    found = {(cell["row"], cell["column"]): cell.get("ours") for cell in cells}
    rows = []
    for label in table.rows:
        shown = []
        for column in table.columns:
            ours, theirs = found.get((label, column)), table.value(label, column)
            text = f"{theirs:.3f}" if theirs < 1 else f"{theirs:.2f}"
            shown.append(f"{text}; ours {restored(ours).text()}" if ours else text)
        rows.append([label, *shown])
    given = sum(ours is not None for ours in found.values())
    return Table(
        ["policy", *table.columns],
        rows,
        f"The paper's {table.title} (one run each; AlpacaEval in percent). Tested here: {given} of "
        f"{len(found)} cells" + ("" if given else f"; {NO_GPU}") + ".",
    )


def _score(several: Sequence[Trial], test: str, step: int | None = None) -> dict[str, Any]:
    """A test of an arm with everything that belongs to the number."""
    return {
        "policy": several[0].label,
        "test": test,
        "step": step,
        **estimate(several, test, step=step).to_dict(),
        "seeds": [trial.seed for trial in several],
        "profile": several[0].profile,
        "model": policy_name(several[0]),
    }


def save(
    notebook: str,
    profile: str,
    *,
    table: Table,
    ids: Sequence[str],
    trials: Trials | None = None,
    answers: Sequence[Mapping[str, Any]] = (),
    not_tested: Mapping[str, str] | None = None,
    step: int | None = None,
    found: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
    more: Mapping[str, Any] | None = None,
    runs: str | Path | None = None,
) -> Path:
    """Record what a notebook measured, with a table to show; every test of `trials` is a score.

    `ids` are the paper's tables and figures that it answers, `not_tested` has reasons for those of
    them that it does not, `step` is that of the snapshots in the paper's table. `found` holds other
    values of cells of the paper's tables, by row and column, and `more` other values for programs.
    """
    trials, not_tested = trials or {}, not_tested or {}
    scores = [
        _score(several, test, at)
        for several in trials.values()
        for test, at in several[0].tables
        if judged(several, test, at)
    ]
    entries: dict[str, Any] = {}
    for id in ids:
        entries[id] = (
            {"cells": paper_cells(id, trials, profile, step, found=found)} if id in TABLES else {}
        )
        if id in not_tested:
            entries[id]["not tested"] = not_tested[id]
    values = {**(more or {}), "paper": entries, "scores": scores, "answers": [*answers]}
    return save_record(notebook, profile, table=table, values=values, runs=runs)


def load_records(
    profile: str, runs: str | Path | None = None, *, committed: bool = True
) -> dict[str, dict[str, Any]]:
    """A profile's record of every notebook: the run store's, else (`committed`) the project's."""
    folders = [RunStore(runs).root / "records"]
    data = data_folder()
    if committed and data is not None:
        folders.append(data / "records")
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for path in sorted(folder.glob(f"[0-9]*-{profile}.json")):
            found.setdefault(path.stem.removesuffix(f"-{profile}"), read_record(path))
    return dict(sorted(found.items()))


def every_record(runs: str | Path | None = None) -> list[dict[str, Any]]:
    """The records of all profiles, larger ones later; see `answers_of` for those that count."""
    return [record for name in PROFILES for record in load_records(name, runs).values()]


def answers_of(
    records: Iterable[Mapping[str, Any]],
    counts: Callable[[Mapping[str, Any]], bool] = lambda answer: True,
) -> list[Mapping[str, Any]]:
    """The answers that count, each once, in the order of the questions.

    That of the largest profile is taken, of one profile that with the most seeds.
    """
    every = [a for record in records for a in record["values"].get("answers", ()) if counts(a)]
    sizes = [*PROFILES]
    every.sort(key=lambda a: (sizes.index(a["profile"]), len(a["seeds"])))  # the last one counts
    found = {(answer["question"], answer["decoding"]): answer for answer in every}
    order = {id: i for i, id in enumerate(QUESTIONS)}
    return sorted(found.values(), key=lambda a: order[a["question"]])


def verdicts_table(
    records: Iterable[Mapping[str, Any]], ids: Collection[str] = tuple(QUESTIONS)
) -> Table:
    """Some of `questions_table` in short: a row for each, with its verdicts and differences."""
    found: dict[str, list[str]] = {}
    small = [entry for entry in answers_of(records, is_on_cpu) if entry["question"] in ids]
    for entry in small:
        found.setdefault(question_text(entry), []).append(in_short(entry))
    rows = [[text, "; ".join(cells)] for text, cells in found.items()]
    return Table(["question", "answer"], rows, _caption(small))


def in_short(entry: Mapping[str, Any]) -> str:
    """The verdict of an answer, with the difference that decides it."""
    kind = QUESTIONS[entry["question"]].kind
    gaps, verdict = entry["differences"], entry["verdict"]
    # A share is decided by the last one, a gain by the lower end of the smaller one.
    end = "high" if verdict in ("loss", "no gain") else "low"
    decides = max if verdict == "loss" else min
    against = [*gaps][-1] if kind == "share" else decides(gaps, key=lambda label: gaps[label][end])
    gap = differences_of(entry)[against]
    return f"{entry['decoding']}: **{verdict}**, {gap} to {against}"


def claims_table(records: Iterable[Mapping[str, Any]], *, short: bool = False) -> Table:
    """The paper's claims on its own models and benchmarks, with a verdict where we tested both.

    `short` leaves our numbers out.
    """
    tested: dict[str, list[Mapping[str, Any]]] = {}
    for entry in answers_of(records, _as_in_the_paper):
        if id := QUESTIONS[entry["question"]].claim:
            tested.setdefault(id, []).append(entry)
    rows = []
    for claim in CLAIMS:
        ours, verdict = NO_GPU, "not tested here"
        if claim.id in tested:
            table = answers_table(tested[claim.id])
            ours = "; ".join(f"{row[1]}: {row[2]} ({row[3]})" for row in table.rows)
            verdict = "; ".join(row[-1] for row in table.rows)
        rows.append([claim.text, f"{claim.where}: {claim.found}", ours, verdict])
    known = sum(row[-1] != "not tested here" for row in rows)
    header = ["the paper's claim", "the paper", "ours", "verdict"]
    if short:
        rows, header = [[*row[:2], row[-1]] for row in rows], [*header[:2], header[-1]]
    text = f"Tested on the paper's models and benchmarks: {known} of {len(rows)} claims."
    if tested:
        text += f" {caption([entry for entries in tested.values() for entry in entries])}"
    return Table(header, rows, text)


def questions_table(records: Iterable[Mapping[str, Any]]) -> Table:
    """The same questions at a size that a CPU can answer, with our verdicts."""
    small = answers_of(records, is_on_cpu)
    return answers_table(small, _caption(small))


def others_table(records: Iterable[Mapping[str, Any]]) -> Table | None:
    """The answers of GPU profiles that are no claim of the paper's, sampled ones for example."""
    found = answers_of(
        records,
        lambda a: a["profile"] in PAPER_MODELS and not (_as_in_the_paper(a) and _claimed(a)),
    )
    return answers_table(found) if found else None


def _claimed(answer: Mapping[str, Any]) -> bool:
    return QUESTIONS[answer["question"]].claim is not None


def _as_in_the_paper(answer: Mapping[str, Any]) -> bool:
    """Whether model and benchmark are the paper's."""
    test = SUITES[answer["profile"]].get(answer["test"].partition(":")[0])
    return answer["profile"] in PAPER_MODELS and test is not None and test.column is not None


def is_on_cpu(answer: Mapping[str, Any]) -> bool:
    """Whether it is an answer at the size of a CPU; two steps (`smoke`) are none."""
    return answer["profile"] not in (*PAPER_MODELS, "smoke")


def _caption(answers: Sequence[Mapping[str, Any]]) -> str:
    count = Counter(entry["verdict"] for entry in answers)
    said = "; ".join(f"{name}: {count[name]}" for name in VERDICTS if count[name])
    return f"{said}. {caption(answers)}" if answers else "No answer is on record yet."
