"""Token-level confidence of policies in their own and each other's completions."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..certainty import completion_log_probs, token_entropy, token_self_certainty
from ..grading import clusters
from ..policy import Policy
from ..report import track
from ..rollouts import generate
from .benchmarks.benchmarks import Benchmark, load_items
from .benchmarks.graders import Item
from .evaluation import encode_items
from .subjects import Subject


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
    """Sample completions from some policies and score them under some policies.

    Args:
        generators: policies by label; each generates completions.
        graders: for each generator's label, the labels of the policies that score its completions.
        benchmark: source of the items; its grader must be able to compare answers.
        n: number of items; None for all.
        num_samples: completions per item.
        temperature: sampling temperature; scores are always at temperature 1.
        max_new_tokens: token limit of a completion.
        seed: seed of the items and of sampling.
        shown: items per generator to keep token by token: those with a right and a wrong
            completion, the most certain of each.

    Returns:
        `rows`: by "generator → grader", a row per completion with `id`, `sample`, `correct`,
        `cluster`, `tokens`, and the means over its tokens, in nats, of `self_certainty`,
        `entropy` and `log_prob`. `tokens`: by the same key, examples with `prompt`, `correct` and
        for each token its `text`, `self_certainty` and `entropy`.
    """
    items = load_items(benchmark, n, seed=seed)
    found: dict[str, Any] = {"rows": {}, "tokens": {}}
    loaded = {label: subject.load() for label, subject in generators.items()}
    for label, policy in loaded.items():
        asked = [item for item in items for _ in range(num_samples)]
        prompts = encode_items(policy, benchmark, asked, benchmark.system_prompt)
        completions = generate(
            policy,
            prompts,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            batch_size=64,
            label=f"{label} answers",
        )
        ids = [completion.ids for completion in completions]
        graded = _graded(policy, benchmark, asked, ids, num_samples)
        names = list(graders[label])
        for name in track(names, total=len(names), label=f"{label}'s answers are scored"):
            arguments = (loaded[name].model, prompts, ids)
            scores = {
                "self_certainty": token_self_certainty(*arguments),
                "entropy": token_entropy(*arguments),
                "log_prob": completion_log_probs(*arguments),
            }
            rows = [
                row | {column: _mean(values[i]) for column, values in scores.items()}
                for i, row in enumerate(graded)
            ]
            found["rows"][f"{label} → {name}"] = rows
            found["tokens"][f"{label} → {name}"] = [
                {
                    "prompt": asked[i].question,
                    "correct": bool(rows[i]["correct"]),
                    "text": [policy.tokenizer.decode([token]) for token in ids[i]],
                    "self_certainty": [round(x, 3) for x in scores["self_certainty"][i].tolist()],
                    "entropy": [round(x, 3) for x in scores["entropy"][i].tolist()],
                }
                for i in _examples(rows, shown)
            ]
    return found


def _graded(
    policy: Policy,
    benchmark: Benchmark,
    asked: Sequence[Item],
    ids: Sequence[list[int]],
    num_samples: int,
) -> list[dict[str, Any]]:
    """A row per completion; equal answers to an item share a `cluster`."""
    texts = policy.tokenizer.batch_decode(ids, skip_special_tokens=True)
    verdicts = benchmark.grader.grade(asked, texts)
    answers = [verdict.answer for verdict in verdicts]
    starts = range(0, len(answers), num_samples)
    of_item = [cluster for i in starts for cluster in clusters(answers[i : i + num_samples])]
    return [
        {
            "id": item.id,
            "sample": i % num_samples,
            "correct": verdicts[i].correct,
            "cluster": of_item[i],
            "tokens": len(ids[i]),
        }
        for i, item in enumerate(asked)
    ]


def _mean(values: torch.Tensor) -> float | None:
    return round(values.mean().item(), 5) if len(values) else None


def _examples(rows: Sequence[Mapping[str, Any]], shown: int) -> list[int]:
    """Indices of the most certain right and wrong completion of items that have both."""
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
