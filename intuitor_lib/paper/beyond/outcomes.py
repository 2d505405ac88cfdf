"""What training on a task gained, beside the random reward and the base."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ...problems import load_problems
from ...report import Estimate, Table, combination_over_seeds
from ..plan import TASKS, Rows
from ..trials import Trial
from ..verdicts import estimate, gain_verdict, signed, step_of
from .predictors import PREDICTORS, Samples


@dataclass(frozen=True)
class Outcome:
    """What training on a task gained: its trials by arm, the samples of the base before it.

    `steps` are those of the snapshots that were tested.
    """

    task: str
    samples: Samples
    steps: Sequence[int]
    base: Sequence[Trial]
    intuitor: Sequence[Trial]
    random: Sequence[Trial]

    @property
    def title(self) -> str:
        """For tables and figures."""
        return TASKS[self.task].title + " (held back)" * TASKS[self.task].held_back

    @property
    def example(self) -> str:
        """The first training problem, as it is asked; a slash ends a line."""
        recipe = self.base[0].recipe
        problem = load_problems(recipe).train[0].prompt
        return " / ".join(recipe.prompt_template.replace("{prompt}", problem).splitlines())

    def gain(
        self,
        test: str,
        *,
        of: str = "intuitor",
        over: str = "random",
        step: int | None = None,
        kept: bool = False,
    ) -> Estimate:
        """An arm less another one on a test: after a step, after all, or where each is `kept`.

        `kept` is after the last snapshot before its own first alarm, which needs no labels, or the
        base where there is none. A single training, or the base, is compared with each of the other
        arm's, so that the chance of one random training is in no interval.
        """

        def rows(trial: Trial) -> Rows:
            at = self._stop(trial) if kept else step
            return trial.rows(test, step_of([trial], at)) if at != 0 else self.base[0].rows(test)

        sides = ((1.0, getattr(self, of)), (-1.0, getattr(self, over)))
        return combination_over_seeds([(w, [rows(t) for t in arm]) for w, arm in sides], "correct")

    @functools.cached_property
    def outcome(self) -> Estimate:
        """The outcome of docs/protocol.md: the gain over the random reward, kept, sampled."""
        return self.gain("own_sampled", kept=True)

    def kept_at(self, arm: str) -> str:
        """The steps at which an arm's trainings are kept, for tables."""
        trials: Sequence[Trial] = getattr(self, arm)
        kept = [(trial, self._stop(trial)) for trial in trials]
        return ", ".join(str(t.recipe.max_steps if step is None else step) for t, step in kept)

    def _stop(self, trial: Trial) -> int | None:
        """The step after which a training is kept, None for its end."""
        last = trial.recipe.max_steps
        step = trial.kept([*self.steps, last])
        return None if step == last else step

    def verdict(self, test: str) -> str:
        """The verdict on a gain over the base and the random reward, by docs/protocol.md."""
        if self.base[0].profile == "smoke":
            return "not tested here"
        base, arm, coin = (estimate(a, test) for a in (self.base, self.intuitor, self.random))
        gaps = [self.gain(test, over=name) for name in ("base", "random")]
        return gain_verdict(base, arm, coin, gaps)

    @functools.cached_property
    def predictors(self) -> dict[tuple[str, bool], Estimate | None]:
        """`PREDICTORS` by name and by whether they have labels, by the base's samples."""
        return {
            (name, labels): predictor.measure(self.samples, labels)
            for name, predictor in PREDICTORS.items()
            for labels in (False, True)
        }


Outcomes = Mapping[str, Outcome]


def outcomes(
    trials: Mapping[str, Sequence[Trial]], samples: Mapping[str, Samples], steps: Sequence[int]
) -> dict[str, Outcome]:
    """Group collected trials by their task, in the order of `TASKS`; `steps` of the snapshots.

    Raises:
        ValueError: a task without a base, INTUITOR or the random reward.
    """
    arms: dict[str, dict[str, Sequence[Trial]]] = {}
    for several in trials.values():
        arm, _, task = several[0].arm.partition("/")
        arms.setdefault(task, {})[arm] = several
    needed = ("base", "intuitor", "random")
    for task, found in arms.items():
        if missing := [arm for arm in needed if arm not in found]:
            raise ValueError(f"{task}: no trials of {' and '.join(missing)}; collect them too")
    return {
        name: Outcome(name, samples[name], steps, *(arms[name][arm] for arm in needed))
        for name in TASKS
        if name in arms
    }


_BOTH = ("own_sampled", "own")


def _sizes(found: Outcomes, over: str = "INTUITOR's seeds (too narrow for two) and ") -> str:
    """The number of problems and samples, for captions."""
    rows = next(iter(found.values())).base[0].rows("own_sampled")
    n = len({row["id"] for row in rows})
    k = len(rows) // n
    return f"95 % intervals over {over}{n} problems, sampled: {k} answers each."


def tasks_table(found: Outcomes) -> Table:
    """Tabulate the tasks: what the base and no skill at all reach on them, and the training."""
    rows = []
    for outcome in found.values():
        floors, sampled = outcome.base[0].baselines["own"], outcome.base[0].rows("own_sampled")
        made = [t.training["seconds"] for t in (*outcome.intuitor, *outcome.random) if t.training]
        rows.append(
            [
                outcome.title,
                outcome.example,
                *(estimate(outcome.base, test).text() for test in ("own", "own_sampled")),
                *(f"{floors[floor]['value']:.2f}" for floor in ("echo", "most frequent answer")),
                f"{fmean(row['answer'] is None for row in sampled):.0%}",
                f"{fmean(row['tokens'] for row in sampled):.1f}",
                *(
                    ", ".join(str(t.seed) for t in arm)
                    for arm in (outcome.intuitor, outcome.random)
                ),
                f"{fmean(made):.0f}",
            ]
        )
    header = ["family", "its first problem", "base, greedy", "base, sampled", "echo"]
    header += ["most frequent answer"]
    header += ["no answer", "tokens", "seeds of INTUITOR", "of random", "seconds of a training"]
    caption = (
        f"Right answers to held-out problems, {_sizes(found, '')} No answer and tokens: of the "
        "base's samples. Seconds: mean over trainings on whatever machine made them, without tests."
    )
    return Table(header, rows, caption)


def outcomes_table(found: Outcomes) -> Table:
    """Tabulate what training gained where the rules without labels keep it, and the verdicts."""
    rows = []
    for outcome in found.values():
        sides = (("intuitor", "random"), ("intuitor", "base"), ("random", "base"))
        rows.append(
            [
                outcome.title,
                *(
                    signed(outcome.gain(test, of=arm, over=other, kept=True))
                    for arm, other in sides
                    for test in _BOTH
                ),
                f"{outcome.kept_at('intuitor')} / {outcome.kept_at('random')}",
                outcome.verdict("own_sampled"),
                outcome.verdict("own"),
            ]
        )
    pairs = ("INTUITOR less random", "INTUITOR less base", "random less base")
    header = ["family", *(f"{pair}, {kind}" for pair in pairs for kind in ("sampled", "greedy"))]
    header += ["kept at step", "verdict, sampled", "verdict, greedy"]
    caption = (
        f"Accuracy at the last snapshot before the first alarm without labels (kept: INTUITOR / "
        f"random; step 0 is the base). {_sizes(found)} The random reward has one training on each "
        "family; its chance is in no interval, and how far it moves by itself is in the columns "
        '"random less base", which are over problems alone. Verdicts by docs/protocol.md, at the '
        "end of training: over the base and the random reward."
    )
    return Table(header, rows, caption)


def steps_table(found: Outcomes) -> Table:
    """Tabulate INTUITOR less the random reward after each snapshot and at the end."""
    steps = next(iter(found.values())).steps
    every = [(f"step {step}", step) for step in steps] + [("the end", None)]
    rows = [
        [o.title, *(signed(o.gain(test, step=step)) for _, step in every for test in _BOTH)]
        for o in found.values()
    ]
    kinds = ("sampled", "greedy")
    header = ["family", *(f"{name}, {kind}" for name, _ in every for kind in kinds)]
    return Table(header, rows, f"INTUITOR less the random reward. {_sizes(found)}")
