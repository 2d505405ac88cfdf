"""The trainings and tests behind the notebooks: asked for by name, done once, shared by all.

A *trial* is one policy of an experiment: a recipe trained under a profile and a seed, or the base
it starts from. `collect` gives trials with what a notebook needs of them. Their results are small
files without weights:

    data/results/<profile>/<recipe>-s<seed>-<digest>/   committed with the project
    runs/results/<profile>/...                          of this machine
        training.json        settings, environment, metrics of every step, some completions
        <test>.json          a row per completion; <test>@<step>.json of a snapshot

Committed ones are read, unless `retrain` is asked for; what is missing is trained and evaluated,
through the run store, which does nothing twice. Nothing here imports torch before it must.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import write_text
from .monitor import marked
from .recipe import InputError, Recipe
from .recipes import get_recipe
from .runs import RunStore, data_folder

if TYPE_CHECKING:
    from .benchmarks import Benchmark

__all__ = [
    "ARMS",
    "PLAN",
    "SEEDS",
    "SUITES",
    "Test",
    "Trial",
    "collect",
    "held_out",
    "keep",
    "planned",
    "result",
    "subject",
]

Rows = list[dict[str, Any]]

HELD_OUT = "held_out"
"""As a benchmark: the problems that the recipe `intuitor` holds out."""

ARMS: Mapping[str, str] = types.MappingProxyType(
    {
        "base": "base",
        "grpo": "GRPO",
        "grpo-pv": "GRPO-PV",
        "intuitor": "INTUITOR",
        "random": "random",
        "em": "EM",
        "intuitor-code": "INTUITOR-Code",
        "grpo-code": "GRPO-Code",
        "kl-0": "β = 0",
        "kl-0.0001": "β = 0.0001",
        "kl-0.005": "β = 0.005",
        "kl-0.01": "β = 0.01",
        "online": "online",
        "offline": "offline",
        "base:unquantized": "base, not quantized",
        "unquantized": "INTUITOR, not quantized",
    }
)
"""What a notebook can ask for, and its label: recipes, and the bases that they start from."""

SEEDS: Mapping[str, tuple[int, ...]] = types.MappingProxyType(
    {"smoke": (7,), "cpu": (7, 8, 9), "gpu-12gb": (7,), "gpu-24gb": (7,), "paper": (7,)}
)
"""Seeds of the main comparison; everything else is trained with the first of them."""

SAME: Mapping[str, str] = types.MappingProxyType({"kl-0.005": "intuitor"})
"""Arms that are the same training as another one."""

MAIN = ("grpo", "grpo-pv", "intuitor", "random")
"""Trained with every seed."""

PLAN: Mapping[str, tuple[str, ...]] = types.MappingProxyType(
    {
        "00_quickstart": (),
        "01_self_certainty": ("grpo", "intuitor"),
        "02_main_results": (*MAIN, "intuitor-code"),
        "03_early_learning": ("grpo", "intuitor"),
        "04_transfer": ("grpo", "intuitor"),
        "05_emergent_reasoning": ("grpo", "intuitor", "intuitor-code"),
        "06_online_vs_offline": ("online", "offline"),
        "07_kl_penalty": ("kl-0", "kl-0.0001", "kl-0.005", "kl-0.01"),
        "08_model_families": (),
        "09_reward_controls": (*MAIN, "em", "unquantized"),
    }
)
"""The trainings of each notebook. Most are shared."""


@dataclass(frozen=True)
class Test:
    """Problems put to a policy, in one way of decoding.

    Args:
        name: what notebooks ask for.
        benchmark: a name of `BENCHMARKS`, or `HELD_OUT`.
        title: in tables.
        n: items; None is all.
        temperature: 0 is greedy.
        num_samples: completions an item.
        max_new_tokens: limit of a completion; None is the benchmark's.
        column: the column of the paper's tables that it measures; None of a stand-in.
        prompt_template: of `HELD_OUT`, instead of the recipe's.
    """

    __test__ = False  # for pytest

    name: str
    benchmark: str
    title: str
    n: int | None = None
    temperature: float = 0.0
    num_samples: int = 1
    max_new_tokens: int | None = None
    column: str | None = None
    prompt_template: str | None = None


def _suite(*tests: Test) -> Mapping[str, Test]:
    return types.MappingProxyType({test.name: test for test in tests})


_PRODUCTS, _SUMS = "products, held out", "sums (chain_sum)"
_GPU_SUITE = _suite(
    Test("in_domain", "math500", "MATH500", column="MATH500"),
    Test("in_domain_sampled", "math500", "MATH500, sampled", 100, 0.9, 4),
    Test("transfer", "livecodebench", "LiveCodeBench v6", column="LCB"),
    Test("gsm8k", "gsm8k", "GSM8K", column="GSM8K"),
    Test("structured", "cruxeval", "CRUXEval-O", column="CRUX"),
    Test("mmlu_pro", "mmlu_pro", "MMLU-Pro", column="MMLU-Pro"),
    Test("instructions", "alpaca_eval", "AlpacaEval 2.0", column="AlpacaEval"),
    Test("code", "livecodebench", "LiveCodeBench v6, ten problems", 10),
    Test("signal", "math500", "MATH500, 16 samples", 100, 0.9, 16),
    Test("cool", "math500", "MATH500, T = 0.3", 100, 0.3, 2),
    Test("longer", "math500", "MATH500, limit 6,144", 100, 0.9, 2, 6144),
    Test("plain", "math500", "MATH500, second draw", 100, 0.9, 2),
)
SUITES: Mapping[str, Mapping[str, Test]] = types.MappingProxyType(
    {
        "smoke": _suite(
            Test("in_domain", HELD_OUT, _PRODUCTS, 2, max_new_tokens=4),
            Test("in_domain_sampled", HELD_OUT, f"{_PRODUCTS}, sampled", 2, 0.9, 2, 4),
            Test("transfer", "chain_sum", _SUMS, 2, max_new_tokens=4),
            Test("structured", "program_output", "program_output", 2, max_new_tokens=4),
            Test("instructions", "instructions", "instructions", 2, max_new_tokens=4),
            Test("code", "programs", "programs, two problems", 2, max_new_tokens=4),
            Test("signal", HELD_OUT, f"{_PRODUCTS}, sampled", 4, 0.9, 4, 8),
            Test("cool", HELD_OUT, f"{_PRODUCTS}, T = 0.3", 2, 0.3, 2, 4),
            Test("longer", HELD_OUT, f"{_PRODUCTS}, limit 6", 2, 0.9, 2, 6),
            Test("plain", HELD_OUT, f"{_PRODUCTS}, as they are", 2, 0.9, 2, 4, None, "{prompt}"),
        ),
        "cpu": _suite(
            Test("in_domain", HELD_OUT, _PRODUCTS, 50, max_new_tokens=40),
            Test("in_domain_sampled", HELD_OUT, f"{_PRODUCTS}, sampled", 50, 0.9, 2, 40),
            Test("transfer", "chain_sum", _SUMS, 64, max_new_tokens=40),
            Test("structured", "program_output", "program_output", 24, max_new_tokens=96),
            Test("instructions", "instructions", "instructions", 40, max_new_tokens=64),
            Test("code", "programs", "programs, ten problems", 10, max_new_tokens=128),
            Test("signal", HELD_OUT, f"{_PRODUCTS}, sampled", 50, 0.9, 8, 40),
            Test("cool", HELD_OUT, f"{_PRODUCTS}, T = 0.3", 50, 0.3, 2, 40),
            Test("longer", HELD_OUT, f"{_PRODUCTS}, limit 96", 50, 0.9, 1, 96),
            Test("plain", HELD_OUT, f"{_PRODUCTS}, as they are", 50, 0.9, 2, 40, None, "{prompt}"),
        ),
        "gpu-12gb": _GPU_SUITE,
        "gpu-24gb": _GPU_SUITE,
        "paper": _GPU_SUITE,
    }
)
"""The tests of each profile, by name. Only the GPU profiles have the paper's benchmarks."""

_KEPT = ("id", "sample", "correct", "tokens", "clipped", "self_certainty", "answer", "completion")
_LONGEST_KEPT = 400  # characters of a completion
_METRICS_LEFT_OUT = ("epoch", "num_tokens", "learning_rate")


@dataclass(frozen=True)
class Trial:
    """One policy of an experiment, with what was measured on it.

    `on_record` says that all of it was found, and nothing trained or evaluated for it now.
    """

    arm: str
    label: str
    profile: str
    recipe: Recipe
    training: Mapping[str, Any] | None = None
    tables: Mapping[tuple[str, int | None], Rows] = field(default_factory=dict)
    on_record: bool = False

    @property
    def seed(self) -> int:
        """Of the training; of a base, that of the recipe that starts from it."""
        return self.recipe.seed

    @property
    def metrics(self) -> Rows:
        """One row per training step, with the alarms of today's rules; none of a base."""
        rows = self.training["metrics"] if self.training else []
        return marked(rows, problems=self.recipe.problems_per_step)

    @property
    def completions(self) -> Rows:
        """Completions kept in training; none of a base."""
        return list(self.training["completions"]) if self.training else []

    def rows(self, test: str, step: int | None = None) -> Rows:
        """The completions of a test: of the result, or of the snapshot after a step.

        Raises:
            KeyError: it was not asked for in `collect`.
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
    """Trials by label, one for each seed; what is not on record is trained and evaluated now.

    Args:
        arms: names of `ARMS`.
        profile: of `PROFILES`.
        tests: names of the profile's suite, put to every result.
        steps: steps whose snapshots take the `step_tests`, too; a base takes them once, as step 0.
        step_tests: names of the profile's suite.
        seeds: of the trainings; by default `SEEDS` for those of `MAIN`, the first for others.
        retrain: do not read the results that come with the project.
        runs: the run store.

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
        for seed in _seeds(arm, profile, seeds):
            store = _Store(arm, profile, seed, retrain, runs)
            training = None if store.is_base else store.training()
            tables: dict[tuple[str, int | None], Rows] = {}
            for name in tests:
                tables[name, None] = store.rows(suite[name], None)
            for step in (0,) if store.is_base and steps else steps:
                for name in step_tests:
                    tables[name, step] = store.rows(suite[name], None if store.is_base else step)
            trial = Trial(arm, ARMS[arm], profile, store.recipe, training, tables, store.only_read)
            trials.setdefault(trial.label, []).append(trial)
    return trials


def _seeds(arm: str, profile: str, seeds: Sequence[int] | None) -> Sequence[int]:
    given = SEEDS[profile] if seeds is None else seeds
    return given if arm in MAIN else given[:1]


def confidence(
    profile: str, *, retrain: bool = False, runs: str | Path | None = None
) -> dict[str, Any]:
    """What `measure_confidence` finds of base, GRPO and INTUITOR on the test `signal`.

    The four pairs of generator and grader of the paper's Figure 8, the first seed's policies.
    """
    test, seed = SUITES[profile]["signal"], SEEDS[profile][0]
    arms = {"base": "base", "GRPO": "grpo", "INTUITOR": "intuitor"}
    pairs = {"base": ["base", "INTUITOR"], "GRPO": ["GRPO"], "INTUITOR": ["INTUITOR"]}

    def make() -> dict[str, Any]:
        from .benchmarks import get_benchmark
        from .confidence import measure_confidence

        benchmark = _benchmark(test, profile)
        return measure_confidence(
            {label: subject(arm, profile, runs=runs) for label, arm in arms.items()},
            pairs,
            get_benchmark(benchmark) if isinstance(benchmark, str) else benchmark,
            n=test.n,
            num_samples=test.num_samples,
            temperature=test.temperature,
            max_new_tokens=test.max_new_tokens or 1024,
        )

    trained = [_recipe(arm, profile, seed).digest for arm in arms.values()]
    return result(
        "confidence",
        make,
        profile=profile,
        key={"test": asdict(test), "trained": trained, "pairs": pairs},
        retrain=retrain,
        runs=runs,
    )


def subject(
    arm: str, profile: str, *, seed: int | None = None, runs: str | Path | None = None
) -> Any:
    """An arm's policy, as `evaluation.evaluate` and `confidence.measure_confidence` take it.

    It is trained now if the run store has not got it. The seed is the profile's first by default.
    """
    seed = SEEDS[profile][0] if seed is None else seed
    return _Store(arm, profile, seed, True, runs).subject(None)


def planned(profile: str) -> dict[str, Recipe]:
    """Every training of the notebooks under a profile, once each, by recipe digest."""
    arms = dict.fromkeys(SAME.get(arm, arm) for names in PLAN.values() for arm in names)
    recipes = [_recipe(arm, profile, seed) for arm in arms for seed in _seeds(arm, profile, None)]
    return {recipe.digest: recipe for recipe in recipes}


def result(
    name: str,
    make: Callable[[], Any],
    *,
    profile: str,
    key: Any = None,
    retrain: bool = False,
    runs: str | Path | None = None,
) -> Any:
    """A JSON-ready result by name: the one on record, else what `make` returns, recorded.

    Args:
        name: of its file, with `/` between folders.
        make: makes it.
        profile: under which it is kept.
        key: JSON-ready; a record made with another key does not count.
        retrain: do not read the results that come with the project.
        runs: the run store.
    """
    key = json.loads(json.dumps(key))
    for path in _places(name, profile, retrain, runs):
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["key"] == key:
                return found["result"]
    value = make()
    write_text(_places(name, profile, True, runs)[0], _dump({"key": key, "result": value}))
    return json.loads(json.dumps(value))


def _places(name: str, profile: str, retrain: bool, runs: str | Path | None) -> list[Path]:
    """Files of a result: the committed one unless `retrain`, and that of the run store."""
    stored = RunStore(runs).root / "results" / profile / f"{name}.json"
    committed = _committed(profile)
    return [stored] if retrain or committed is None else [committed / f"{name}.json", stored]


def _committed(profile: str) -> Path | None:
    data = data_folder()
    return None if data is None else data / "results" / profile


def _dump(value: Mapping[str, Any]) -> str:
    """JSON with a line for each column and each step, so that changes can be read."""

    def lines(value: Any, depth: int) -> str:
        pad = " " * depth
        if isinstance(value, Mapping) and depth < 3 and value:
            parts = [f"{pad} {json.dumps(k)}: {lines(v, depth + 1)}" for k, v in value.items()]
            return "{\n" + ",\n".join(parts) + f"\n{pad}}}"
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return "[\n" + ",\n".join(f"{pad} {_text(item)}" for item in value) + f"\n{pad}]"
        return _text(value)

    return lines(value, 0) + "\n"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def keep(
    profile: str, notebooks: Sequence[str] = (), *, runs: str | Path | None = None
) -> list[Path]:
    """Copy results and notebook records of the run store into the project's data folder.

    Args:
        profile: whose.
        notebooks: only the records of these, and no results; by default all of both.
        runs: the run store.

    Returns:
        The files written.

    Raises:
        InputError: there is no project around, or nothing to keep.
    """
    target, root = _committed(profile), RunStore(runs).root
    if target is None:
        raise InputError("no project here: keep results from within a clone of it")
    results = root / "results" / profile
    copies = {
        source: target / source.relative_to(results)
        for source in sorted(results.rglob("*.json"))
        if not notebooks
    }
    copies |= {
        source: target.parent.parent / "records" / source.name
        for source in sorted((root / "records").glob(f"*-{profile}.json"))
        if not notebooks or source.stem.startswith(tuple(notebooks))
    }
    if not copies:
        raise InputError(f"{root} holds no results under {profile}: execute the notebooks first")
    for source, copy in copies.items():
        write_text(copy, source.read_text(encoding="utf-8"))
    return [*copies.values()]


# --- One trial ------------------------------------------------------------------------------


def _recipe(arm: str, profile: str, seed: int) -> Recipe:
    name = arm.partition(":")[2] or ("intuitor" if arm == "base" else arm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of beta = 0, which is the question
        return get_recipe(name, profile, seed=seed)


class _Store:
    """Reads a trial's results, and makes those that are missing."""

    def __init__(
        self, arm: str, profile: str, seed: int, retrain: bool, runs: str | Path | None
    ) -> None:
        self.is_base = arm.startswith("base")
        self.recipe = _recipe(arm, profile, seed)
        self.profile, self.retrain, self.runs = profile, retrain, runs
        self.only_read = True
        self._subject: tuple[int | None, Any] | None = None
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
        from .trainer import train

        return train(self.recipe, runs=self.runs)

    def training(self) -> Mapping[str, Any]:
        """Settings, environment, metrics and completions of the training."""
        return self._result("training", self.recipe.digest, lambda: _training(self.run))

    def rows(self, test: Test, step: int | None) -> Rows:
        """The rows of a test, of the result or a snapshot."""
        last = step is None or step == self.recipe.max_steps
        at = "" if last else f"@{step}"
        key = {"test": asdict(test), "trained": self.recipe.digest}
        found = self._result(
            f"{test.name}{at}", key, lambda: self._evaluate(test, None if last else step)
        )
        return _as_rows(found["rows"])

    def subject(self, step: int | None) -> Any:
        """The policy to evaluate, loaded once for all tests; only the last one is held."""
        if self._subject is None or self._subject[0] != step:
            from .subjects import find_subject

            policy = self.recipe if self.is_base else self.run
            found = find_subject(policy, RunStore(self.runs), step=step)
            found = dataclasses.replace(found, load=functools.cache(found.load))
            self._subject = step, found
        return self._subject[1]

    def _evaluate(self, test: Test, step: int | None) -> dict[str, Any]:
        from .evaluation import evaluate

        record = evaluate(
            self.subject(step),
            _benchmark(test, self.profile),
            n=test.n,
            temperature=test.temperature,
            num_samples=test.num_samples,
            max_new_tokens=test.max_new_tokens,
            runs=self.runs,
        )
        spec = {
            part: {k: v for k, v in values.items() if k not in ("_ids", "_adapter", "_model")}
            for part, values in record.spec.items()
        }
        return {**spec, "environment": record.environment, "rows": _as_columns(record.rows)}


def _benchmark(test: Test, profile: str) -> Benchmark | str:
    if test.benchmark != HELD_OUT:
        return test.benchmark
    recipe = get_recipe("intuitor", profile)
    template = test.prompt_template or recipe.prompt_template
    return held_out(recipe.replace(prompt_template=template))


def _training(run: Any) -> dict[str, Any]:
    return {
        "recipe": run.recipe.to_dict(),
        "problems": run.problems,
        "environment": run.environment,
        "seconds": round(run.seconds, 1),
        "metrics": [
            {
                k: _short(v)
                for k, v in row.items()
                if k not in _METRICS_LEFT_OUT and not k.startswith("profiling/")
            }
            for row in run.metrics
        ],
        "completions": [
            {k: _short(v) for k, v in row.items() if k != "prompt"} for row in run.completions
        ],
    }


def _short(value: Any) -> Any:
    """Floats to six digits, long texts cut."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value[:_LONGEST_KEPT] if isinstance(value, str) else value


def _as_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Of several completions of an item, only the first keeps its text."""
    return {
        column: [
            None if column == "completion" and row["sample"] else _short(row.get(column))
            for row in rows
        ]
        for column in _KEPT
    }


def _as_rows(columns: Mapping[str, Sequence[Any]]) -> Rows:
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def held_out(recipe: Recipe) -> Benchmark:
    """A recipe's held-out problems as a benchmark, asked as in training.

    Raises:
        DataError: the problems cannot be had, or none is held out.
    """
    from .benchmarks import Benchmark
    from .data import DataError, load_problems
    from .graders import Item, MathGrader
    from .prompts import conversation
    from .sources import Embedded

    problems = load_problems(recipe).held_out
    if not problems:
        raise DataError(f"recipe {recipe.name!r} holds no problem out: set eval_problems")
    family = recipe.dataset.rpartition(":")[2]

    def make(n: int, seed: int) -> list[dict[str, Any]]:
        return [{"id": p.id, "prompt": p.prompt, "answer": p.answer} for p in problems[:n]]

    def to_item(row: Any) -> Item:
        prompt = conversation(row["prompt"], recipe)[-1]["content"]
        return Item(row["id"], row["prompt"], prompt, row["answer"])

    return Benchmark(
        name=f"{HELD_OUT}_{family}",
        title=f"{family}, held out",
        source=Embedded(make, f"held-out problems of {recipe.dataset}", len(problems)),
        to_item=to_item,
        grader=MathGrader(last_number=recipe.last_number),
        licence="as its source",
        max_new_tokens=recipe.max_completion_length,
        system_prompt=recipe.system_prompt,
    )
