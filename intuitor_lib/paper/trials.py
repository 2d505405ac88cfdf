"""Trials: the policies behind the notebooks, with what was measured on them.

A trial is a recipe trained under a profile and a seed, or the base it starts from. `collect`
returns trials with the tests that a notebook needs. Their results are small files without weights
(see `results`), in a folder `<recipe>-s<seed>-<digest>`:

    training.parquet   a row per completion; settings, environment, metrics of every step
    <test>.parquet     a row per completion; <test>@<step>.parquet for a snapshot

Missing ones are trained and evaluated through the run store. torch is imported only for that.
"""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation.benchmarks import HELD_OUT, Benchmark, get_benchmark, load_items
from ..evaluation.benchmarks.benchmarks import held_out_benchmark, with_math_prompt
from ..grading.sandbox import SandboxError, run_python
from ..problems import load_problems
from ..recipe import InputError, Recipe, get_recipe
from ..store import RunStore
from ..training.monitor import marked
from .plan import ARMS, SAME, SEEDS, SUITES, Rows, Test, arm_recipe, arm_seeds, is_base
from .results import find_file, read_result, result

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
Asked = tuple[Test, int | None]  # a test of the result, or of the snapshot after a step


@dataclass(frozen=True)
class Trial:
    """A policy of an experiment with its measurements.

    `baselines` are the scores without skill on each test (`Grader.baselines`), `environments` where
    each was made. `on_record`: all measurements were read, none was made now.
    """

    arm: str
    label: str
    profile: str
    recipe: Recipe
    training: Mapping[str, Any] | None = None
    tables: Mapping[tuple[str, int | None], Rows] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    on_record: bool = False
    environments: Mapping[tuple[str, int | None], Mapping[str, Any]] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The seed of the training; for a base, of the recipe that starts from it."""
        return self.recipe.seed

    @functools.cached_property
    def metrics(self) -> Rows:
        """One row per training step, with alarms by the current rules; none for a base."""
        rows = self.training["metrics"] if self.training else []
        return marked(rows, problems=self.recipe.problems_per_step)

    @functools.cached_property
    def first_alarm(self) -> int | None:
        """The step of the first alarm by rules that see no accuracy, which would silence some."""
        seen = [{k: v for k, v in row.items() if "accuracy" not in k} for row in self.metrics]
        rows = marked(seen, problems=self.recipe.problems_per_step)
        return next((row["step"] for row in rows if row.get("collapse")), None)

    def kept(self, steps: Sequence[int]) -> int:
        """The last of the steps before the first alarm without labels, 0 if none is: the base."""
        alarm = self.first_alarm
        return max((step for step in steps if alarm is None or step < alarm), default=0)

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
    base_tests: Sequence[str] = (),
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
        base_tests: more of them, for bases alone.
        steps: steps whose snapshots are evaluated on `step_tests`; a base is evaluated on them
            once, as step 0.
        step_tests: names in the profile's suite.
        seeds: seeds of the trainings, by default the profile's; fewer for arms in `SEEDS_AT_MOST`.
        retrain: ignore the results committed with the project.

    Raises:
        InputError: an unknown arm, profile or test, or something that a missing one needs and that
            is not there: problems, a benchmark, the sandbox, a snapshot; before any is made.
    """
    asked = resolve(arms, profile, tests, base_tests, steps, step_tests, seeds, retrain, runs)
    _require_what_is_missing(asked)
    trials: dict[str, list[Trial]] = {}
    for store, wanted in asked.items():
        training = None if store.is_base else store.training()
        found = {(test.name, step): store.tested(test, step) for test, step in wanted}
        store.subject.cache_clear()  # the policy leaves the memory before the next one
        tables = {key: one["rows"] for key, one in found.items()}
        known = {name: one["baselines"] for (name, _), one in found.items()}
        where = {key: one.get("environment", {}) for key, one in found.items()}
        about = (store.arm, ARMS[store.arm], profile, store.recipe)
        trial = Trial(*about, training, tables, known, store.only_read, where)
        trials.setdefault(trial.label, []).append(trial)
    return trials


def resolve(
    arms: Sequence[str],
    profile: str,
    tests: Sequence[str],
    base_tests: Sequence[str],
    steps: Sequence[int],
    step_tests: Sequence[str],
    seeds: Sequence[int] | None,
    retrain: bool,
    runs: str | Path | None,
) -> "dict[TrialStore, list[Asked]]":
    """The tests of each trial that `collect` is asked for, by its arguments."""
    for arm in arms:
        if arm not in ARMS:
            raise InputError(f"unknown arm {arm!r}: choose from {', '.join(ARMS)}")
    if profile not in SUITES:
        raise InputError(f"unknown profile {profile!r}: choose from {', '.join(SUITES)}")
    suite = SUITES[profile]
    for name in (*tests, *base_tests, *step_tests):
        if name not in suite:
            raise InputError(f"unknown test {name!r}: choose from {', '.join(suite)}")
    stores = [
        TrialStore(a, profile, s, retrain, runs) for a in arms for s in arm_seeds(a, profile, seeds)
    ]
    asked: dict[TrialStore, list[Asked]] = {}
    for store in stores:
        at = [0] if store.is_base and steps else steps
        names = [*tests, *base_tests] if store.is_base else tests
        asked[store] = [(suite[name], None) for name in names]
        asked[store] += [(suite[name], step) for step in at for name in step_tests]
    return asked


def _require_what_is_missing(asked: Mapping["TrialStore", Sequence["Asked"]]) -> None:
    """Name the results that are to be made, and check what they need: no training is in vain.

    Raises:
        InputError: lists everything that is not there.
    """
    needs: dict[str, Callable[[], Any]] = {}
    made: list[str] = []
    for store, wanted in asked.items():
        recipe = store.recipe
        if not store.is_base and store.find("training", recipe.digest) is None:
            made.append(f"{store.folder}/training")
            needs[f"problems of {store.folder}"] = functools.partial(load_problems, recipe)
        for test, step in wanted:
            if store.find(*store.key(test, step)) is None:
                made.append(f"{store.folder}/{store.key(test, step)[0]}")
                name = f"test {test.name}" + ("" if test.recipe else f" of {store.folder}")
                needs[name] = functools.partial(_try, test, store.recipe)
                if step:
                    needs[f"step {step} of {store.folder}"] = functools.partial(store.at, step)
    faults = []
    for what, load in needs.items():
        try:
            load()
        except (InputError, SandboxError) as error:
            faults.append(f"{what}: {error}")
    if faults:
        raise InputError(f"nothing was trained or tested yet: {'; '.join(faults)}")
    if made:
        print(f"not on record, made now: {', '.join(made)}", file=sys.stderr)


def _try(test: Test, recipe: Recipe) -> None:
    """Load the items of a test, and run a program if it runs any."""
    benchmark = benchmark_of(test, recipe)
    load_items(benchmark, test.n)
    if benchmark.grader.runs_code:
        run_python("pass")


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

        stores = {label: TrialStore(arm, profile, seed, True, runs) for label, arm in arms.items()}
        benchmark = benchmark_of(test, stores["base"].recipe)
        found = measure_confidence(
            {label: store.subject(None) for label, store in stores.items()},
            pairs,
            benchmark,
            n=test.n,
            num_samples=test.num_samples,
            temperature=test.temperature,
            max_new_tokens=test.max_new_tokens or benchmark.max_new_tokens,
        )
        rows = [{"pair": pair, **_shortened(r)} for pair, own in found["rows"].items() for r in own]
        return {"rows": rows, "tokens": found["tokens"]}

    trained = [arm_recipe(arm, profile, seed).digest for arm in arms.values()]
    stored = result(
        "confidence",
        make,
        profile=profile,
        key={"test": _asked(test), "trained": trained, "pairs": pairs},
        retrain=retrain,
        runs=runs,
    )
    by_pair: dict[str, Rows] = {}
    for row in stored["rows"]:
        by_pair.setdefault(row["pair"], []).append(row)
    return {"pairs": by_pair, "tokens": stored["tokens"]}


class TrialStore:
    """Read the results of a trial; make those that are missing."""

    def __init__(
        self, arm: str, profile: str, seed: int, retrain: bool, runs: str | Path | None
    ) -> None:
        self.is_base = is_base(arm)
        self.recipe = arm_recipe(arm, profile, seed)
        self.arm, self.profile, self.runs = arm, profile, runs
        self.where: dict[str, Any] = {"profile": profile, "retrain": retrain, "runs": runs}
        self.only_read = True
        self._known: dict[str, Mapping[str, Any] | None] = {}
        # The policy to evaluate is loaded once for all tests; only the last one is held.
        self.subject = functools.lru_cache(maxsize=1)(self._find)
        kind = SAME.get(arm, arm).translate({ord(":"): "-", ord("/"): "-"})
        self.folder = f"{kind}-s{seed}-{self.recipe.digest}"

    def key(self, test: Test, step: int | None) -> tuple[str, Any]:
        """The name of the record of a test, and what it must be of."""
        name = test.name if self._is_result(step) else f"{test.name}@{step}"
        trained = self.recipe.digest
        return name, {"test": _asked(test), "trained": trained, "asked": _how(test, self.recipe)}

    def _is_result(self, step: int | None) -> bool:
        return step is None or self.is_base or step == self.recipe.max_steps

    def find(self, name: str, key: Any) -> Mapping[str, Any] | None:
        """A result on record, read once."""
        if name not in self._known:
            file = find_file(f"{self.folder}/{name}", key=key, **self.where)
            self._known[name] = read_result(file) if file else None
        return self._known[name]

    def has(self, name: str, key: Any) -> bool:
        """Whether a result is on record now."""
        return find_file(f"{self.folder}/{name}", key=key, **self.where) is not None

    def _result(self, name: str, key: Any, make: Callable[[], Any]) -> Any:
        found = self.find(name, key)
        if found is None:
            self.only_read = False
            found = result(f"{self.folder}/{name}", make, key=key, **self.where)
        return found

    @functools.cached_property
    def run(self) -> Any:
        from ..training.training import train

        return train(self.recipe, runs=self.runs)

    def at(self, step: int) -> None:
        """Raise an `InputError` if the run is finished and has no snapshot of a step."""
        run = RunStore(self.runs).find(self.recipe, load_problems(self.recipe).describe())
        if run is not None:
            run.weights(step)

    def training(self) -> Mapping[str, Any]:
        """Settings, environment, metrics and completions of the training."""
        return self._result("training", self.recipe.digest, lambda: _training(self.run))

    def tested(self, test: Test, step: int | None) -> Mapping[str, Any]:
        """The `rows` and `baselines` of a test, for the result or for a snapshot."""
        at = None if self._is_result(step) else step
        return self._result(*self.key(test, step), lambda: self._evaluate(test, at))

    def _find(self, step: int | None) -> Any:
        from ..evaluation.subjects import find_subject

        policy = self.recipe if self.is_base else self.run
        return find_subject(policy, RunStore(self.runs), step=step).kept()

    def _evaluate(self, test: Test, step: int | None) -> dict[str, Any]:
        from ..evaluation.evaluation import evaluate

        benchmark = benchmark_of(test, self.recipe)
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


def _asked(test: Test) -> dict[str, Any]:
    """What decides the result of a test: not how tables call it."""
    return {key: value for key, value in asdict(test).items() if key not in ("title", "column")}


def _how(test: Test, own: Recipe) -> dict[str, Any]:
    """What a test takes from its recipe or its benchmark, as `evaluate` records it."""
    if test.benchmark == HELD_OUT:
        recipe = _recipe_of(test, own)
        limit, prompt = recipe.max_completion_length, recipe.system_prompt
    else:
        benchmark = benchmark_of(test, own)
        limit = benchmark.max_new_tokens
        prompt = benchmark.system_prompt if benchmark.chat else None
    return {"max_new_tokens": test.max_new_tokens or limit, "system_prompt": prompt}


def _recipe_of(test: Test, own: Recipe) -> Recipe:
    recipe = get_recipe(test.recipe, own.profile) if test.recipe else own
    return recipe.replace(**test.changes) if test.benchmark == HELD_OUT else recipe


def benchmark_of(test: Test, own: Recipe) -> Benchmark:
    """The benchmark of a test of a policy, asked as its recipe asked in training."""
    recipe = _recipe_of(test, own)
    if test.benchmark == HELD_OUT:
        return held_out_benchmark(recipe)
    return with_math_prompt(get_benchmark(test.benchmark), recipe.system_prompt)


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
