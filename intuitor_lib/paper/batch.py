"""A batch of trainings and tests before it begins: what is there, how much is left, for how long.

Seconds are those of a training step of the same shape (model, problems, sizes) on this machine: of
runs in the store, or of two steps made for it. A test is scaled from the step's sampling, by its
tokens; where its completions have another length than in training, that is a guess.
"""

import contextlib
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
from ..recipe import EMBEDDED_MODELS, Recipe, get_recipe
from ..report.tables import Table
from ..store import Run, RunStore
from ..store.checkpoints import checkpoint_step
from ..store.files import read_json, write_json
from .plan import PLAN, Test, asked
from .trials import TrialStore, resolve

_MEASURED = "speeds.json"  # in the run store

_SHAPE = (
    *("model", "quantization", "dtype", "use_lora", "lora_r", "dataset", "dataset_kwargs"),
    *("prompt_template", "system_prompt", "num_generations", "num_iterations", "annotator"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "rollout_batch_size"),
    *("max_completion_length", "rollout", "update", "gradient_checkpointing"),
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
        completions, last = recipe.completions_per_step, timed[-1]
        lengths = [row["completions/mean_length"] for row in timed]
        rollouts = math.ceil(last["step"] / recipe.num_iterations)
        prompt = max(last["num_tokens"] / rollouts / completions - statistics.fmean(lengths), 0.0)
        rows = timed[1:] or timed
        length = statistics.fmean(lengths[-len(rows) :])
        tokens = recipe.problems_per_step * prompt + completions * length
        sampling = statistics.median(row["rollout_time"] for row in rows)
        steps = [row["step_time"] for row in metrics]
        return cls(statistics.median(steps[1:] or steps), sampling / tokens, prompt, length)


@dataclass(frozen=True)
class Job:
    """A training, or a test of its result or of a snapshot.

    `step` and `items` are those of a test, `steps_left` those of a training.
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
        """Whether nothing is left of it now."""
        if self.test is None:
            run = _run_of(self.store) if self.steps_left else None
            return not self.steps_left or (run is not None and run.finished)
        return self.store.has(*self.store.key(self.test, self.step))

    @property
    def completions(self) -> int:
        """Completions to make; of a training, those of held-out problems on the way, too."""
        if self.test is None:
            looks = self.steps_left // (self.recipe.eval_steps or self.steps_left + 1)
            held_out = looks * self.recipe.eval_problems
            return self.steps_left * self.recipe.completions_per_step + held_out
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
        if self.test is None or self.test.benchmark != HELD_OUT or self.test.recipe is None:
            return self.recipe
        own = {name: getattr(self.recipe, name) for name in ("model", "quantization", "dtype")}
        return get_recipe(self.test.recipe, self.store.profile, **own)

    def seconds(self, known: Mapping[str, Speed]) -> float:
        """Expected seconds; NaN where the speed is not known."""
        speed = known.get(shape(self.measured))
        if speed is None:
            return math.nan
        if self.test is None:
            held_out = self.completions - self.steps_left * self.recipe.completions_per_step
            looking = held_out * (speed.prompt + speed.length) * speed.token
            return self.steps_left * speed.step + looking
        length = speed.length * self.most_tokens / self.measured.max_completion_length
        return self.items * (speed.prompt + self.test.num_samples * length) * speed.token


def jobs(
    profile: str, notebooks: Mapping[str, Mapping[str, Any]], *, runs: str | Path | None = None
) -> list[Job]:
    """Every training and test that notebooks collect, each once, in their order.

    A training whose tests are missing counts where neither its result nor the run is here. The
    quickstart's own work, the pairs of notebook 01, the checkpoints of 08 and the samples of the
    base in 12 are not among them.

    Args:
        notebooks: names, with the parameters of each.

    Raises:
        InputError: a parameter of another type, or a benchmark that is not there, where the number
            of its items is not known.
    """
    asked_for: dict[TrialStore, dict[str, Job]] = {}
    stores: dict[str, TrialStore] = {}
    for name in PLAN:
        stem, _, parameter = name.partition(":")
        given = notebooks.get(stem)
        if given is None or given.get(parameter) is False:
            continue
        own = {"arms": given.get(parameter, ())} if parameter.endswith("arms") else {}
        if PLAN[name].arms:
            replacing = ("seeds",) if parameter else ("arms", "seeds")
            own |= {key: given[key] for key in replacing if key in given}
        again, wanted = bool(given.get("retrain")), asked(name, profile, **own)
        for new, tests in resolve(**wanted, retrain=again, runs=runs).items():
            store = stores.setdefault(new.folder, new)
            known = asked_for.setdefault(store, {})
            for test, step in tests:
                items = test.n or _count(test.benchmark)
                known.setdefault(store.key(test, step)[0], Job(store, test, step, items))
    found: list[Job] = []
    for store, own_tests in asked_for.items():
        if not store.is_base:
            found.append(Job(store, steps_left=_steps_left(store, own_tests.values())))
        found += own_tests.values()
    return found


def _steps_left(store: TrialStore, tests: Iterable[Job]) -> int:
    run = _run_of(store)
    if run is not None and run.finished:
        return 0
    if store.has("training", store.recipe.digest) and all(job.done for job in tests):
        return 0
    saved = (run.path / "checkpoints").glob("checkpoint-[0-9]*") if run else ()
    return store.recipe.max_steps - max(map(checkpoint_step, saved), default=0)


def _run_of(store: TrialStore) -> Run | None:
    root, recipe = RunStore(store.runs).root, store.recipe
    runs = (Run(file.parent) for file in root.glob(f"*-s{recipe.seed}-*/recipe.json"))
    return next((run for run in runs if run.recipe.digest == recipe.digest), None)


@functools.cache
def _count(benchmark: str) -> int:
    return get_benchmark(benchmark).size or len(load_items(get_benchmark(benchmark)))


def shape(recipe: Recipe) -> str:
    """What decides the cost of a step."""
    values = recipe.to_dict()
    return json.dumps([values[name] for name in _SHAPE], sort_keys=True)


def speeds(runs: str | Path | None = None) -> dict[str, Speed]:
    """The speeds of shapes, from what `measure` left and the runs of the store.

    The newest run of a shape counts; one with a single step, which warms up, only if it is alone.
    """
    store = RunStore(runs)
    file = store.root / _MEASURED
    kept = read_json(file) if file.is_file() else {}
    found = {key: Speed(**values) for key, values in kept.items()}
    for run in sorted(store, key=lambda run: (run.path / "recipe.json").stat().st_mtime):
        rows = run.metrics
        speed = Speed.of(run.recipe, rows)
        if speed is not None and (len(rows) > 1 or shape(run.recipe) not in found):
            found[shape(run.recipe)] = speed
    return found


def describe(recipe: Recipe) -> str:
    """What a shape is of, in words."""
    model, weights = recipe.model.rpartition("/")[2], recipe.quantization
    return f"{recipe.name} ({model}, {'16 or 32 bits' if weights == 'none' else weights})"


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
    counts = (
        sum(job.steps_left for job in own),
        sum(job.test is not None for job in own),
        sum(job.completions for job in own),
        sum(job.completions * job.most_tokens for job in own),
    )
    return [name, *(f"{count:,}" for count in counts), hours(seconds(own, known))]


def seconds(batch: Iterable[Job], known: Mapping[str, Speed]) -> float:
    """Expected seconds of what is not on record; NaN where a speed is not known."""
    return sum(job.seconds(known) for job in batch if not job.done)


def hours(seconds: float) -> str:
    """Format seconds as hours, or "?" for NaN."""
    return "?" if math.isnan(seconds) else f"{seconds / 3600:.{1 + (seconds < 36000)}f}"


def needs(batch: Iterable[Job]) -> Iterator[str]:
    """Lines on the memory of the largest training left, and on the disk space for all of them."""
    recipes = [job.recipe for job in batch if job.test is None and not job.done]
    if not recipes:
        return
    from ..policy.pretrained import Source
    from ..policy.shapes import model_shape
    from ..training.memory import MOMENTS, estimate_memory, gib

    peaks, kept, saved = {}, 0, 0
    for recipe in recipes:
        device = None if recipe.profile in ("smoke", "cpu") else "cuda"
        estimate = estimate_memory(recipe, device=device)
        peaks[recipe.name] = estimate.total
        trained = estimate.phases["update"]["optimizer"] // MOMENTS[recipe.optim]
        snapshots = recipe.max_steps // (recipe.snapshot_steps or recipe.max_steps + 1)
        kept += 4 * trained * (snapshots + 1)
        saved = max(saved, 3 * 12 * trained)  # three checkpoints, while it trains
    largest = max(peaks, key=peaks.__getitem__)
    yield f"memory: {gib(peaks[largest])} at most ({largest}), by the estimate of `intuitor memory`"
    yield f"disk: {gib(kept)} for results and snapshots, {gib(saved)} more while one trains"
    for name in sorted({recipe.model for recipe in recipes} - set(EMBEDDED_MODELS)):
        size = 2 * sum(model_shape(Source(name)).parameters)
        yield f"{name}: {gib(size)} of weights, fetched where they are not there"


class Progress:
    """Says how much of a batch is left, and for how long at the pace so far.

    For `watch`, whose thread a fault must not end: where something cannot be told it is left out.
    """

    def __init__(
        self,
        profile: str,
        notebooks: Mapping[str, Mapping[str, Any]],
        runs: str | Path | None = None,
    ) -> None:
        self._runs, self._began = runs, time.monotonic()
        self._jobs: list[Job] = []
        with contextlib.suppress(Exception):  # the notebook says what is missing
            self._jobs = [job for job in jobs(profile, notebooks, runs=runs) if not job.done]

    def __call__(self) -> str:
        """The line to show; empty where nothing is left."""
        with contextlib.suppress(Exception):
            return self._line()
        return ""

    def _line(self) -> str:
        left = [job for job in self._jobs if not job.done]
        if not left:
            return ""
        known = speeds(self._runs)
        untimed = [job for job in left if math.isnan(job.seconds(known))]
        first, now = (
            sum(s for s in (job.seconds(known) for job in jobs) if not math.isnan(s))
            for jobs in (self._jobs, left)
        )
        pace = (time.monotonic() - self._began) / (first - now) if first > now else 1.0
        text = f"  {len(left)} of {len(self._jobs)} trainings and tests left: some "
        text += f"{hours(now * pace)} hours"
        return text + (f", and {len(untimed)} not timed yet" if untimed else "")
