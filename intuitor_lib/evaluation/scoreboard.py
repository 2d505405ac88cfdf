"""Tables of stored evaluations: scores with intervals, and policies compared on the same items."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..recipe import InputError
from ..report import Estimate, Table
from ..report.intervals import difference_over_problems, mcnemar, pass_at_k, proportion, summarize
from ..store import EvaluationRecord, RunStore
from .benchmarks.alpaca import read_judgement


def score(record: EvaluationRecord) -> dict[str, Estimate]:
    """Estimate the scores of an evaluation, with 95 % intervals.

    The estimates of `intervals.summarize`; with k samples per item also `pass@k` and `majority@k`.
    An AlpacaEval judgement adds `win_rate` and `length_controlled_winrate` (shares, with 1.96
    standard errors).
    """
    rows = record.rows
    found = summarize(rows)
    k = record.spec["decoding"]["num_samples"]
    if k > 1 and record.finished and (ids := _judged(record)):
        found[f"pass@{k}"] = pass_at_k([row for row in rows if row["id"] in ids], k)
        if votes := [vote for vote in record.votes if vote["id"] in ids]:
            right = sum(bool(vote["correct"]) for vote in votes)
            found[f"majority@{k}"] = proportion(right, len(votes))
    judged = read_judgement(record.path)
    if judged is not None:
        n = int(judged["n_total"])
        errors = {"length_controlled_winrate": "lc_standard_error", "win_rate": "standard_error"}
        for name, error in errors.items():
            value, half = judged[name] / 100, 1.96 * judged[error] / 100
            found[name] = Estimate(value, value - half, value + half, n, n)
    return found


def evaluation_table(records: Iterable[EvaluationRecord]) -> Table:
    """Tabulate evaluations: benchmark, policy, n, decoding, and scores with intervals."""
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
        row = [
            asked["_title"],
            spec["policy"]["_name"],
            str(asked["n"]) + ("" if record.finished else " (unfinished)"),
            _decoding_text(record),
            _headline(scores),
            *(_text(scores.get(f"{name}@{k}"), 2) for name in ("pass", "majority")),
            _text(scores.get("self_certainty"), 2),
            _text(scores.get("tokens"), 1),
            _text(scores.get("clipped"), 2),
        ]
        rows.append(row)
    caption = "95 % intervals: Wilson for one completion an item, else bootstrap over items."
    if stand_ins:
        pairs = ", ".join(f"{ours} for {theirs}" for ours, theirs in stand_ins.items())
        caption += f" Stand-ins, no results of the benchmarks they stand in for: {pairs}."
    if trained_on:
        caption += f" Items among the training problems: {', '.join(trained_on)}."
    header = ["benchmark", "policy", "n", "decoding", "score", "pass@k", "majority@k"]
    return Table([*header, "self-certainty (nats)", "tokens", "cut off"], rows, caption)


def comparison_table(
    before: Sequence[EvaluationRecord], after: Sequence[EvaluationRecord]
) -> Table:
    """Compare two policies on the same items: a row per benchmark and decoding that both have.

    The difference of scores has a bootstrap interval over items; McNemar's exact test compares
    single completions.

    Raises:
        InputError: the two have no evaluation of the same items in common, or one side has several.
    """
    first, second = _by_question(before), _by_question(after)
    pairs = [(record, second[asked]) for asked, record in first.items() if asked in second]
    if not pairs:
        raise InputError(
            f"nothing to compare: {_names(before)} and {_names(after)} have no finished "
            "evaluation of the same benchmark with the same n, seed and decoding in common"
        )
    names = [record.spec["policy"]["_name"] for record in pairs[0]]
    rows = [_compared(*pair) for pair in pairs]
    header = ["benchmark", "n", "decoding", *names, "difference", "won / lost", "McNemar p"]
    caption = (
        "Difference: second minus first, paired bootstrap over items, 95 %. Won / lost: items "
        "that only the second / only the first got right."
    )
    return Table(header, rows, caption)


def _by_question(records: Sequence[EvaluationRecord]) -> dict[tuple[Any, ...], EvaluationRecord]:
    found: dict[tuple[Any, ...], EvaluationRecord] = {}
    for record in records:
        if record.finished and (other := found.setdefault(question(record), record)) is not record:
            raise InputError(
                f"{other.id} and {record.id} are both {_names([other, record])} on the same items: "
                "compare them by their ids"
            )
    return found


def _compared(before: EvaluationRecord, after: EvaluationRecord) -> list[Any]:
    asked, decoding = before.spec["benchmark"], before.spec["decoding"]
    scores = [_headline(score(record)) for record in (before, after)]
    difference, won, p = "-", "-", "-"
    shared = _judged(before) & _judged(after)
    rows = [row for row in before.rows if row["id"] in shared]
    others = [row for row in after.rows if row["id"] in shared]
    if shared:
        change = difference_over_problems(rows, others, "correct")
        difference = change.text(sign="+")
        if decoding["num_samples"] == 1:
            test = mcnemar(rows, others)
            won, p = f"{test['won']} / {test['lost']}", f"{test['p']:.2g}"
    return [asked["_title"], asked["n"], _decoding_text(before), *scores, difference, won, p]


def _judged(record: EvaluationRecord) -> set[Any]:
    """The items of which every completion is right or wrong; those without an answer are not."""
    unknown = {row["id"] for row in record.rows if row["correct"] is None}
    return {row["id"] for row in record.rows} - unknown


def find_evaluations(store: RunStore, name: str) -> list[EvaluationRecord]:
    """Find one evaluation by its id or path, or those of a policy by its name or run id."""
    records = list(store.evaluations())
    found = [r for r in records if r.id == name or str(r.path) == name.rstrip("/")]
    if not found:
        policies = [(record, record.spec["policy"]) for record in records]
        # A run has snapshots besides its result; those are `run@step`.
        found = [
            record
            for record, policy in policies
            if name == policy["_name"] or (name == policy.get("run") and "step" not in policy)
        ]
    if not found:
        raise InputError(
            f"no evaluation of {name!r} in {store.root}; it holds evaluations of: "
            f"{_names(records) or 'none'}. Make one with `intuitor evaluate`"
        )
    return found


def question(record: EvaluationRecord) -> tuple[Any, ...]:
    """What an evaluation asked: benchmark, items and decoding, without the policy."""
    spec = record.spec
    decoding = {key: value for key, value in spec["decoding"].items() if key[0] != "_"}
    keys = ("name", "items", "extraction", "compared", "chat", "stop", "grader")
    asked = (str(spec["benchmark"].get(key)) for key in keys)
    return *asked, tuple(sorted(decoding.items()))


def _names(records: Sequence[EvaluationRecord]) -> str:
    return ", ".join(dict.fromkeys(record.spec["policy"]["_name"] for record in records))


def _decoding_text(record: EvaluationRecord) -> str:
    decoding, extraction = record.spec["decoding"], record.spec["benchmark"].get("extraction")
    k, temperature = decoding["num_samples"], decoding["temperature"]
    way = f"{k} x at {temperature:g}" if temperature else "greedy"
    return f"{way}, <= {decoding['max_new_tokens']}" + (f", {extraction}" if extraction else "")


def _headline(scores: Mapping[str, Estimate]) -> str:
    for name in ("length_controlled_winrate", "accuracy"):
        if name in scores:
            return scores[name].text()
    return "not judged" if scores else "-"


def _text(estimate: Estimate | None, digits: int) -> str:
    return "-" if estimate is None else estimate.text(digits)
