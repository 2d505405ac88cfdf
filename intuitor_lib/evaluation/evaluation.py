"""Evaluate a policy on a benchmark: generate, grade, measure confidence, keep every completion."""

import itertools
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..certainty.completions import end_tokens
from ..grading import describe_doubts, doubtful
from ..grading.sandbox import protections, run_python
from ..policy import Policy, describe_policy
from ..policy.pretrained import Source, cached_commit
from ..problems import control_tokens, prompt_date, prompt_token_ids
from ..problems.prompts import messages
from ..recipe import InputError, Recipe
from ..report import track
from ..rollouts import generate
from ..store import EvaluationRecord, Run, RunStore
from ..store.processes import join
from .benchmarks import BENCHMARKS, Benchmark, get_benchmark, load_items
from .benchmarks.alpaca import write_outputs
from .benchmarks.benchmarks import fingerprint, with_extraction
from .benchmarks.graders import Item, JudgedGrader, MathGrader
from .subjects import Subject, find_subject, require_same_weights

BENCHMARKS_OWN = "benchmark"
"""`system_prompt=BENCHMARKS_OWN` uses the benchmark's system prompt; None uses none."""

DEFAULT_BATCH_SIZE = 32

# A completion to generate: the item, which of its samples, and the token ids of its prompt.
_Work = tuple[Item, int, list[int]]


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
    trust_remote_code: bool | None = None,
    step: int | None = None,
    extraction: str | None = None,
    benchmarks: str | Path | None = None,
    runs: str | Path | None = None,
) -> EvaluationRecord:
    """Evaluate a policy on a benchmark; every completion and verdict is kept in the run store.

    A repeated request returns the stored record. An interrupted evaluation resumes with the batch
    that was in progress. `evaluation_table` shows records with their intervals.

    Args:
        policy: a run or its id, a recipe (for the policy its training starts from),
            one of `EMBEDDED_MODELS`, a local folder, a hub name, a loaded policy, or a `Subject`.
        benchmark: a `Benchmark` or its name.
        n: number of items, drawn by `seed`; default all (a generator's default number).
        seed: seed of the choice of items, of generators and of sampling.
        temperature: sampling temperature; 0 is greedy, as in the paper.
        num_samples: completions per item; above 1 only with a temperature.
        max_new_tokens: token limit of a completion; default the benchmark's.
        system_prompt: default the benchmark's; None for none.
        batch_size: completions generated at a time; default 32, or that of the interrupted
            evaluation.
        certainty: also record self-certainty.
        adapter: folder or hub name of a PEFT adapter; like the next four, only for a model.
        revision: revision on the hub.
        quantization: "nf4" or "none" (default).
        dtype: compute dtype; default "auto".
        trust_remote_code: run code that comes with the model; default no.
        step: evaluate the snapshot of a run after this step instead of its result.
        extraction: where answers to mathematics are read, one of `grading.EXTRACTIONS`; default
            the benchmark's.
        benchmarks: folder of benchmark files; default `INTUITOR_BENCHMARKS`.
        runs: the run store; default `INTUITOR_RUNS`.

    Returns:
        The record. Its rows have `id`, `sample`, `prompt`, `completion`, `answer` (extracted),
        `correct` (None: not judged), `reason`, `tokens`, `clipped`, `self_certainty` (nats, mean
        over tokens) and, for a run, `trained_on`: whether it was trained on this problem.

    Raises:
        InputError: an unknown benchmark or policy, unavailable items, or prompts that do not fit
            the model's context; a stored evaluation is of other weights of the same run.
        SandboxError: the benchmark runs programs and this machine cannot confine them.
    """
    benchmark = get_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
    benchmark = benchmark if extraction is None else with_extraction(benchmark, extraction)
    if num_samples < 1 or temperature < 0 or (num_samples > 1 and temperature == 0):
        raise InputError(
            f"num_samples={num_samples} at temperature={temperature}: use at least 1, and "
            "several at a temperature above 0, because greedy completions are all the same"
        )
    for name, value in {"max_new_tokens": max_new_tokens, "batch_size": batch_size}.items():
        if value is not None and value < 1:
            raise InputError(f"{name}={value}: use at least 1")
    prompt = benchmark.system_prompt if system_prompt == BENCHMARKS_OWN else system_prompt
    decoding = {
        "temperature": float(temperature),
        "num_samples": num_samples,
        "max_new_tokens": max_new_tokens or benchmark.max_new_tokens,
        "system_prompt": prompt if benchmark.chat else None,
        "_batch_size": batch_size or DEFAULT_BATCH_SIZE,
        **({} if certainty else {"certainty": False}),
    }
    store = RunStore(runs)
    subject = find_subject(
        policy,
        store,
        adapter=adapter,
        revision=revision,
        quantization=quantization,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        step=step,
    )
    items = load_items(benchmark, n, seed=seed, folder=benchmarks)
    asked = _benchmark_spec(benchmark, items, seed)
    spec = {"policy": subject.spec, "benchmark": asked, "decoding": decoding}
    record = store.open_evaluation(spec)
    require_same_weights(record, subject)
    if not (record.finished and record.has_checksums):
        with record.lock():
            # Another process may have finished it while this one waited.
            if not record.finished:
                _generate_missing(record, benchmark, subject, items, batch_size, certainty)
            record.finish()
    _derive(record, benchmark, subject, items)
    return record


def _benchmark_spec(benchmark: Benchmark, items: Sequence[Item], seed: int) -> dict[str, Any]:
    # Left out where answers are read as before there was a choice, so that records are still found.
    extraction = getattr(benchmark.grader, "extraction", None)
    chosen = extraction not in (None, "last_number")
    # So is what the registry's benchmark of this name has too.
    usual = BENCHMARKS.get(benchmark.name) or replace(benchmark, chat=True, stop=())
    own, known = (
        {"chat": b.chat, "stop": [*b.stop], "grader": type(b.grader).__name__}
        for b in (benchmark, usual)
    )
    return {
        "name": benchmark.name,
        **{key: value for key, value in own.items() if value != known[key]},
        **({"extraction": extraction} if chosen else {}),
        **({"compared": "as text"} if extraction == "whole" else {}),
        "items": fingerprint(items),
        "n": len(items),
        "seed": seed,
        "_title": benchmark.title,
        "_metric": benchmark.metric,
        "_stands_in_for": benchmark.stands_in_for,
        "_ids": [item.id for item in items],
    }


def _generate_missing(
    record: EvaluationRecord,
    benchmark: Benchmark,
    subject: Subject,
    items: Sequence[Item],
    batch_size: int | None,
    certainty: bool,
) -> None:
    """Generate and append the completions that the record does not have yet."""
    if benchmark.grader.runs_code:
        run_python("pass")  # fails here, before any work, where programs cannot be confined
        print(protections(), file=sys.stderr)
    spec = record.spec
    decoding, seed = spec["decoding"], spec["benchmark"]["seed"]
    if isinstance(benchmark.grader, MathGrader):
        references = {item.id: item.reference for item in items if item.reference}
        if found := doubtful(references, benchmark.grader.extraction):
            print(f"{benchmark.name}: {describe_doubts(references, found)}", file=sys.stderr)
    settled = _settled(record)
    policy = subject.load(**settled)
    named = subject.spec.get("model")
    revision = settled.get("revision") or subject.spec.get("revision")
    commit = cached_commit(Source(named, revision)) if named else None
    prompt_ids = encode_items(policy, benchmark, items, decoding["system_prompt"])
    about = {"commit": commit, "prompt_date": prompt_date(policy.tokenizer)}
    record.set_environment(describe_policy(policy.model) | about)
    if held := control_tokens(policy.tokenizer, {item.id: item.question for item in items}):
        print(f"{benchmark.name}: {held}", file=sys.stderr)
    _check_fit(policy.model, benchmark, prompt_ids, decoding["max_new_tokens"])

    # Batches depend on the request alone and each has its own seed, so an interrupted evaluation
    # ends with the same completions as an uninterrupted one. The longest prompts come first.
    order = sorted(range(len(items)), key=lambda i: -len(prompt_ids[i]))
    samples = range(decoding["num_samples"])
    work = [(items[i], sample, prompt_ids[i]) for i in order for sample in samples]
    size = batch_size or decoding["_batch_size"]
    batches = [work[i : i + size] for i in range(0, len(work), size)]
    done = {(row["id"], row["sample"]) for row in record.rows}
    label = f"{benchmark.name}: {subject.spec['_name']}"
    for number, batch in enumerate(track(batches, total=len(batches), label=label)):
        if all((item.id, sample) in done for item, sample, _ in batch):
            continue
        batch_seed = seed * 1_000_003 + number
        rows = _batch_rows(
            policy, benchmark, batch, decoding, batch_seed, certainty, subject.trained_on
        )
        record.append(row for row in rows if (row["id"], row["sample"]) not in done)


def _settled(record: EvaluationRecord) -> dict[str, str]:
    """The commit and dtype of the completions so far, where the rest might be of others."""
    if not record.rows:
        return {}
    before = record.environment
    settled = {"revision": before["commit"]} if before.get("commit") else {}
    same_device = before["device"].partition(":")[0] == join().device.type
    if record.spec["policy"].get("dtype") == "auto" and same_device:
        settled["dtype"] = before["compute_dtype"]
    return settled


def _batch_rows(
    policy: Policy,
    benchmark: Benchmark,
    batch: Sequence[_Work],
    decoding: dict[str, Any],
    seed: int,
    certainty: bool,
    trained_on: Collection[str] | None,
) -> list[dict[str, Any]]:
    completions = generate(
        policy,
        [prompt_ids for _, _, prompt_ids in batch],
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
    verdicts = benchmark.grader.grade([item for item, _, _ in batch], texts)
    ends = end_tokens(*policy)
    rows = []
    made = zip(batch, texts, completions, verdicts, strict=True)
    for (item, sample, _), text, completion, verdict in made:
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


def _derive(
    record: EvaluationRecord, benchmark: Benchmark, subject: Subject, items: Sequence[Item]
) -> None:
    """Add majority votes to a finished record, and outputs for an outside judge."""
    several = record.spec["decoding"]["num_samples"] > 1
    if several and not record.votes and (votes := _votes(record.rows, benchmark)):
        record.set_votes(votes)
    if isinstance(benchmark.grader, JudgedGrader):
        datasets = {item.id: item.reference["dataset"] for item in items}
        first = [row for row in record.rows if row["sample"] == 0]
        outputs = [{**row, "dataset": datasets[row["id"]]} for row in first]
        write_outputs(record.path, outputs, subject.spec["_name"])


def _votes(rows: Sequence[dict[str, Any]], benchmark: Benchmark) -> list[dict[str, Any]]:
    """The majority answer of each item, for majority@k; empty if the grader has no vote."""
    votes = []
    for item, group in itertools.groupby(rows, key=lambda row: row["id"]):
        completions = list(group)
        elected = benchmark.grader.elected([row["answer"] for row in completions])
        if elected is None:
            return []
        winners = [row for row, is_in in zip(completions, elected, strict=True) if is_in]
        vote = {
            "id": item,
            "answer": winners[0]["answer"] if winners else None,
            "correct": bool(winners and winners[0]["correct"]),
            "votes": len(winners),
            "completions": len(completions),
        }
        votes.append(vote)
    return votes


def encode_items(
    policy: Policy, benchmark: Benchmark, items: Sequence[Item], system_prompt: str | None
) -> list[list[int]]:
    """Tokenize the items, through the chat template unless the benchmark uses none."""
    if not benchmark.chat:
        return [list(ids) for ids in policy.tokenizer([item.prompt for item in items])["input_ids"]]
    conversations = [messages(item.prompt, system_prompt) for item in items]
    return prompt_token_ids(policy.tokenizer, conversations)


def _check_fit(
    model: Any, benchmark: Benchmark, prompt_ids: Sequence[Sequence[int]], max_new_tokens: int
) -> None:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(map(len, prompt_ids))
    if context is not None and longest + max_new_tokens > context:
        fewer = f"lower max_new_tokens to {context - longest} or less, or "
        raise InputError(
            f"{benchmark.name}: a prompt of {longest} tokens and max_new_tokens={max_new_tokens} "
            f"exceed the {context} tokens of the model: {fewer if longest < context else ''}"
            "choose another model"
        )
