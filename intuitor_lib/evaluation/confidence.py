"""How confident policies are of completions, their own and each other's, token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..certainty.completions import completion_log_probs, token_entropy, token_self_certainty
from ..grading.answers import clusters
from ..report.progress import track
from ..rollouts.generation import generate
from .benchmarks.benchmarks import Benchmark, load_items
from .evaluation import encode_items
from .subjects import Subject

__all__ = ["measure_confidence"]


def measure_confidence(
    generators: Mapping[str, Subject],
    graders: Mapping[str, Sequence[str]],
    benchmark: Benchmark,
    *,
    n: int | None,
    num_samples: int,
    temperature: float,
    max_new_tokens: int,
    seed: int = 0,
    shown: int = 2,
) -> dict[str, Any]:
    """Sampled completions of some policies, scored by some policies.

    Args:
        generators: policies by label; each generates completions.
        graders: for each generator's label, those of the policies that score its completions.
        benchmark: whose items are asked; its answers must be such as can be compared.
        n: how many items.
        num_samples: completions of each item.
        temperature: of sampling; scores are those at temperature 1.
        max_new_tokens: limit of a completion.
        seed: of the sampling.
        shown: of each generator, how many items to keep token by token: those with a right and a
            wrong completion, the most certain of each.

    Returns:
        `rows`: by "generator → grader", a row per completion with `id`, `sample`, `correct`,
        `cluster`, `tokens`, and the means over its tokens, in nats, of `self_certainty`,
        `entropy` and `log_prob`. `tokens`: by the same, examples with `prompt`, `correct` and for
        each token its `text`, `self_certainty` and `entropy`.
    """
    items = load_items(benchmark, n, seed=seed)
    work = [(item, sample) for item in items for sample in range(num_samples)]
    found: dict[str, Any] = {"rows": {}, "tokens": {}}
    loaded = {label: subject.load() for label, subject in generators.items()}
    for label, policy in loaded.items():
        asked = [item for item, _ in work]
        prompts = encode_items(policy, benchmark, asked, benchmark.system_prompt)
        made = generate(
            policy,
            prompts,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            batch_size=64,
            label=f"{label} answers",
        )
        ids = [completion.ids for completion in made]
        texts = policy.tokenizer.batch_decode(ids, skip_special_tokens=True)
        verdicts = benchmark.grader.grade(asked, texts)
        answers = [verdict.answer for verdict in verdicts]
        groups = [answers[i : i + num_samples] for i in range(0, len(work), num_samples)]
        cluster = [c for group in groups for c in clusters(group)]
        names = list(graders[label])
        for name in track(names, total=len(names), label=f"{label}'s answers are scored"):
            grader = loaded[name].model
            arguments = (grader, prompts, ids)
            certainty, entropies = token_self_certainty(*arguments), token_entropy(*arguments)
            log_probs = completion_log_probs(*arguments)
            rows = [
                {
                    "id": item.id,
                    "sample": sample,
                    "correct": verdict.correct,
                    "cluster": group,
                    "tokens": len(tokens),
                    "self_certainty": _mean(c),
                    "entropy": _mean(e),
                    "log_prob": _mean(p),
                }
                for (item, sample), verdict, group, tokens, c, e, p in zip(
                    *(work, verdicts, cluster, ids, certainty, entropies, log_probs), strict=True
                )
            ]
            found["rows"][f"{label} → {name}"] = rows
            decode = policy.tokenizer.decode
            found["tokens"][f"{label} → {name}"] = [
                {
                    "prompt": work[i][0].question,
                    "correct": bool(rows[i]["correct"]),
                    "text": [decode([token]) for token in ids[i]],
                    "self_certainty": [round(x, 3) for x in certainty[i].tolist()],
                    "entropy": [round(x, 3) for x in entropies[i].tolist()],
                }
                for i in _examples(rows, shown)
            ]
    return found


def _mean(values: torch.Tensor) -> float | None:
    return round(values.mean().item(), 5) if len(values) else None


def _examples(rows: Sequence[Mapping[str, Any]], shown: int) -> list[int]:
    """Indices of the most certain right and wrong completion of some items that have both."""
    best: dict[Any, dict[bool, int]] = {}
    for i, row in enumerate(rows):
        if row["self_certainty"] is None:
            continue
        sides = best.setdefault(row["id"], {})
        kept = sides.get(bool(row["correct"]))
        if kept is None or row["self_certainty"] > rows[kept]["self_certainty"]:
            sides[bool(row["correct"])] = i
    both = [sides for sides in best.values() if len(sides) == 2]
    chosen = (both or list(best.values()))[:shown]
    return [i for sides in chosen for _, i in sorted(sides.items(), reverse=True)]
