"""A task of one's own: a recipe that fits the card, and whether to keep what it trained."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..grading import plurality
from ..paper.verdicts import gain_verdict
from ..recipe import InputError, Recipe
from ..report import Estimate, Table, difference_over_problems, mean_over_problems, summarize
from ..store import EvaluationRecord

Rows = list[dict[str, Any]]

_SHOWN = (
    *("model", "quantization", "learning_rate", "beta", "max_steps", "num_generations"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "rollout_batch_size"),
    *("max_prompt_length", "max_completion_length", "temperature", "gradient_checkpointing"),
)
_MEASURES = {
    "correct": "right answers (share)",
    "agreement": "agreement: samples with the most frequent answer (share)",
    "self_certainty": "self-certainty (nats)",
    "tokens": "completion length (tokens)",
    "clipped": "cut off (share)",
    "repetition": "repeated 4-grams of words (share)",
}
_HARM = {"repetition": 0.1, "clipped": 0.1}  # rises that speak against a policy


def fit_recipe(recipe: Recipe, gpu_gb: float | None = None) -> tuple[Recipe, Table]:
    """The nearest recipe that fits a GPU of `gpu_gb` GiB, and its settings with their reasons.

    None stands for this machine: its GPU, or its memory.

    Raises:
        InputError: no nearby setting fits.
    """
    from ..store.processes import join
    from ..training.memory import estimate_memory, gib
    from ..training.memory_advice import available_memory, changes, fitting

    device = join().device.type if gpu_gb is None else "cuda"
    budget = available_memory(device) if gpu_gb is None else int(gpu_gb * 2**30)
    found = fitting(recipe, budget, device=device)
    if not found:
        needed = estimate_memory(recipe, device=device).total
        raise InputError(
            f"{recipe.model} needs {gib(needed)} and {gib(budget)} are there, and no batch, length "
            "or smaller model that is known makes it fit: name a smaller model"
        )
    fitted = found[0]
    peak, changed = estimate_memory(fitted, device=device).total, changes(recipe, fitted)
    rows = []
    for key in dict.fromkeys([*_SHOWN, *changed]):
        reason = Recipe.source(key)
        if key in changed:
            reason = f"was {getattr(recipe, key)}; changed so that it fits"
        elif getattr(recipe, key) != getattr(Recipe, key, None):
            reason = f"the profile's or yours; default {getattr(Recipe, key)} ({reason})"
        rows.append([key, getattr(fitted, key), reason])
    caption = f"Estimated peak {gib(peak)} of {gib(budget)} on {device}. Changed: "
    return fitted, Table(["setting", "value", "why"], rows, caption + (", ".join(changed) or "-"))


def judge_task(
    base: EvaluationRecord, trained: EvaluationRecord, control: EvaluationRecord
) -> tuple[Table, str]:
    """Compare a policy with its base and with the random reward's, on prompts of one's own.

    Args:
        base, trained, control: sampled evaluations of the same prompts, several samples of each.

    Returns:
        A table of levels and of differences, paired by prompt, with 95 % intervals; and what they
        advise, beginning with keep, discard or undecided. With answers by the rules of
        docs/protocol.md; without them nothing here can tell right from wrong, and only signs of
        harm are looked for.

    Raises:
        InputError: the evaluations are not of the same prompts.
    """
    sides = [_measured(record.rows) for record in (base, trained, control)]
    prompts = [{(row["id"], row["sample"]) for row in rows} for rows in sides]
    if not prompts[0] == prompts[1] == prompts[2]:
        raise InputError(
            "the three evaluations are not of the same prompts and samples: make them with the "
            "same benchmark, n, seed and num_samples"
        )
    lines, levels, gaps = [], {}, {}
    for column, title in _MEASURES.items():
        if all(row.get(column) is None for rows in sides for row in rows):
            continue
        levels[column] = [_level(rows, column) for rows in sides]
        gaps[column] = [difference_over_problems(sides[i], sides[1], column) for i in (0, 2)]
        lines.append([title, *(e.text() for e in [*levels[column], *gaps[column]])])
    n, samples = len({id for id, _ in prompts[0]}), len(prompts[0])
    header = ["measure", "base", "trained", "random reward", "trained - base", "trained - random"]
    caption = f"{n} prompts, {samples // n} samples of each; 95 % intervals over prompts, paired."
    labelled = "correct" in levels
    advice = _by_answers if labelled else _without_answers
    return Table(header, lines, caption), advice(levels, gaps)


Levels = Mapping[str, Sequence[Estimate]]


def _by_answers(levels: Levels, gaps: Levels) -> str:
    base, trained, coin = levels["correct"]
    verdict = gain_verdict(base, trained, coin, gaps["correct"])
    over = f"{gaps['correct'][0].text()} over the base, {gaps['correct'][1].text()} over random"
    return {
        "gain": f"keep: a gain in right answers, {over}",
        "loss": f"discard: a loss of right answers, {over}",
        "no gain": f"discard: no gain worth the name in right answers, {over}",
        "withheld": f"undecided: the base is at {base.text()}, too near 0 or 1 to show a gain",
    }.get(verdict, f"undecided: {over}; more held-out prompts, samples or seeds would narrow it")


def _without_answers(levels: Levels, gaps: Levels) -> str:
    harm = [
        f"{_MEASURES[column]} rose by {gaps[column][0].text()}"
        for column, most in _HARM.items()
        if column in gaps and gaps[column][0].low > most
    ]
    before, after = (side.value for side in levels["tokens"][:2])
    if after < before / 4:
        harm.append(f"completions shrank from {before:.1f} to {after:.1f} tokens")
    if harm:
        return f"discard: {'; '.join(harm)}"
    surer = gaps["self_certainty"][0].text() if "self_certainty" in gaps else "unknown"
    return (
        f"undecided: no sign of harm, self-certainty {surer} nats over the base, but no answers to "
        "tell whether it is right more often. Read samples blind before you keep it"
    )


def _measured(rows: Rows) -> Rows:
    """Rows with what an evaluation does not have: agreement within a prompt, repetition."""
    from ..training.monitor import repetition

    groups: dict[Any, Rows] = {}
    for row in rows:
        groups.setdefault(row["id"], []).append(row)
    measured = []
    for group in groups.values():
        votes = plurality([row["answer"] for row in group])
        answered = any(row["answer"] is not None for row in group)
        agreement = statistics.mean(votes) if answered and len(group) > 1 else None
        for row in group:
            words = [hash(word) for word in row["completion"].split()]
            measured.append({**row, "agreement": agreement, "repetition": repetition(words)})
    return measured


def _level(rows: Rows, column: str) -> Estimate:
    if column == "correct":
        return summarize(rows)["accuracy"]
    known = [row for row in rows if row.get(column) is not None]
    return mean_over_problems([row["id"] for row in known], [float(row[column]) for row in known])
