"""What notebooks show of trials: levels, curves, completions, snapshots, a single update."""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..grading import code_answer_type, extract_field, reasons_before_json
from ..grading.extraction import boxed_answer
from ..report import Estimate, Table, mean_over_seeds
from .plan import ARMS, SEEDS, SUITES, Rows, arm_recipe
from .results import result
from .trials import Trial
from .verdicts import change, estimate, judged, later

Trials = Mapping[str, Sequence[Trial]]


def _verdict(right: Any) -> str:
    return "right" if right else "wrong"


def describe(trials: Trials) -> Table:
    """Tabulate which trainings these are, and whether they were read or made now."""
    rows = []
    for label, several in trials.items():
        first, done = several[0], [t.training for t in several if t.training]
        seconds: dict[str, list[float]] = {}
        for training in done:
            machine = training["environment"]["device_name"]
            seconds.setdefault(machine, []).append(training["seconds"])
        rows.append(
            [
                label,
                ", ".join(str(t.seed) for t in several) if done else "-",
                first.recipe.max_steps if done else "-",
                ", ".join(f"{m} {statistics.mean(s):.0f}" for m, s in seconds.items()) or "-",
                first.recipe.digest,
                "read from records" if all(t.on_record for t in several) else "made now",
            ]
        )
    header = ["policy", "seeds", "steps", "trained on, seconds", "recipe", "results"]
    return Table(header, rows, "Seconds: mean over the seeds trained on that machine.")


def on_task(trials: Trials) -> dict[str, Sequence[Trial]]:
    """Trials of one task, by the labels that their arms have on other problems."""
    return {ARMS[several[0].arm.partition("/")[0]]: several for several in trials.values()}


def levels(trials: Trials, tests: Sequence[str], profile: str) -> dict[str, dict[str, Estimate]]:
    """Accuracies of the tests that are judged, by title and by policy, for `compare_methods`."""
    suite = SUITES[profile]
    return {
        suite[test].heading: {
            label: estimate(several, test)
            for label, several in trials.items()
            if judged(several, test)
        }
        for test in tests
        if any(judged(several, test) for several in trials.values())
    }


def contrasts(trials: Trials, tests: Sequence[str], profile: str) -> dict[str, dict[str, Estimate]]:
    """Differences in accuracy to the base and to the random reward, paired, for `compare_methods`.

    A panel for each test and each of the two; without the arm `random`, the base alone.
    """
    panels = {}
    for test in tests:
        for other in ("base", "random"):
            panels[f"{SUITES[profile][test].heading}, less {other}"] = {
                label: change(trials[other], several, test)
                for label, several in trials.items()
                if other in trials and label not in ("base", other)
            }
    return {title: estimates for title, estimates in panels.items() if estimates}


def levels_over_steps(
    trials: Trials, test: str, steps: Sequence[int]
) -> dict[str, dict[int, Estimate]]:
    """Accuracies of a test by policy and step, from the base at step 0 to the result."""
    start = estimate(trials["base"], test, step=0)
    return {
        label: {
            0: start,
            **{step: estimate(several, test, step=step) for step in steps},
            several[0].recipe.max_steps: estimate(several, test),
        }
        for label, several in trials.items()
        if label != "base"
    }


def gains_table(trials: Trials, profile: str, tests: Sequence[str], *, middle: int) -> Table:
    """Tabulate the gains of each policy before and after a step in the middle of training."""
    suite, rows = SUITES[profile], []
    for label, several in trials.items():
        for test in tests if label != "base" else ():
            first = change(trials["base"], several, test, step=middle)
            rest = later(several, test, middle)
            rows.append([label, suite[test].heading, first.text(), rest.text()])
    last = next(s[0].recipe.max_steps for s in trials.values() if s[0].training)
    n = {suite[t].heading: len({r["id"] for r in trials["base"][0].rows(t)}) for t in tests}
    seeds = sorted({t.seed for s in trials.values() for t in s if t.training})
    header = ["policy", "problems", f"step 0 to {middle}", f"step {middle} to {last}"]
    return Table(
        header,
        rows,
        f"Differences in accuracy, paired, with 95 % intervals; profile {profile}, seeds "
        f"{seeds}; {', '.join(f'{title}: n = {k}' for title, k in n.items())}.",
    )


def curves(trials: Trials) -> dict[str, list[Rows]]:
    """The metrics of every training by policy, for `seed_curves`."""
    return {
        label: [trial.metrics for trial in several]
        for label, several in trials.items()
        if several[0].training
    }


def completions_table(trials: Trials, *, most: int = 4) -> Table:
    """Tabulate completions of the first problem of the first, a middle and the last step.

    Equal ones of the group are counted; the `most` frequent are shown.
    """
    rows = []
    for label, (first, *_) in trials.items():
        if not first.training:
            continue
        made, last = first.training["rows"], first.recipe.max_steps
        for step in dict.fromkeys((1, (last + 1) // 2, last)):
            of_step = [row for row in made if row["step"] == step]
            group = [row for row in of_step if row["problem"] == of_step[0]["problem"]]
            count = Counter(
                (row["completion"], row.get("accuracy"), round(row["self_certainty"], 1))
                for row in group
            )
            shown = [
                f"{n} × {text!r} ({_verdict(right)}, {nats:.1f} nats)"
                for (text, right, nats), n in count.most_common(most)
            ]
            rows.append([label, step, group[0]["prompt"], "; ".join(shown)])
    caption = f"The first seed of each policy; the {most} most frequent completions of a group."
    return Table(["policy", "step", "prompt", "completions"], rows, caption)


_FORMS: Mapping[str, Mapping[str, Callable[[str], float]]] = {
    "reasoning_sampled": {
        "answers in a box": lambda text: float(boxed_answer(text) is not None),
        "words before the last box": lambda text: float(len(text.rpartition("\\boxed")[0].split())),
    },
    "structured": {
        "answers in JSON": lambda text: float(extract_field(text) is not None),
        "free text before it": lambda text: float(reasons_before_json(text)),
    },
    "code": {
        "valid code": lambda text: float(code_answer_type(text) != "no answer"),
        "reasoning before it": lambda text: float(code_answer_type(text) == "reasoning"),
    },
}


def forms_table(trials: Trials, profile: str, test: str) -> Table:
    """Tabulate the form of the answers to a test: reasoning, JSON, code, and what comes before it.

    `test` is "reasoning_sampled", "structured" or "code".
    """
    rows = []
    for label, several in trials.items():
        tables = [trial.rows(test) for trial in several]
        cells = []
        for form, measure in _FORMS[test].items():
            found = [[{**r, form: measure(r["completion"])} for r in own] for own in tables]
            cells.append(mean_over_seeds(found, form).text())
        right, tokens = (mean_over_seeds(tables, column) for column in ("correct", "tokens"))
        step = several[0].recipe.max_steps if several[0].training else 0
        rows.append([label, step, *cells, tokens.text(0), right.text()])
    title = SUITES[profile][test].heading
    n = len({row["id"] for s in trials.values() for row in s[0].rows(test)})
    return Table(
        ["policy", "step", *_FORMS[test], "tokens", "right"],
        rows,
        f"Profile {profile}, {title}, n = {n}; 95 % intervals over seeds and problems.",
    )


def kept_without_labels(trials: Trials, test: str, steps: Sequence[int]) -> Table:
    """Tabulate which snapshot the monitor would have kept, beside the last and the best one.

    The monitor sees no labels (`Trial.first_alarm`). It keeps the last snapshot before its first
    alarm, the result where there is none.
    """
    rows = []
    for label, several in trials.items():
        for trial in several if several[0].training else ():
            last = trial.recipe.max_steps
            found = {s: estimate([trial], test, step=s) for s in steps}
            found[last] = estimate([trial], test)
            shown = {s: f"step {s}: {e.text()}" for s, e in found.items()}
            best = shown[max(found, key=lambda s: found[s].value)]
            first = f"step {trial.first_alarm}" if trial.first_alarm else "none"
            kept = shown.get(trial.kept([*found]), "the base")
            rows.append([label, trial.seed, first, kept, shown[last], best])
    header = ["policy", "seed", "first alarm without labels", "kept", "last", "best, by labels"]
    return Table(header, rows, "Accuracy on held-out problems, 95 % intervals over problems.")


def one_update(
    profile: str, *, retrain: bool = False, runs: str | Path | None = None
) -> dict[str, Any]:
    """Train INTUITOR for one step at its full learning rate, and see what it did.

    Returns:
        `rows`, one per completion of the step's first group, with `prompt`, `completion`,
        `accuracy`, `self_certainty` and `token_self_certainty` (nats), `advantage` (eq. 6), and
        `log_prob` and `log_prob_after`, its log-probabilities (nats) before and after the update.
    """
    seed = SEEDS[profile][0]
    recipe = arm_recipe("intuitor", profile, seed).replace(
        name="one-update", max_steps=1, warmup_ratio=0.0, eval_steps=None, snapshot_steps=None
    )

    def make() -> dict[str, Any]:
        from ..certainty import completion_log_probs
        from ..policy import load_policy, load_run
        from ..problems.prompts import messages, prompt_token_ids
        from ..training.training import train

        run = train(recipe, runs=runs)
        rows = [{**row} for row in run.completions if "token_ids" in row]
        asked = [messages(row["prompt"], recipe.system_prompt) for row in rows]
        made = [row["token_ids"] for row in rows]
        loads = {"log_prob": partial(load_policy, recipe), "log_prob_after": partial(load_run, run)}
        for name, load in loads.items():
            model, tokenizer = load()
            prompts = prompt_token_ids(tokenizer, asked)
            scores = completion_log_probs(model, prompts, made, temperature=recipe.temperature)
            for row, score in zip(rows, scores, strict=True):
                row[name] = float(score.sum())
        return {"rows": rows}

    return result(
        "one_update", make, profile=profile, key=recipe.digest, retrain=retrain, runs=runs
    )


def update_table(update: Mapping[str, Any]) -> Table:
    """Tabulate a group of `one_update`: rewards, advantages, and what became of the completions."""
    lines = [
        [
            repr(row["completion"]),
            _verdict(row["accuracy"]),
            " ".join(f"{value:.1f}" for value in row["token_self_certainty"]),
            f"{row['self_certainty']:.2f}",
            f"{row['advantage']:+.2f}",
            f"{row['log_prob']:.2f}",
            f"{row['log_prob_after']:.2f}",
            f"{row['log_prob_after'] - row['log_prob']:+.2f}",
        ]
        for row in sorted(update["rows"], key=lambda row: -row["self_certainty"])
    ]
    header = ["completion", "is", "self-certainty of its tokens (nats)", "reward u", "advantage"]
    return Table(
        [*header, "log-probability before", "after", "change"],
        lines,
        f"{update['rows'][0]['prompt']!r}. Surest first; log-probabilities in nats, of the whole "
        "completion with its end, at the temperature of training.",
    )


def token_examples(
    measured: Mapping[str, Any], pairs: Sequence[str], *, most: int = 2
) -> list[tuple[str, Sequence[str], Sequence[float]]]:
    """Completions of `confidence` with their tokens' self-certainty, for `token_text`."""
    return [
        (
            f"{pair.partition(' → ')[0]}, {_verdict(one['correct'])}: {one['prompt']}",
            one["text"],
            one["self_certainty"],
        )
        for pair in pairs
        for one in measured["tokens"][pair][:most]
    ]
