"""Token-level confidence of policies in their own and each other's completions."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..certainty import token_confidence
from ..grading import clusters
from ..policy.linear import fixed_weights, speed_up_linears
from ..report import track
from ..rollouts import generate
from .benchmarks.benchmarks import Benchmark, load_items
from .benchmarks.graders import Item, Verdict
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
) -> dict[str, Any]:
    """Sample completions from some policies and score them under some policies.

    Args:
        generators: policies by label; each generates completions.
        graders: for each generator's label, the labels of the policies that score its completions.
        benchmark: source of the items; its grader must be able to compare answers.
        n: number of items; None for all.
        temperature: sampling temperature; scores are always at temperature 1.

    Returns:
        `rows`: by "generator → grader", a row per completion with `id`, `sample`, `correct`,
        `cluster`, `tokens`, and the means over its tokens, in nats, of `self_certainty`,
        `entropy` and `log_prob`. `tokens`: by the same key, examples with `prompt`, `correct` and
        for each token its `text`, `self_certainty` and `entropy`.
    """
    items = load_items(benchmark, n)
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
            batch_size=64,
            label=f"{label} answers",
        )
        ids = [completion.ids for completion in completions]
        texts = policy.tokenizer.batch_decode(ids, skip_special_tokens=True)
        verdicts = benchmark.grader.grade(asked, texts)
        extraction = getattr(benchmark.grader, "extraction", "whole")
        graded = _graded(asked, ids, verdicts, num_samples, extraction)
        names = list(graders[label])
        for name in track(names, total=len(names), label=f"{label}'s answers are scored"):
            model = loaded[name].model
            speed_up_linears(model)
            with fixed_weights(model):
                measured = token_confidence(model, prompts, ids, batch_size=64)
            columns = enumerate(("self_certainty", "entropy", "log_prob"))
            scores = {column: [values[:, k] for values in measured] for k, column in columns}
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
                for i in _examples(rows)
            ]
    return found


def _graded(
    asked: Sequence[Item],
    ids: Sequence[list[int]],
    verdicts: Sequence[Verdict],
    num_samples: int,
    extraction: str,
) -> list[dict[str, Any]]:
    """A row per completion; equal answers to an item share a `cluster`."""
    answers = [verdict.answer for verdict in verdicts]
    groups = [answers[i : i + num_samples] for i in range(0, len(answers), num_samples)]
    of_item = [cluster for group in groups for cluster in clusters(group, extraction)]
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


def _examples(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Indices of the most certain right and wrong completion of two items, if any have both."""
    best: dict[Any, dict[bool, int]] = {}
    known = [i for i, row in enumerate(rows) if row["self_certainty"] is not None]
    for i in known:
        best[rows[i]["id"]] = {}
    for i in sorted(known, key=lambda i: -rows[i]["self_certainty"]):
        best[rows[i]["id"]].setdefault(bool(rows[i]["correct"]), i)
    both = [sides for sides in best.values() if len(sides) == 2]
    chosen = (both or list(best.values()))[:2]
    return [i for sides in chosen for _, i in sorted(sides.items(), reverse=True)]
