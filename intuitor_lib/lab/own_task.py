"""A task of one's own: a recipe that fits the card, and whether to keep what it trained."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..evaluation.scoreboard import question
from ..grading import plurality
from ..paper.verdicts import gain_verdict
from ..problems import Problems
from ..recipe import InputError, Recipe
from ..report import (
    Estimate,
    Table,
    by_problem,
    difference_over_problems,
    mean_over_problems,
    summarize,
)
from ..store import EvaluationRecord
from ..training.monitor import repetition

if TYPE_CHECKING:
    from ..training import Preflight

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
_FEW = 20  # prompts with answers; fewer decide nothing
_SAME_TRAINING = {
    *("rollout_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps"),
    "gradient_checkpointing",
}
_HARM = {"repetition": 0.1, "clipped": 0.1}  # rises that speak against a policy


def fit_recipe(recipe: Recipe, gpu_gb: float | None = None) -> tuple[Recipe, Table]:
    """The same training with a batch that fits a GPU of `gpu_gb` GiB, and its settings' reasons.

    None stands for this machine: its GPU, or its memory. What is in use now does not count, so that
    a second call gives the same recipe. Only settings are lowered that leave the training the same.

    Raises:
        InputError: more would have to change; with the settings that would do.
    """
    from ..store.processes import join
    from ..training.memory import estimate_memory, gib
    from ..training.memory_advice import advice, fitting, total_memory

    device = join().device.type if gpu_gb is None else "cuda"
    budget = total_memory(device) if gpu_gb is None else int(gpu_gb * 2**30)
    found = fitting(recipe, budget, device=device)
    changed = found[0].changes(recipe) if found else {}
    if not found or set(changed) - _SAME_TRAINING:
        choices = "; or ".join(advice(recipe, budget, device=device)) or "no known smaller model"
        raise InputError(
            f"{recipe.model} needs {gib(estimate_memory(recipe, device=device).total)} and "
            f"{gib(budget)} are there, whatever its batches. It fits with: {choices}"
        )
    fitted = found[0]
    rows = []
    for key in dict.fromkeys([*_SHOWN, *changed]):
        why = Recipe.source(key)
        if key in changed:
            why = f"was {getattr(recipe, key)}; changed so that it fits"
        elif getattr(recipe, key) != getattr(Recipe, key):
            why = f"the profile's or yours; default {getattr(Recipe, key)} ({why})"
        rows.append([key, getattr(fitted, key), Recipe.meaning(key), why])
    peak = gib(estimate_memory(fitted, device=device).total)
    lowered = ", ".join(changed) or "nothing"
    caption = f"Estimated peak {peak} of {gib(budget)} on {device}. Changed: {lowered}"
    return fitted, Table(["setting", "value", "what it is", "why"], rows, caption)


def check_task(recipe: Recipe, problems: Problems) -> Preflight:
    """The preflight of a recipe; its policy is loaded for it, and leaves the memory again."""
    import gc

    import torch

    from ..policy import load_policy
    from ..training import preflight

    try:
        return preflight(recipe, problems, load_policy(recipe))
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


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
        InputError: the evaluations are not of the same prompts, sampled in the same way.
    """
    records = base, trained, control
    if len({question(record) for record in records}) > 1:
        raise InputError(
            "the three evaluations are not of the same prompts, sampled in the same way: make them "
            "with the same benchmark, n, seed, temperature and num_samples"
        )
    extraction = base.spec["benchmark"].get("extraction", "boxed")
    sides = [_measured(record.rows, extraction) for record in records]
    lines, levels, gaps = [], {}, {}
    for column, title in _MEASURES.items():
        known = [[row for row in rows if row.get(column) is not None] for rows in sides]
        shared = set.intersection(*({row["id"] for row in rows} for rows in known))
        if not shared:
            continue
        known = [[row for row in rows if row["id"] in shared] for rows in known]
        levels[column] = [_level(rows, column) for rows in known]
        gaps[column] = [difference_over_problems(known[i], known[1], column) for i in (0, 2)]
        numbers = [e.text() for e in [*levels[column], *gaps[column]]]
        lines.append([title, len(shared), *numbers])
    header = ["measure", "prompts", "base", "trained", "random reward"]
    header += ["trained - base", "trained - random"]
    samples = base.spec["decoding"]["num_samples"]
    caption = f"{samples} samples of each prompt; 95 % intervals over prompts, paired."
    advise = _by_answers if "correct" in levels else _without_answers
    return Table(header, lines, caption), advise(levels, gaps)


Levels = Mapping[str, Sequence[Estimate]]


def _by_answers(levels: Levels, gaps: Levels) -> str:
    base, trained, coin = levels["correct"]
    to_base, to_coin = gaps["correct"]
    over = f"{to_base.text()} over the base, {to_coin.text()} over random, {to_base.n} prompts"
    if to_base.n < _FEW:
        return f"undecided: {over}; at least {_FEW} with answers are needed"
    if to_base.high < 0:
        return f"discard: a loss of right answers, {over}"
    verdict = gain_verdict(base, trained, coin, [to_base, to_coin])
    return {
        "gain": f"keep: a gain in right answers, {over}",
        "no gain": f"discard: no gain worth the name in right answers, {over}",
        "withheld": f"undecided: right answers are too near 0 or 1 to show a difference, {over}",
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


def _measured(rows: Rows, extraction: str) -> Rows:
    """Rows with what an evaluation does not have: agreement within a prompt, repetition."""
    measured, stated = [], any(row["answer"] is not None for row in rows)
    for group in by_problem(rows).values():
        votes = plurality([row["answer"] for row in group], extraction)
        agreement = statistics.mean(votes) if stated and len(group) > 1 else None
        for row in group:
            words = [hash(word) for word in row["completion"].split()]
            measured.append({**row, "agreement": agreement, "repetition": repetition(words)})
    return measured


def _level(rows: Rows, column: str) -> Estimate:
    if column == "correct":
        return summarize(rows)["accuracy"]
    values = [float(row[column]) for row in rows]
    is_share = column in ("agreement", "repetition", "clipped")
    return mean_over_problems([row["id"] for row in rows], values, difference=not is_share)
