"""Early signs that a training collapses, read from its metrics.

Self-certainty can be raised by repetition, by very short or by identical completions, and
trainings on it are known to collapse, above all without a KL penalty. Each rule compares the last
few steps with the first few of the same run, so none depends on a model or a task. The rules are a
pure function of the metrics, so they judge stored runs as they judge running ones.

A policy that has learned to give the right answer at once is confident, terse and repetitive, too.
Where a recorded accuracy has risen beyond chance, the rules on these properties do not apply.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

WINDOW = 3
"""Steps over which both levels are averaged."""

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Alarm:
    """A rule that a run broke at a step, with the numbers."""

    name: str
    step: int
    text: str

    def __str__(self) -> str:
        return f"step {self.step}, {self.name}: {self.text}"


@dataclass(frozen=True)
class Rule:
    """`broken(now, start)` compares the means of a metric over the last and the first steps.

    `of_skill_too`: a policy that answers well may break it, too.
    """

    name: str
    column: str
    broken: Callable[[float, float], bool]
    meaning: str
    of_skill_too: bool = False


RULES = (
    Rule(
        "repetition",
        "completions/repetition",
        lambda now, start: now >= 0.4 and now >= start + 0.2,
        "share of repeated 4-grams in a completion",
    ),
    Rule(
        "short completions",
        "completions/mean_length",
        lambda now, start: now <= 0.15 * start,
        "tokens in a completion",
        of_skill_too=True,
    ),
    Rule(
        "same completions",
        "completions/distinct",
        lambda now, start: now <= 0.1 and start >= 0.3,
        "share of a group's completions that are not another's copy",
        of_skill_too=True,
    ),
    Rule(
        "entropy",
        "entropy",
        lambda now, start: now <= 0.2 * start,
        "entropy of a token (nats)",
        of_skill_too=True,
    ),
    Rule(
        "kl",
        "kl",
        lambda now, start: now >= 1.0,
        "divergence from the policy it started from, a token (nats)",
    ),
    Rule(
        "sampler",
        "sampling/sampling_logp_difference/mean",
        lambda now, start: now >= 0.1,
        "log-probability of a token in sampling less that in the update (nats): one of them has "
        "other weights",
    ),
)
"""The rules on single metrics; LOG.md lists the runs behind the thresholds."""

_SCALINGS = 20  # halvings from 2**16, where the scale of an fp16 loss begins, to below 1
_SIGNIFICANT = 3.1  # standard errors, one-sided p of .001: a run is judged many times


def alarms(rows: Rows, *, problems: int) -> list[Alarm]:
    """The rules broken at the last of these rows.

    Args:
        rows: metrics rows of a run, from its first step.
        problems: problems of a step: the sample size of an accuracy in training, since the
            completions of one problem are mostly right or wrong together. Of rows with
            `rewards/accuracy/n` it is that number, the problems with a label. The sample size of
            a held-out accuracy is the `held_out/n` of its row.
    """
    if not rows:
        return []
    step = int(rows[-1]["step"])
    broken = rows[-1].get("not_finite", [])
    found = [Alarm("not finite", step, f"{name} is NaN or infinite") for name in broken]
    recent = rows[-_SCALINGS:]
    if len(recent) == _SCALINGS and all(row.get("update_skipped") for row in recent):
        text = f"the last {_SCALINGS} updates overflowed in fp16 and were left out"
        found.append(Alarm("not finite", step, text))
    held_out = [int(row["held_out/n"]) for row in rows if row.get("held_out/n")]
    judged = [row["rewards/accuracy/n"] for row in rows if "rewards/accuracy/n" in row]
    numbers: dict[str, float] = {"held_out/accuracy": held_out[-1] if held_out else 0}
    numbers["rewards/accuracy/mean"] = fmean(judged) if judged else problems
    numbers["rewards/unit_tests/mean"] = problems
    accuracies = {column: _levels(rows, column, n) for column, n in numbers.items()}
    skilled = any(n and _apart(levels[0], levels[-1], n) for levels, n in accuracies.values())
    for rule in RULES:
        if skilled and rule.of_skill_too:
            continue
        values = [row[rule.column] for row in rows if row.get(rule.column) is not None]
        if len(values) <= WINDOW or rows[-1].get(rule.column) is None:
            continue
        now, start = fmean(values[-WINDOW:]), fmean(values[:WINDOW])
        if rule.broken(now, start):
            text = f"{rule.meaning}: {now:.3g}, at the start {start:.3g}"
            found.append(Alarm(rule.name, step, text))
    for column, (levels, n) in accuracies.items():
        if not n or rows[-1].get(column) is None:
            continue
        best, now = max(levels[:-1]), levels[-1]
        if now <= best / 2 and _apart(now, best, n):
            text = f"{column} fell to {now:.3f} from its best, {best:.3f} ({n} problems each)"
            found.append(Alarm("accuracy", step, text))
    return found


def marked(rows: Rows, *, problems: int) -> list[dict[str, Any]]:
    """The rows of a stored run with `collapse`, the names of the `alarms` at each, recomputed."""
    judged = []
    for i, row in enumerate(rows, 1):
        found = [alarm.name for alarm in alarms(rows[:i], problems=problems)]
        rest = {k: v for k, v in row.items() if k != "collapse"}
        judged.append(rest | ({"collapse": found} if found else {}))
    return judged


def _levels(rows: Rows, column: str, n: float) -> tuple[list[float], int]:
    """Levels of an accuracy over time, and the problems behind each; 0 with fewer than two."""
    values = [row[column] for row in rows if row.get(column) is not None]
    # Held-out accuracies are many steps apart and of many problems: no mean over a window.
    width = 1 if column.startswith("held_out") else WINDOW
    if len(values) <= width or n * width < 1:
        return [], 0
    return [fmean(values[i : i + width]) for i in range(len(values) - width + 1)], int(n * width)


def _apart(low: float, high: float, samples: int) -> bool:
    """Whether the share `high` exceeds `low` beyond chance, each of this many samples."""
    pooled = (low + high) / 2
    error = math.sqrt(2 * pooled * (1 - pooled) / samples)
    return high - low > _SIGNIFICANT * error


def distinct(texts: Sequence[str], group: int) -> float:
    """Share of a group's completions that do not copy another, averaged over groups.

    1 where all completions of a group differ, 0 where all are the same. `texts` are whole groups
    of `group` completions, one after the other.
    """
    groups = [texts[i : i + group] for i in range(0, len(texts), group)]
    return fmean([(len(set(part)) - 1) / (group - 1) for part in groups])


def repetition(tokens: Sequence[int], n: int = 4) -> float:
    """Share of n-grams that repeat an earlier one of the completion (seq-rep-n, arXiv 1908.04319).

    0 for fewer than n tokens.
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
