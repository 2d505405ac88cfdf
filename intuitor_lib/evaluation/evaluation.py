"""Evaluate a policy: generate, grade, score its confidence.

`evaluate` runs a benchmark and keeps every completion in the run store; `measure` makes the rows
of a notebook's before and after on a recipe's held-out problems.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..certainty.completions import end_tokens
from ..grading.sandbox.confine import protections, run_python
from ..policy.loading import Policy, describe_policy
from ..problems.prompts import prompt_token_ids
from ..recipe.constants import InputError
from ..recipe.recipe import Recipe
from ..report.progress import track
from ..rollouts.generation import generate
from ..store.evaluations import EvaluationRecord
from ..store.run_store import RunStore
from ..store.runs import Run
from .benchmarks.alpaca import write_outputs
from .benchmarks.benchmarks import Benchmark, fingerprint, get_benchmark, load_items
from .benchmarks.graders import Item, JudgedGrader
from .subjects import Subject, find_subject

__all__ = ["BENCHMARKS_OWN", "encode_items", "evaluate"]

BENCHMARKS_OWN = "benchmark"
"""`system_prompt=BENCHMARKS_OWN` is the benchmark's own; None is none."""

DEFAULT_BATCH_SIZE = 32


def evaluate(
    policy: Policy | Run | Recipe | Subject | str | Path,
    benchmark: Benchmark | str,
    *,
    n: int | None = None,
    seed: int = 0,
    temperature: float = 0.0,
    num_samples: int = 1,
    max_new_tokens: int | None = None,
    system_prompt: str | None = BENCHMARKS_OWN,
    batch_size: int | None = None,
    certainty: bool = True,
    adapter: str | Path | None = None,
    revision: str | None = None,
    quantization: str | None = None,
    dtype: str | None = None,
    step: int | None = None,
    benchmarks: str | Path | None = None,
    runs: str | Path | None = None,
) -> EvaluationRecord:
    """A policy on a benchmark: every completion with its verdict, kept in the run store.

    Asking again for the same finds the record; an interrupted evaluation goes on with the batch
    it was in. `report.evaluation_table` makes a table with intervals of the records.

    Args:
        policy: a run of the store (or its id), a recipe (the policy its training starts from),
            `EMBEDDED_MODEL`, a local folder, a name on the hub, a loaded policy, or what
            `find_subject` made of one of these.
        benchmark: a name of `BENCHMARKS`, or a `Benchmark`.
        n: how many items, drawn by `seed`; all of them by default (an embedded generator's
            default number).
        seed: of the choice of items, of generators and of sampling.
        temperature: 0 is greedy, as in the paper.
        num_samples: completions per item; several need a temperature.
        max_new_tokens: instead of the benchmark's (tokens).
        system_prompt: instead of the benchmark's; None is none.
        batch_size: completions generated at a time; 32, or what an interrupted evaluation had.
        certainty: also keep self-certainty.
        adapter: folder or hub name of a PEFT adapter for a model.
        revision: of a model of the hub.
        quantization: "nf4" or "none" (the default) for a model; runs and recipes have their own.
        dtype: of computing; "auto" by default.
        step: of a run, the snapshot after that step instead of the result.
        benchmarks: folder of benchmark files; `INTUITOR_BENCHMARKS` by default.
        runs: the run store; `INTUITOR_RUNS` by default.

    Returns:
        The record. Its rows have `id`, `sample`, `prompt`, `completion`, `answer` (extracted),
        `correct` (None: not judged), `reason`, `tokens`, `clipped`, `self_certainty` (nats, mean
        over the tokens) and, of a run, `trained_on`: whether it is one of its training problems.

    Raises:
        InputError: an unknown benchmark or policy, items that cannot be had or do not fit.
        SandboxError: the benchmark runs programs and they cannot be confined on this machine.
    """
    benchmark = get_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
    if num_samples < 1 or temperature < 0 or (num_samples > 1 and temperature == 0):
        raise InputError(
            f"num_samples={num_samples} at temperature={temperature}: ask for at least 1, and for "
            "several at a temperature above 0, since greedy ones are all the same"
        )
    if max_new_tokens is not None and max_new_tokens < 1:
        raise InputError(f"max_new_tokens={max_new_tokens}: ask for at least 1")
    store = RunStore(runs)
    subject = find_subject(
        policy,
        store,
        adapter=adapter,
        revision=revision,
        quantization=quantization,
        dtype=dtype,
        step=step,
    )
    items = load_items(benchmark, n, seed=seed, folder=benchmarks)
    if system_prompt == BENCHMARKS_OWN:
        system_prompt = benchmark.system_prompt
    spec: dict[str, dict[str, Any]] = {
        "policy": subject.spec,
        "benchmark": {
            "name": benchmark.name,
            "items": fingerprint(items),
            "n": len(items),
            "seed": seed,
            "_title": benchmark.title,
            "_metric": benchmark.metric,
            "_stands_in_for": benchmark.stands_in_for,
            "_ids": [item.id for item in items],
        },
        "decoding": {
            "temperature": float(temperature),
            "num_samples": num_samples,
            "max_new_tokens": max_new_tokens or benchmark.max_new_tokens,
            "system_prompt": system_prompt if benchmark.chat else None,
            "_batch_size": batch_size or DEFAULT_BATCH_SIZE,
        },
    }
    record = store.open_evaluation(spec)
    if not record.finished:
        with record.lock():
            # Another process may have finished it while this one waited.
            if not record.finished:
                _work(record, benchmark, subject, items, batch_size, certainty)
                record.finish()
    if num_samples > 1 and not record.has_table("majority"):
        record.table("majority", lambda: _votes(record.rows, benchmark))
    if isinstance(benchmark.grader, JudgedGrader):
        datasets = {item.id: item.gold["dataset"] for item in items}
        first = [row for row in record.rows if row["sample"] == 0]
        outputs = [{**row, "dataset": datasets[row["id"]]} for row in first]
        write_outputs(record.path, outputs, subject.spec["_name"])
    return record


def _work(
    record: EvaluationRecord,
    benchmark: Benchmark,
    subject: Subject,
    items: Sequence[Item],
    batch_size: int | None,
    certainty: bool,
) -> None:
    if benchmark.grader.runs_code:
        run_python("pass")  # refused at once where programs cannot be confined
        print(protections(), file=sys.stderr)
    spec = record.spec
    decoding, seed = spec["decoding"], spec["benchmark"]["seed"]
    policy = subject.load()
    record.set_environment(describe_policy(policy.model) | {"commit": _commit(policy.model)})
    prompt_ids = encode_items(policy, benchmark, items, decoding["system_prompt"])
    _check_fit(policy.model, benchmark, prompt_ids, decoding["max_new_tokens"])

    # Batches are a function of the request alone, and each has a seed of its own: an evaluation
    # that was interrupted ends with the completions of one that was not.
    work = [(i, sample) for i in range(len(items)) for sample in range(decoding["num_samples"])]
    work.sort(key=lambda unit: (-len(prompt_ids[unit[0]]), unit))
    size = batch_size or decoding["_batch_size"]
    batches = [work[i : i + size] for i in range(0, len(work), size)]
    done = {(row["id"], row["sample"]) for row in record.rows}
    label = f"{benchmark.name}: {subject.spec['_name']}"
    for number, batch in enumerate(track(batches, total=len(batches), label=label)):
        missing = [(items[i].id, sample) not in done for i, sample in batch]
        if any(missing):
            with _memory_advice(len(batch)):
                rows = _batch_rows(
                    *(policy, benchmark, items, prompt_ids, batch),
                    decoding,
                    seed * 1_000_003 + number,
                    certainty,
                    subject.trained_on,
                )
            record.append(row for row, new in zip(rows, missing, strict=True) if new)


def _batch_rows(
    policy: Policy,
    benchmark: Benchmark,
    items: Sequence[Item],
    prompt_ids: Sequence[Sequence[int]],
    batch: Sequence[tuple[int, int]],
    decoding: dict[str, Any],
    seed: int,
    certainty: bool,
    trained_on: frozenset[str] | None,
) -> list[dict[str, Any]]:
    ends = end_tokens(policy.model)
    chosen = [items[i] for i, _ in batch]
    prompts = [prompt_ids[i] for i, _ in batch]
    completions = generate(
        policy,
        prompts,
        max_new_tokens=decoding["max_new_tokens"],
        temperature=decoding["temperature"],
        seed=seed,
        batch_size=len(batch),
        stop=benchmark.stop,
        certainty=certainty,
        label=None,
    )
    ids_of = [completion.ids for completion in completions]
    texts = policy.tokenizer.batch_decode(ids_of, skip_special_tokens=True)
    for stop in benchmark.stop:
        texts = [text.partition(stop)[0] for text in texts]
    verdicts = benchmark.grader.grade(chosen, texts)
    rows = []
    for item, (_, sample), text, completion, verdict in zip(
        chosen, batch, texts, completions, verdicts, strict=True
    ):
        ids = completion.ids
        row = {
            "id": item.id,
            "sample": sample,
            "prompt": item.prompt,
            "completion": text,
            **verdict._asdict(),
            "tokens": len(ids),
            "clipped": len(ids) == decoding["max_new_tokens"] and ids[-1] not in ends,
        }
        if trained_on is not None:
            row["trained_on"] = item.question.strip() in trained_on
        if certainty:
            row["self_certainty"] = completion.mean_certainty
        rows.append(row)
    return rows


def _votes(rows: Sequence[dict[str, Any]], benchmark: Benchmark) -> list[dict[str, Any]]:
    """What the completions of each item elect, for majority@k; none where they cannot vote."""
    votes = []
    for item, group in itertools.groupby(rows, key=lambda row: row["id"]):
        completions = list(group)
        elected = benchmark.grader.elected([row["answer"] for row in completions])
        if elected is None:
            return []
        winners = [row for row, is_in in zip(completions, elected, strict=True) if is_in]
        votes.append(
            {
                "id": item,
                "answer": winners[0]["answer"] if winners else None,
                "correct": bool(winners and winners[0]["correct"]),
                "votes": len(winners),
                "completions": len(completions),
            }
        )
    return votes


def encode_items(
    policy: Policy, benchmark: Benchmark, items: Sequence[Item], system_prompt: str | None
) -> list[list[int]]:
    """The items as token ids, through the chat template unless the benchmark goes without."""
    if not benchmark.chat:
        return [list(ids) for ids in policy.tokenizer([item.prompt for item in items])["input_ids"]]
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    conversations = [[*system, {"role": "user", "content": item.prompt}] for item in items]
    return prompt_token_ids(policy.tokenizer, conversations)


def _check_fit(
    model: Any, benchmark: Benchmark, prompt_ids: Sequence[Sequence[int]], max_new_tokens: int
) -> None:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(map(len, prompt_ids))
    if context is not None and longest + max_new_tokens > context:
        raise InputError(
            f"{benchmark.name}: a prompt of {longest} tokens and max_new_tokens={max_new_tokens} "
            f"exceed the {context} tokens of the model: lower max_new_tokens to "
            f"{max(context - longest, 0)} or less, or choose another model"
        )


@contextlib.contextmanager
def _memory_advice(batch_size: int) -> Any:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RuntimeError(
            f"out of GPU memory with batch_size={batch_size}: ask again with a lower one; the "
            f"completions made so far are kept ({error})"
        ) from error


def _commit(model: Any) -> str | None:
    return getattr(model.config, "_commit_hash", None)
