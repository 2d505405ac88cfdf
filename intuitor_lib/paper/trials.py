"""Trials: the policies behind the notebooks, with what was measured on them.

A trial is a recipe trained under a profile and a seed, or the base it starts from. `collect`
returns trials with the tests that a notebook needs. Their results are small files without weights
(see `results`), in a folder `<recipe>-s<seed>-<digest>`:

    training.parquet   a row per completion; settings, environment, metrics of every step
    <test>.parquet     a row per completion; <test>@<step>.parquet for a snapshot

Missing ones are trained and evaluated through the run store. torch is imported only for that.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation.benchmarks.benchmarks import Benchmark, get_benchmark, load_items
from ..evaluation.benchmarks.held_out import HELD_OUT, held_out_benchmark
from ..recipe import InputError, Recipe, get_recipe
from ..store import RunStore
from ..training.monitor import marked
from .plan import ARMS, SAME, SEEDS, SUITES, Rows, Test, arm_recipe, arm_seeds
from .results import result

_KEPT = (
    "id",
    "sample",
    "prompt",
    "completion",
    "answer",
    "correct",
    "tokens",
    "clipped",
    "self_certainty",
)  # of completions
_LEFT_OUT = ("epoch", "num_tokens", "learning_rate")  # of metrics


@dataclass(frozen=True)
class Trial:
    """A policy of an experiment with its measurements.

    `baselines` are the scores without skill on each test (`Grader.baselines`). `on_record`: all
    measurements were read, none was made now.
    """

    arm: str
    label: str
    profile: str
    recipe: Recipe
    training: Mapping[str, Any] | None = None
    tables: Mapping[tuple[str, int | None], Rows] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    on_record: bool = False

    @property
    def seed(self) -> int:
        """The seed of the training; for a base, of the recipe that starts from it."""
        return self.recipe.seed

    @functools.cached_property
    def metrics(self) -> Rows:
        """One row per training step, with alarms by the current rules; none for a base."""
        rows = self.training["metrics"] if self.training else []
        return marked(rows, problems=self.recipe.problems_per_step)

    def rows(self, test: str, step: int | None = None) -> Rows:
        """The completions of a test, for the result or for the snapshot after a step.

        Raises:
            KeyError: `collect` was called without this test.
        """
        if (test, step) not in self.tables:
            have = ", ".join(f"{name}@{at}" if at else name for name, at in self.tables)
            raise KeyError(f"{self.label}: no test {test!r} at step {step}; collected: {have}")
        return self.tables[test, step]


def collect(
    arms: Sequence[str],
    profile: str,
    *,
    tests: Sequence[str] = (),
    steps: Sequence[int] = (),
    step_tests: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    retrain: bool = False,
    runs: str | Path | None = None,
) -> dict[str, list[Trial]]:
    """Collect trials by label, one per seed; train and evaluate what is not on record.

    Args:
        arms: names in `ARMS`.
        tests: names in the profile's suite, for every result.
        steps: steps whose snapshots are evaluated on `step_tests`; a base is evaluated on them
            once, as step 0.
        step_tests: names in the profile's suite.
        seeds: seeds of the trainings; default `SEEDS` for the arms in `MAIN`, the first for others.
        retrain: ignore the results committed with the project.

    Raises:
        InputError: an unknown arm, profile or test.
    """
    for arm in arms:
        if arm not in ARMS:
            raise InputError(f"unknown arm {arm!r}: choose from {', '.join(ARMS)}")
    if profile not in SUITES:
        raise InputError(f"unknown profile {profile!r}: choose from {', '.join(SUITES)}")
    suite = SUITES[profile]
    for name in (*tests, *step_tests):
        if name not in suite:
            raise InputError(f"unknown test {name!r}: choose from {', '.join(suite)}")
    trials: dict[str, list[Trial]] = {}
    for arm in arms:
        for seed in arm_seeds(arm, profile, seeds):
            store = _Store(arm, profile, seed, retrain, runs)
            training = None if store.is_base else store.training()
            at = [0] if store.is_base and steps else steps
            asked: list[tuple[str, int | None]] = [(name, None) for name in tests]
            asked += [(name, step) for step in at for name in step_tests]
            found = {(name, step): store.tested(suite[name], step) for name, step in asked}
            tables = {key: one["rows"] for key, one in found.items()}
            known = {name: one["baselines"] for (name, _), one in found.items()}
            about = (arm, ARMS[arm], profile, store.recipe)
            trial = Trial(*about, training, tables, known, store.only_read)
            trials.setdefault(trial.label, []).append(trial)
    return trials


def confidence(
    profile: str, *, retrain: bool = False, runs: str | Path | None = None
) -> dict[str, Any]:
    """Run `measure_confidence` for base, GRPO and INTUITOR on the sampled held-out problems.

    The pairs of generator and grader are the four of the paper's Figure 8, with the first seed.
    """
    test, seed = SUITES[profile]["in_domain_sampled"], SEEDS[profile][0]
    arms = {"base": "base", "GRPO": "grpo", "INTUITOR": "intuitor"}
    pairs = {"base": ["base", "INTUITOR"], "GRPO": ["GRPO"], "INTUITOR": ["INTUITOR"]}

    def make() -> dict[str, Any]:
        from ..evaluation.confidence import measure_confidence

        found = measure_confidence(
            {
                label: _Store(arm, profile, seed, True, runs).subject(None)
                for label, arm in arms.items()
            },
            pairs,
            _benchmark(test, profile),
            n=test.n,
            num_samples=test.num_samples,
            temperature=test.temperature,
            max_new_tokens=test.max_new_tokens
            or get_recipe("intuitor", profile).max_completion_length,
        )
        rows = [{"pair": pair, **_shortened(r)} for pair, own in found["rows"].items() for r in own]
        return {"rows": rows, "tokens": found["tokens"]}

    trained = [arm_recipe(arm, profile, seed).digest for arm in arms.values()]
    stored = result(
        "confidence",
        make,
        profile=profile,
        key={"test": asdict(test), "trained": trained, "pairs": pairs},
        retrain=retrain,
        runs=runs,
    )
    by_pair: dict[str, Rows] = {}
    for row in stored["rows"]:
        by_pair.setdefault(row["pair"], []).append(row)
    return {"pairs": by_pair, "tokens": stored["tokens"]}


class _Store:
    """Read the results of a trial; make those that are missing."""

    def __init__(
        self, arm: str, profile: str, seed: int, retrain: bool, runs: str | Path | None
    ) -> None:
        self.is_base = arm.startswith("base")
        self.recipe = arm_recipe(arm, profile, seed)
        self.profile, self.retrain, self.runs = profile, retrain, runs
        self.only_read = True
        # The policy to evaluate is loaded once for all tests; only the last one is held.
        self.subject = functools.lru_cache(maxsize=1)(self._find)
        kind = arm.replace(":", "-") if self.is_base else SAME.get(arm, arm)
        self.folder = f"{kind}-s{seed}-{self.recipe.digest}"

    def _result(self, name: str, key: Any, make: Callable[[], Any]) -> Any:
        def made() -> Any:
            self.only_read = False
            return make()

        return result(
            f"{self.folder}/{name}",
            made,
            profile=self.profile,
            key=key,
            retrain=self.retrain,
            runs=self.runs,
        )

    @functools.cached_property
    def run(self) -> Any:
        from ..training.training import train

        return train(self.recipe, runs=self.runs)

    def training(self) -> Mapping[str, Any]:
        """Settings, environment, metrics and completions of the training."""
        return self._result("training", self.recipe.digest, lambda: _training(self.run))

    def tested(self, test: Test, step: int | None) -> Mapping[str, Any]:
        """The `rows` and `baselines` of a test, for the result or for a snapshot."""
        step = None if self.is_base or step == self.recipe.max_steps else step
        name = test.name if step is None else f"{test.name}@{step}"
        key = {"test": asdict(test), "trained": self.recipe.digest}
        return self._result(name, key, lambda: self._evaluate(test, step))

    def _find(self, step: int | None) -> Any:
        from ..evaluation.subjects import find_subject

        policy = self.recipe if self.is_base else self.run
        found = find_subject(policy, RunStore(self.runs), step=step)
        return dataclasses.replace(found, load=functools.cache(found.load))

    def _evaluate(self, test: Test, step: int | None) -> dict[str, Any]:
        from ..evaluation.evaluation import evaluate

        benchmark = _benchmark(test, self.profile)
        record = evaluate(
            self.subject(step),
            benchmark,
            n=test.n,
            temperature=test.temperature,
            num_samples=test.num_samples,
            max_new_tokens=test.max_new_tokens,
            batch_size=test.batch_size,
            runs=self.runs,
        )
        spec = {
            part: {k: v for k, v in values.items() if k not in ("_ids", "_adapter", "_model")}
            for part, values in record.spec.items()
        }
        return {
            **spec,
            "environment": record.environment,
            "baselines": benchmark.grader.baselines(load_items(benchmark, test.n)),
            "rows": [_shortened({k: row.get(k) for k in _KEPT}) for row in record.rows],
        }


def _benchmark(test: Test, profile: str) -> Benchmark:
    if test.benchmark != HELD_OUT:
        return get_benchmark(test.benchmark)
    return held_out_benchmark(get_recipe(test.recipe, profile).replace(**test.changes))


def _training(run: Any) -> dict[str, Any]:
    return {
        "recipe": run.recipe.to_dict(),
        "problems": run.problems,
        "environment": run.environment,
        "seconds": round(run.seconds, 1),
        "metrics": [_shortened(row) for row in run.metrics],
        "rows": [_shortened(row) for row in run.completions],
    }


def _shortened(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with floats to six digits."""
    return {
        k: float(f"{v:.6g}") if isinstance(v, float) else v
        for k, v in row.items()
        if k not in _LEFT_OUT and not k.startswith("profiling/")
    }
