"""A batch of trainings and tests before it begins: what is there, how much is left, for how long.

Seconds are those of a training step of the same shape (model, problems, sizes) on this machine: of
runs in the store, or of two steps made for it. A test is scaled from the step's sampling, by its
tokens; where its completions have another length than in training, that is a guess.
"""

import functools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..evaluation.benchmarks.benchmarks import HELD_OUT, get_benchmark, load_items
from ..recipe import EMBEDDED_MODELS, InputError, Recipe, get_recipe
from ..report.tables import Table
from ..store import RunStore
from ..store.files import read_json, write_json
from .plan import PLAN, Test, asked
from .trials import TrialStore, resolve

_MEASURED = "speeds.json"  # in the run store

_SHAPE = (
    *("model", "quantization", "dtype", "use_lora", "lora_r", "dataset", "dataset_kwargs"),
    *("prompt_template", "num_generations", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "rollout_batch_size", "max_completion_length"),
    *("rollout", "update", "gradient_checkpointing"),
)  # settings that decide what a step costs; rewards and β matter little


@dataclass(frozen=True)
class Speed:
    """What a training step of one shape costs on this machine.

    Args:
        step: seconds of a step.
        token: seconds of its sampling for each token; a prompt counts once for its group.
        prompt: mean tokens of a prompt.
        length: mean tokens of a completion.
    """

    step: float
    token: float
    prompt: float
    length: float

    @classmethod
    def of(cls, recipe: Recipe, metrics: Sequence[Mapping[str, Any]]) -> "Speed | None":
        """From the metrics of a run; the first step, which warms up, only where it is alone."""
        timed = [row for row in metrics if row.get("rollout_time")]
        if not timed:
            return None
        rows = timed[1:] or timed
        length = statistics.fmean(row["completions/mean_length"] for row in rows)
        completions = recipe.completions_per_step
        prompt = timed[-1]["num_tokens"] / timed[-1]["step"] / completions - length
        tokens = recipe.problems_per_step * prompt + completions * length
        sampling = statistics.median(row["rollout_time"] for row in rows)
        step = statistics.median(row["step_time"] for row in rows)
        return cls(step, sampling / tokens, max(prompt, 1.0), length)


@dataclass(frozen=True)
class Job:
    """A training, or a test of its result or of a snapshot.

    `step` counts for a test; `steps_left` for a training that was interrupted.
    """

    store: TrialStore
    test: Test | None = None
    step: int | None = None
    items: int = 0
    steps_left: int = 0

    @property
    def recipe(self) -> Recipe:
        """The training's, or the one whose policy is tested."""
        return self.store.recipe

    @property
    def done(self) -> bool:
        """Whether its result is on record."""
        if self.test is None:
            return self.store.find("training", self.recipe.digest) is not None
        return self.store.find(*self.store.key(self.test, self.step)) is not None

    @property
    def completions(self) -> int:
        """Completions to make."""
        if self.test is None:
            return self.steps_left * self.recipe.completions_per_step
        return self.items * self.test.num_samples

    @property
    def most_tokens(self) -> int:
        """Tokens of a completion at most."""
        if self.test is None or (self.test.benchmark == HELD_OUT and not self.test.max_new_tokens):
            return self.measured.max_completion_length
        return self.test.max_new_tokens or get_benchmark(self.test.benchmark).max_new_tokens

    @property
    def measured(self) -> Recipe:
        """The recipe whose steps have prompts and completions as this work has."""
        if self.test is None or self.test.benchmark != HELD_OUT:
            return self.recipe
        own = {name: getattr(self.recipe, name) for name in ("model", "quantization", "dtype")}
        return get_recipe(self.test.recipe, self.store.profile, **own)

    def seconds(self, known: Mapping[str, Speed]) -> float:
        """Expected seconds; NaN where the speed is not known."""
        speed = known.get(shape(self.measured))
        if speed is None:
            return math.nan
        if self.test is None:
            looks = self.recipe.max_steps // (self.recipe.eval_steps or self.recipe.max_steps + 1)
            share = self.steps_left / self.recipe.max_steps
            held_out = looks * self.recipe.eval_problems * (speed.prompt + speed.length)
            return self.steps_left * speed.step + share * held_out * speed.token
        length = speed.length * self.most_tokens / self.measured.max_completion_length
        return self.items * (speed.prompt + self.test.num_samples * length) * speed.token


def jobs(
    profile: str, notebooks: Mapping[str, Mapping[str, Any]], *, runs: str | Path | None = None
) -> list[Job]:
    """Every training and test that notebooks collect, each once, in their order.

    The quickstart's own and the tokens of notebook 01 are not among them: minutes.

    Args:
        notebooks: names, with those of their parameters that `asked` has: `arms`, `seeds`.

    Raises:
        DataError: a benchmark whose number of items is not known is not there.
    """
    trained = {run.recipe.digest: run.steps for run in RunStore(runs)}
    found: dict[Any, Job] = {}
    for name in PLAN:
        stem, _, part = name.partition(":")
        if stem not in notebooks:
            continue
        given = notebooks[stem] if PLAN[name].arms and not part else {}
        chosen = {key: given[key] for key in ("arms", "seeds") if key in given}
        for store, tests in resolve(**asked(name, profile, **chosen), runs=runs).items():
            if not store.is_base:
                left = store.recipe.max_steps - trained.get(store.recipe.digest, 0)
                found.setdefault(store.folder, Job(store, steps_left=left))
            for test, step in tests:
                key = (store.folder, store.key(test, step)[0])
                if key not in found:
                    items = test.n or _count(test.benchmark)
                    found[key] = Job(store, test, step, items)
    return list(found.values())


@functools.cache
def _count(benchmark: str) -> int:
    return len(load_items(get_benchmark(benchmark)))


def shape(recipe: Recipe) -> str:
    """What decides the cost of a step."""
    values = recipe.to_dict()
    return json.dumps([values[name] for name in _SHAPE], sort_keys=True)


def speeds(runs: str | Path | None = None) -> dict[str, Speed]:
    """The speeds of shapes on this machine, from what `measure` left and the runs of the store."""
    store = RunStore(runs)
    file = store.root / _MEASURED
    found = (
        {key: Speed(**values) for key, values in read_json(file).items()} if file.is_file() else {}
    )
    for run in store:
        speed = Speed.of(run.recipe, run.metrics)
        if speed is not None:
            found[shape(run.recipe)] = speed
    return found


def measure(recipe: Recipe, runs: str | Path | None = None) -> Speed:
    """Train two steps of a recipe, apart from other runs, and keep the second one's speed."""
    from ..training.training import train

    small = recipe.replace(
        max_steps=2, eval_steps=None, snapshot_steps=None, save_steps=2, preflight_problems=0
    )
    with tempfile.TemporaryDirectory() as folder:
        speed = Speed.of(recipe, train(small, runs=folder).metrics)
    if speed is None:
        raise RuntimeError(f"two steps of {recipe.name} have no times")
    known = speeds(runs) | {shape(recipe): speed}
    write_json(RunStore(runs).root / _MEASURED, {key: asdict(one) for key, one in known.items()})
    return speed


def assumed(recipe: Recipe, step: float) -> Speed:
    """A machine on which a step takes `step` seconds, half of it sampling at the full length."""
    length = recipe.max_completion_length
    return Speed(step, step / 2 / (recipe.completions_per_step * length), 0.0, length)


def batch_table(batch: Sequence[Job], known: Mapping[str, Speed]) -> Table:
    """A row for each trial with work left: steps, tests, completions, tokens, hours."""
    by_trial: dict[str, list[Job]] = {}
    left = [job for job in batch if not job.done]
    for job in left:
        by_trial.setdefault(job.store.folder, []).append(job)
    rows = [_row(name, own, known) for name, own in by_trial.items()]
    header = ["trial", "steps", "tests", "completions", "tokens at most", "hours"]
    caption = f"{len(batch) - len(left)} of {len(batch)} trainings and tests are on record."
    return Table(header, [*rows, _row("all", left, known)], caption)


def _row(name: str, own: Sequence[Job], known: Mapping[str, Speed]) -> list[str]:
    made, most = (sum(values) for values in zip(*map(_work, own), strict=True)) if own else (0, 0)
    tests = sum(job.test is not None for job in own)
    steps = sum(job.steps_left for job in own)
    return [name, *(f"{x:,}" for x in (steps, tests, made, most)), hours(seconds(own, known))]


def _work(job: Job) -> tuple[int, int]:
    return job.completions, job.completions * job.most_tokens


def seconds(batch: Iterable[Job], known: Mapping[str, Speed]) -> float:
    """Expected seconds of what is not on record; NaN where a speed is not known."""
    return sum(job.seconds(known) for job in batch if not job.done)


def hours(seconds: float) -> str:
    """Format seconds as hours with a digit, or "?" for NaN."""
    return "?" if math.isnan(seconds) else f"{seconds / 3600:.1f}"


def needs(batch: Iterable[Job]) -> Iterator[str]:
    """Lines on the memory of the largest training left, and on the disk space for all of them."""
    from ..policy.pretrained import Source
    from ..policy.shapes import model_shape
    from ..training.memory import estimate_memory, gib

    recipes = [job.recipe for job in batch if job.test is None and not job.done]
    if not recipes:
        return
    peaks, kept, saved = {}, 0, 0
    for recipe in recipes:
        device = None if recipe.profile in ("smoke", "cpu") else "cuda"
        estimate = estimate_memory(recipe, device=device)
        peaks[recipe.name] = estimate.total
        trained = estimate.parts["optimizer"] // 8  # parameters, of which AdamW keeps two moments
        snapshots = recipe.max_steps // (recipe.snapshot_steps or recipe.max_steps)
        kept += 4 * trained * snapshots
        saved = max(saved, 3 * 12 * trained)  # three checkpoints, while it trains
    largest = max(peaks, key=peaks.__getitem__)
    yield f"memory: {gib(peaks[largest])} at most ({largest}), by the estimate of `intuitor memory`"
    yield f"disk: {gib(kept)} for results and snapshots, {gib(saved)} more while one trains"
    for name in sorted({recipe.model for recipe in recipes} - set(EMBEDDED_MODELS)):
        size = 2 * sum(model_shape(Source(name)).parameters)
        yield f"{name}: {gib(size)} of weights, fetched where they are not there"


class Progress:
    """Says how much of a batch is done, and how long the rest takes at the pace so far."""

    def __init__(
        self,
        profile: str,
        notebooks: Mapping[str, Mapping[str, Any]],
        runs: str | Path | None = None,
    ) -> None:
        self._jobs = functools.partial(jobs, profile, notebooks, runs=runs)
        self._runs, self._began = runs, time.monotonic()
        self._at_first = self._expected_now()

    def __call__(self) -> str:
        """The line to show; empty where nothing is left, or what is left cannot be told."""
        left = self._expected_now()
        if not left or not self._at_first:
            return ""
        known = speeds(self._runs)
        first, now = (sum(job.seconds(known) for job in jobs) for jobs in (self._at_first, left))
        pace = (time.monotonic() - self._began) / (first - now) if first > now else 1.0
        return f"  {len(left)} trainings and tests left, some {hours(now * pace)} hours"

    def _expected_now(self) -> list[Job]:
        try:
            return [job for job in self._jobs() if not job.done]
        except InputError:  # the notebook tells what is missing
            return []
