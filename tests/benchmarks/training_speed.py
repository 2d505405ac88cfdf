"""How fast and how small a training step is, beside stock TRL on the same machine.

Every figure is a ratio of two measurements of the same call, so that it depends on the code and
little on the machine. The baseline is `trl.GRPOTrainer` with `SelfCertaintyReward` on the same
policy: gradient checkpointing off, the dtype that the device multiplies fastest, adapters in that
dtype, and the fastest of some micro-batches.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import transformers
import trl
from scoring_memory import scoring_peak
from sums import SUMS
from transformers.trainer_callback import PrinterCallback
from two_processes import compare_processes

from intuitor_lib.policy.adapters import ignore_renames
from intuitor_lib.policy.linear import speed_up_linears
from intuitor_lib.policy.loading import Policy, compute_dtype, load_policy, product_seconds
from intuitor_lib.problems.problems import load_problems
from intuitor_lib.problems.prompts import conversation, prompt_token_ids, to_dataset
from intuitor_lib.recipe.constants import InputError
from intuitor_lib.recipe.recipe import Recipe
from intuitor_lib.recipe.recipes import get_recipe
from intuitor_lib.report import Table
from intuitor_lib.report.progress import quiet_transformers
from intuitor_lib.rollouts.sampling import sample_completions
from intuitor_lib.store.processes import join
from intuitor_lib.training.rewards.answers import AccuracyReward
from intuitor_lib.training.rewards.confidence import SelfCertaintyReward
from intuitor_lib.training.trainer import IntuitorTrainer, grpo_config

__all__ = ["MEASURES", "Figure", "measure_speed", "now", "train_step", "write_figures"]

_COMPLETIONS = 64
_MICRO_BATCHES = (8, 16, 32)
_ROUNDS = 2
_LENGTHS = (32, 96, 256)  # tokens


@dataclass(frozen=True)
class Figure:
    """A measured figure with its goal, "" for none."""

    name: str
    value: float
    goal: str = ""
    met: bool | None = None
    detail: str = ""


def _figure(name: str, value: float, goal: str, detail: str = "") -> Figure:
    sign, _, bound = goal.partition(" ")
    met = value >= float(bound) if sign == ">=" else value <= float(bound)
    return Figure(name, value, goal, met, detail)


def measure_speed(names: Sequence[str] = (), say: Callable[[str], None] = print) -> list[Figure]:
    """The figures of the named `MEASURES`, by default all; `say` prints the progress.

    Raises:
        InputError: an unknown name.
    """
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise InputError(f"unknown measure {unknown[0]!r}: choose from {', '.join(MEASURES)}")
    figures: list[Figure] = []
    for name, measure in MEASURES.items():
        if not names or name in names:
            say(f"measuring {name}: {(measure.__doc__ or '').partition('. ')[0].rstrip('.')}")
            start = time.perf_counter()
            found = measure()
            for figure in found:
                say(f"  {figure.name}: {figure.value:.3g}  {figure.detail}")
            say(f"  {time.perf_counter() - start:.0f} s")
            figures += found
            gc.collect()
    return figures


def write_figures(figures: Sequence[Figure], path: Path) -> None:
    """Figures as a JSON list of `{name, value, goal, met, detail}`, then machine and versions."""
    device = join().device
    machine = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "fast_dtype": str(compute_dtype("auto", device)).removeprefix("torch."),
    }
    packages = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    rows = [asdict(figure) for figure in figures]
    for name, value in (("machine", machine), ("versions", versions)):
        rows.append({"name": name, "value": value, "goal": "", "met": None, "detail": ""})
    path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _recipe(quantization: str, **changes: Any) -> Recipe:
    """64 completions of at most 64 tokens to single-digit sums, G = 8, LoRA r = 16, KL 0.005."""
    settings = {
        **SUMS,
        "quantization": quantization,
        "max_completion_length": 64,
        "num_generations": 8,
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 4,
        "beta": 0.005,
        "lora_r": 16,
        "gradient_checkpointing": False,
    }
    return get_recipe("quickstart", "cpu", **{**settings, **changes})


def _in_micro_batches(recipe: Recipe, size: int) -> Recipe:
    return recipe.replace(
        per_device_train_batch_size=size, gradient_accumulation_steps=_COMPLETIONS // size
    )


class _Clock(transformers.TrainerCallback):
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._start = now()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(now() - self._start)


def now() -> float:
    """Seconds of a clock, when the device has done what it was asked to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass
class _Step:
    """Seconds of one training step, in total and by part."""

    seconds: float
    parts: dict[str, float]
    mean_length: float


def train_step(
    recipe: Recipe, *, stock: bool, reward: str = "self_certainty", full_length: bool = False
) -> _Step:
    """One update of a fresh policy. `full_length`: no token ends a completion."""
    policy = load_policy(recipe)
    rewards = {
        "self_certainty": lambda: SelfCertaintyReward(
            policy.model, policy.tokenizer, batch_size=recipe.per_device_train_batch_size
        ),
        "accuracy": lambda: AccuracyReward(extraction="last_number"),
    }
    problems = load_problems(recipe).train
    with tempfile.TemporaryDirectory() as folder, quiet_transformers(), ignore_renames():
        args = grpo_config(recipe, folder, policy.model.device)
        args.max_steps, args.save_strategy = 1, "no"
        clock = _Clock()
        trainer_class = trl.GRPOTrainer if stock else IntuitorTrainer
        trainer = trainer_class(
            policy.model,
            reward_funcs=[rewards[reward]()],
            args=args,
            train_dataset=to_dataset(problems, recipe),
            processing_class=policy.tokenizer,
            callbacks=[clock],
        )
        if stock:
            _adapters_in_compute_dtype(policy)
        if full_length:
            trainer.eos_token_ids = []
        trainer.remove_callback(PrinterCallback)
        parts = _time_parts(trainer)
        trainer.train()
    logged = next(row for row in trainer.state.log_history if "reward" in row)
    parts["backward and the rest"] = clock.seconds[0] - sum(parts.values())
    return _Step(clock.seconds[0], parts, logged["completions/mean_length"])


def _adapters_in_compute_dtype(policy: Policy) -> None:
    """Undo TRL's cast of 4-bit models' adapters to bf16, which many CPUs multiply very slowly."""
    dtype = compute_dtype("auto", policy.model.device)
    for parameter in policy.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


_PARTS = {
    "_generate_single_turn": "rollouts",
    "_calculate_rewards": "reward",
    "_get_per_token_logps_and_entropies": "forward",
}


def _time_parts(trainer: Any) -> dict[str, float]:
    """Seconds in the methods of `_PARTS`; the forward passes apart with and without gradient."""
    seconds: dict[str, float] = {}

    def timed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            part = _PARTS[name]
            if part == "forward":
                part = "forward of the update" if torch.is_grad_enabled() else "reference"
            start = now()
            result = method(*args, **kwargs)
            seconds[part] = seconds.get(part, 0.0) + now() - start
            return result

        return call

    for name in _PARTS:
        setattr(trainer, name, timed(name, getattr(trainer, name)))
    return seconds


def _fastest_step(recipe: Recipe, *, stock: bool) -> tuple[int, _Step, str]:
    """One step at each micro-batch: the fastest size, its step, and the seconds of all."""
    steps = {
        size: train_step(_in_micro_batches(recipe, size), stock=stock) for size in _MICRO_BATCHES
    }
    tried = ", ".join(f"{size}: {step.seconds:.0f} s" for size, step in steps.items())
    best = min(steps, key=lambda size: steps[size].seconds)
    return best, steps[best], tried


def _step_unquantized() -> list[Figure]:
    """A whole step, stock TRL ÷ ours, in the dtype that the device multiplies fastest."""
    dtype = str(compute_dtype("auto", join().device)).removeprefix("torch.")
    return _step("none", dtype, ">= 2.5")


def _step_nf4() -> list[Figure]:
    """A whole step, stock TRL ÷ ours, with 4-bit weights."""
    return _step("nf4", "NF4", ">= 2.0")


def _step(quantization: str, label: str, goal: str) -> list[Figure]:
    recipe = _recipe(quantization)
    sizes, tried = {}, {}
    steps: dict[bool, list[_Step]] = {}
    for stock in (True, False):
        sizes[stock], step, tried[stock] = _fastest_step(recipe, stock=stock)
        steps[stock] = [step]
    for round_ in range(1, _ROUNDS):
        for stock in (True, False):
            chosen = _in_micro_batches(recipe, sizes[stock]).replace(seed=recipe.seed + round_)
            steps[stock].append(train_step(chosen, stock=stock))
    total = {stock: sum(step.seconds for step in steps[stock]) for stock in steps}
    figures = [
        _figure(
            f"whole step, stock TRL ÷ ours, {label}",
            total[True] / total[False],
            goal,
            "; ".join(
                f"{name} {total[stock] / _ROUNDS:.1f} s, {_mean_length(steps[stock]):.0f} tokens, "
                f"micro-batch {sizes[stock]} (tried {tried[stock]})"
                for stock, name in ((True, "stock"), (False, "ours"))
            ),
        )
    ]
    for stock, name in ((True, "stock TRL"), (False, "ours")):
        for part in steps[stock][0].parts:
            seconds = sum(step.parts.get(part, 0.0) for step in steps[stock])
            figures.append(
                Figure(f"share of {name}'s step, {label}: {part}", seconds / total[stock])
            )
    return figures


def _mean_length(steps: Sequence[_Step]) -> float:
    return statistics.mean(step.mean_length for step in steps)


def _reward_cost() -> list[Figure]:
    """Our INTUITOR step ÷ our step with the accuracy reward, on the same completions."""
    seconds: dict[str, list[float]] = {"self_certainty": [], "accuracy": []}
    # The first of each warms up; then turns are taken.
    for round_ in range(3):
        for reward, times in seconds.items():
            step = train_step(_recipe("nf4"), stock=False, reward=reward)
            if round_:
                times.append(step.seconds)
    ratio = sum(seconds["self_certainty"]) / sum(seconds["accuracy"])
    detail = "; ".join(
        f"{name} {', '.join(f'{s:.1f}' for s in times)} s" for name, times in seconds.items()
    )
    return [_figure("INTUITOR step ÷ accuracy step, NF4", ratio, "<= 1.03", detail)]


def _rollouts() -> list[Figure]:
    """Sampled tokens per second, ours ÷ `generate`, 8 prompts x G = 8, lengths as they come."""
    figures = []
    for quantization, label in (("none", "unquantized"), ("nf4", "NF4")):
        recipe = _recipe(quantization)
        policy = load_policy(recipe)
        problems = load_problems(recipe).train[: _COMPLETIONS // recipe.num_generations]
        conversations = [conversation(problem.prompt, recipe) for problem in problems]
        prompts = [
            ids
            for ids in prompt_token_ids(policy.tokenizer, conversations)
            for _ in range(recipe.num_generations)
        ]
        rates: dict[str, list[float]] = {"generate": [], "ours": []}
        for round_ in range(_ROUNDS):
            for name, made in (("generate", _by_generate), ("ours", _by_sampling)):
                # Ours keeps 4-bit weights unpacked from then on: never before `generate`.
                if name == "generate" and round_:
                    policy = load_policy(recipe)
                torch.manual_seed(round_)
                start = now()
                tokens = made(policy, prompts, recipe)
                rates[name].append(tokens / (now() - start))
        ratio = statistics.mean(rates["ours"]) / statistics.mean(rates["generate"])
        detail = "; ".join(
            f"{name} {', '.join(f'{rate:.0f}' for rate in values)} tokens/s"
            for name, values in rates.items()
        )
        figures.append(_figure(f"rollouts, ours ÷ generate, {label}", ratio, ">= 2.0", detail))
    return figures


def _by_generate(policy: Policy, prompts: list[list[int]], recipe: Recipe) -> int:
    model, tokenizer = policy
    padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    padded = padded.to(model.device)
    model.eval()
    with torch.no_grad():
        output = model.generate(
            **padded,
            max_new_tokens=recipe.max_completion_length,
            do_sample=True,
            temperature=recipe.temperature,
            top_k=0,
            top_p=1.0,
            pad_token_id=tokenizer.pad_token_id,
        )
    completions = output[:, padded["input_ids"].shape[1] :]
    ended = (completions == tokenizer.eos_token_id).cumsum(1)
    # Up to and with the first end token.
    return int(((ended - (completions == tokenizer.eos_token_id).long()) == 0).sum())


def _by_sampling(policy: Policy, prompts: list[list[int]], recipe: Recipe) -> int:
    speed_up_linears(policy.model)
    completions = sample_completions(
        policy.model,
        prompts,
        max_new_tokens=recipe.max_completion_length,
        temperature=recipe.temperature,
        eos_token_id=policy.tokenizer.eos_token_id,
    )
    return sum(len(completion.ids) for completion in completions)


def _scoring_memory() -> list[Figure]:
    """Peak memory above the hidden states to score 4 x 1,024 tokens at a vocabulary of 151,936."""
    figures = []
    for what, label in (("certainty", "self-certainty"), ("loss", "log-probabilities, backward")):
        peaks = {way: scoring_peak(what, way, 4 * 1024, 151_936) for way in ("full", "ours")}
        detail = "; ".join(f"{way} {peak / 2**30:.2f} GiB" for way, peak in peaks.items())
        ratio = peaks["ours"] / peaks["full"]
        name = f"scoring memory, ours ÷ full logits, {label}"
        figures.append(_figure(name, ratio, "<= 0.1", detail))
    return figures


def _growth() -> list[Figure]:
    """Exponent of the step's time as completions grow from 32 to 256 tokens, all to the cap."""
    seconds = []
    for length in _LENGTHS:
        recipe = _recipe("nf4", max_completion_length=length)
        seconds.append(train_step(recipe, stock=False, full_length=True).seconds)
    exponent = float(np.polyfit(np.log(_LENGTHS), np.log(seconds), 1)[0])
    detail = ", ".join(f"{n} tokens {s:.0f} s" for n, s in zip(_LENGTHS, seconds, strict=True))
    return [_figure("exponent of step time over tokens, NF4", exponent, "<= 1.15", detail)]


def _machine() -> list[Figure]:
    """Products of 1024 x 1024 matrices, GFLOP/s: the limit of the machine."""
    device = join().device
    figures = []
    for dtype in (torch.float32, torch.bfloat16):
        name = f"{str(dtype).removeprefix('torch.')} products, GFLOP/s"
        rate = 2 * 1024**3 / product_seconds(dtype, device, 1024)
        figures.append(Figure(name, rate / 1e9))
    return figures


def _two_processes() -> list[Figure]:
    """One update by two processes against the same by one, on given completions, on the CPU."""
    recipe = _recipe(
        "nf4",
        max_completion_length=32,
        # Four micro-batches: the sum of two is the same in any order.
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        dtype="float32",
    )
    (found,) = compare_processes(recipe)
    figures = [
        _figure(f"two processes against one: {key}, {how}", found[key], f"<= {bound}")
        for key, how, bound in (
            ("rewards", "largest difference (nats)", 1e-4),
            ("advantages", "largest difference", 1e-3),
            ("gradients", "norm of the difference ÷ norm", 1e-3),
        )
    ]
    for key, label in (("seconds_one", "one process"), ("seconds_several", "two processes")):
        figures.append(Figure(f"seconds of an update without sampling, {label}", found[key]))
    return figures


MEASURES: dict[str, Callable[[], list[Figure]]] = {
    "machine": _machine,
    "memory": _scoring_memory,
    "rollouts": _rollouts,
    "reward": _reward_cost,
    "step": _step_unquantized,
    "step-nf4": _step_nf4,
    "growth": _growth,
    "processes": _two_processes,
}
"""The measures of `measure_speed`, by name."""


def main() -> int:
    """Measure the figures named on the command line, print a table and write a file."""
    parser = argparse.ArgumentParser(description="Speed and memory beside stock TRL.")
    parser.add_argument("measures", nargs="*", help=f"of {', '.join(MEASURES)}; default all")
    parser.add_argument("--output", metavar="FILE", default="benchmark.json", help="the figures")
    options = parser.parse_args()
    try:
        figures = measure_speed(options.measures, say=lambda text: print(text, file=sys.stderr))
    except InputError as error:
        parser.error(str(error))
    path = Path(options.output).resolve()
    write_figures(figures, path)
    marks = {True: "yes", False: "NO", None: ""}
    rows = [[f.name, f"{f.value:.3g}", f.goal, marks[f.met]] for f in figures]
    details = [f"{figure.name}: {figure.detail}" for figure in figures if figure.detail]
    print(Table(["figure", "value", "goal", "met"], rows, "\n".join(details)))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
