"""Check this library on a GPU, in about fifteen minutes on a card of 8 GB or more.

    make gpu-check                       python tests/benchmarks/gpu_check.py [CHECK ...]

Weights are random, of the real models' shapes, so no network is needed; completions are cut to 128
tokens, so a profile's step is shorter than a real one's. Writes gpu_check.json and gpu_check.md,
and exits with status 1 where a bound is not met, naming the first one. `--device cpu` tries the
checks themselves on a machine without a GPU, with models shrunk to two layers.
"""

import argparse
import contextlib
import functools
import json
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import bitsandbytes
import torch
from torch.nn import functional
from training_speed import now, train_step
from two_processes import compare_devices

from intuitor_lib.certainty.completions import completion_log_probs
from intuitor_lib.policy.linear import unpacked
from intuitor_lib.policy.loading import load_policy, product_seconds
from intuitor_lib.policy.shapes import ARCHITECTURES, Shape
from intuitor_lib.policy.tiny import make_tiny_model
from intuitor_lib.problems.problems import load_problems
from intuitor_lib.problems.prompts import conversation, prompt_token_ids
from intuitor_lib.recipe.recipe import Recipe
from intuitor_lib.recipe.recipes import get_recipe
from intuitor_lib.rollouts import sampling
from intuitor_lib.rollouts.sampling import sample_completions
from intuitor_lib.store import RunStore
from intuitor_lib.store.files import read_rows
from intuitor_lib.store.processes import join
from intuitor_lib.training import trainer
from intuitor_lib.training.memory import estimate_memory
from intuitor_lib.training.memory_advice import longest_prompt
from intuitor_lib.training.training import train

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from conftest import character_tokenizer  # noqa: E402

_SMALL = Shape("qwen2", 128, 256, 2, 128, 64, 512, True)
PROFILES = ("gpu-12gb", "gpu-24gb")
TOKENS = 128  # of a completion; a profile's real ones are 8 to 16 times as long


@dataclass(frozen=True)
class Row:
    """A measured value with its bound, "" for none."""

    check: str
    name: str
    value: float | str
    unit: str = ""
    bound: str = ""
    detail: str = ""

    @property
    def met(self) -> bool:
        """Whether the value is within its bound."""
        if not self.bound:
            return True
        sign, limit = self.bound.split()
        value = float(self.value)
        return value <= float(limit) if sign == "<=" else value >= float(limit)


class GpuCheck:
    """The checks on one device; each method yields its rows."""

    def __init__(self, device: str, scratch: Path) -> None:
        self.device, self.cuda, self.scratch = torch.device(device), device == "cuda", scratch
        self.problems = scratch / "sums.jsonl"
        rows = [
            {"problem": f"{a} + {b} = ?", "answer": str(a + b)} for a in range(64) for b in (1, 2)
        ]
        self.problems.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def machine(self) -> Iterator[Row]:
        """The card and the versions."""
        yield Row("machine", "device", _name(self.device))
        if self.cuda:
            facts = torch.cuda.get_device_properties(self.device)
            yield Row("machine", "memory", facts.total_memory / 2**30, "GiB")
            yield Row("machine", "compute capability", f"{facts.major}.{facts.minor}")
            yield Row("machine", "CUDA", str(torch.version.cuda))
        for name in ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate"):
            yield Row("machine", name, version(name))
        yield Row("machine", "Python", platform.python_version())

    def products(self) -> Iterator[Row]:
        """Matrix products in each dtype, and 4-bit layers beside their unpacked weights."""
        size = 8192 if self.cuda else 512
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            seconds = product_seconds(dtype, self.device, size)
            rate = 2 * size**3 / seconds / 1e12
            yield Row("products", str(dtype).removeprefix("torch."), rate, "TFLOP/s")
        torch.manual_seed(0)
        weight = torch.randn(1536, 1536) / 40
        packed = [_packed(weight, device) for device in ("cpu", self.device)]
        same = (packed[0].weight.data.cpu() == packed[1].weight.data.cpu()).float().mean().item()
        yield Row("products", "NF4 codes equal to the CPU's", same, "share", ">= 0.999")
        layer = packed[1]
        weight = unpacked(layer)
        for rows in (1, 64):  # one row has a kernel of its own
            x = torch.randn(rows, 1536, device=self.device)
            expected = functional.linear(x.double(), weight.double())
            apart = ((layer(x) - expected).norm() / expected.norm()).item()
            yield Row("products", f"NF4 layer, {rows} rows, in fp32", apart, "relative", "<= 1e-3")

    def tests(self) -> Iterator[Row]:
        """The tests of devices."""
        chosen = ["-k", "cuda] or cuda-"] if self.cuda else ["-k", "mock-"]
        command = [sys.executable, "-m", "pytest", "-q", "-x", str(HERE.parent / "test_cuda.py")]
        done = subprocess.run(
            [*command, *chosen], cwd=HERE.parents[1], capture_output=True, text=True, check=False
        )
        last = done.stdout.strip().splitlines()[-1:]
        yield Row("tests", "tests/test_cuda.py", done.returncode, "exit status", "<= 0", *last)
        if done.returncode:
            print(done.stdout[-6000:], done.stderr[-3000:], file=sys.stderr)

    def update(self) -> Iterator[Row]:
        """One update on the same completions here and on the CPU."""
        folder = self._model("update", _SMALL)
        recipe = self._recipe("gpu-12gb").replace(
            model=str(folder),
            dtype="float32",
            max_completion_length=16,
            gradient_accumulation_steps=2,
            gradient_checkpointing=False,
        )
        kinds = ("none", "nf4")
        rows = compare_devices(*(recipe.replace(quantization=kind) for kind in kinds))
        for quantization, found in zip(kinds, rows, strict=True):
            for key, bound in (("rewards", 1e-3), ("advantages", 2e-2), ("gradients", 1e-2)):
                yield Row(
                    "update", f"{key}, {quantization}, CPU and GPU", found[key], "", f"<= {bound}"
                )

    def profiles(self) -> Iterator[Row]:
        """Two steps of each profile that fits, with their memory; sampling from both weights."""
        for profile in PROFILES:
            recipe = self._recipe(profile)
            problems = load_problems(recipe)
            estimate = estimate_memory(
                recipe,
                device=self.device.type,
                prompt_tokens=longest_prompt(recipe, problems.train),
            )
            if self.cuda and estimate.total > torch.cuda.mem_get_info()[0]:
                yield Row("profiles", f"{profile}: left out, needs", estimate.total / 2**30, "GiB")
                continue
            recipe = recipe.replace(model=str(self._model(profile, ARCHITECTURES[recipe.model])))
            clock = _SamplingClock()
            with mock.patch.object(trainer, "sample_completions", clock):
                run = train(recipe, runs=self.scratch / "runs", problems=problems)
            clock.note("update")
            detail = f"{_size(recipe)}, {run.environment['compute_dtype']}"
            yield Row(
                "profiles", f"{profile}: a step", run.metrics[-1]["step_time"], "s", "", detail
            )
            yield Row("profiles", f"{profile}: its sampling", clock.seconds / 2, "s")
            for phase, peak in clock.peaks.items():
                yield Row("profiles", f"{profile}: peak of {phase}", peak / 2**30, "GiB")
            if self.cuda:
                ratio = estimate.total / max(clock.peaks.values())
                yield Row("profiles", f"{profile}: memory estimated / measured", ratio)
            yield from self._sampling(recipe, profile)

    def _sampling(self, recipe: Recipe, profile: str) -> Iterator[Row]:
        """Tokens a second from unpacked and from 4-bit weights; their gap to the update."""
        policy = load_policy(recipe)
        for name, parameter in policy.model.named_parameters():
            if ".lora_B." in name:  # an adapter that has learned
                torch.nn.init.normal_(parameter, std=0.01)
        asked = [conversation(p.prompt, recipe) for p in load_problems(recipe).train[:16]]
        group = 4 if self.cuda else 1
        prompts = [ids for ids in prompt_token_ids(policy.tokenizer, asked) for _ in range(group)]
        tokens = 64 if self.cuda else 8
        for weights, changed in _SAMPLING.items():
            low = torch.autocast(self.device.type, torch.bfloat16, enabled=self.cuda)
            sample = functools.partial(
                sample_completions,
                policy.model,
                prompts,
                temperature=recipe.temperature,
                eos_token_id=[],
            )
            with low, changed:
                sample(max_new_tokens=2)  # loads kernels
                start = now()
                made = sample(max_new_tokens=tokens)
                rate = len(prompts) * tokens / (now() - start)
                ids = [completion.ids for completion in made]
                scored = completion_log_probs(
                    policy.model, prompts, ids, temperature=recipe.temperature, eos_token_id=[]
                )
            apart = torch.cat([c.log_probs - s for c, s in zip(made, scored, strict=True)]).abs()
            name = f"{profile}, {weights} weights: "
            yield Row("profiles", name + "sampling", rate, "tokens/s", "", f"{len(prompts)} rows")
            gap, most = apart.mean().item(), f"largest {apart.max().item():.3g}"
            yield Row("profiles", name + "apart from the update", gap, "nats", "<= 0.05", most)

    def stock(self) -> Iterator[Row]:
        """A step beside stock TRL's, both on the 12 GB profile's model."""
        recipe = self._recipe("gpu-12gb")
        recipe = recipe.replace(
            model=str(self._model("gpu-12gb", ARCHITECTURES[recipe.model])),
            gradient_accumulation_steps=2,
            gradient_checkpointing=False,
        )
        ours, stock = (
            train_step(recipe, stock=stock, full_length=True).seconds for stock in (False, True)
        )
        detail = f"{stock:.1f} s and {ours:.1f} s, {_size(recipe)}"
        yield Row("stock", "stock TRL ÷ ours, NF4", stock / ours, "", ">= 1", detail)

    def resume(self) -> Iterator[Row]:
        """A training that is killed after a step goes on and ends."""
        recipe = self._recipe("gpu-12gb").replace(
            model=str(self._model("update", _SMALL)),
            max_completion_length=16,
            max_steps=6,
            save_steps=1,
        )
        runs = self.scratch / "killed"
        code = "import sys; from intuitor_lib import Recipe, train; "
        code += "train(Recipe.from_json(sys.argv[1]), runs=sys.argv[2])"
        process = subprocess.Popen([sys.executable, "-c", code, recipe.to_json(), str(runs)])
        while process.poll() is None:
            time.sleep(0.05)
            if any(len(read_rows(file)) >= 2 for file in runs.glob("*/metrics.jsonl")):
                process.kill()
                process.wait()
        (run,) = RunStore(runs)
        before = [row["loss"] for row in run.metrics]
        run = train(recipe, runs=runs)
        yield Row("resume", "steps before the kill", len(before), "", "<= 5")
        yield Row("resume", "steps at the end", run.steps, "", ">= 6")
        kept = sum(a == b["loss"] for a, b in zip(before, run.metrics, strict=False))
        yield Row("resume", "rows kept from before", kept, "", ">= 1")

    def _recipe(self, profile: str) -> Recipe:
        """INTUITOR under a profile, on sums, with short completions."""
        size = {"max_completion_length": TOKENS, "rollout_batch_size": None}
        if not self.cuda:
            size = {"max_completion_length": 16, "gradient_accumulation_steps": 2}
        return get_recipe(
            "intuitor",
            profile,
            **size,
            dataset=str(self.problems),
            prompt_column="problem",
            answer_column="answer",
            system_prompt=None,
            max_steps=2,
            preflight_problems=0,
        )

    def _model(self, name: str, shape: Shape) -> Path:
        """A model of random weights; shrunk on a CPU."""
        folder = self.scratch / name
        if folder.is_dir():
            return folder
        width = 128 if shape.hidden > 1024 else 32
        settings: dict[str, Any] = {
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.query // width,
            "num_key_value_heads": shape.key // width,
            "head_dim": width,
            "vocab_size": shape.vocabulary,
            "tie_word_embeddings": shape.tied,
            "max_position_embeddings": 4096,
        }
        if not self.cuda and shape.layers > 2:
            settings |= {
                "hidden_size": 256,
                "intermediate_size": 512,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "vocab_size": 4096,
            }
        with self.device:
            return make_tiny_model(
                "Qwen2", folder, tokenizer=character_tokenizer(), dtype=torch.bfloat16, **settings
            )


class _SamplingClock:
    """`sample_completions` with its seconds added up, and the peaks of memory in it and outside."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.peaks: dict[str, int] = {}
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.note("update" if self.seconds else "loading")
        start = now()
        made = sample_completions(*args, **kwargs | {"eos_token_id": []})
        self.seconds += now() - start
        self.note("rollout")
        return made

    def note(self, phase: str) -> None:
        """Add the peak since the last note to a phase's."""
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated()
            self.peaks[phase] = max(peak, self.peaks.get(phase, 0))
            torch.cuda.reset_peak_memory_stats()


# The same from other weights, and with each operation started by the host.
_SAMPLING = {
    "unpacked": contextlib.nullcontext(),
    "unpacked, unrecorded": mock.patch.object(sampling, "can_record", return_value=False),
    "4-bit": mock.patch.object(sampling, "fixed_weights", return_value=contextlib.nullcontext()),
}


def _size(recipe: Recipe) -> str:
    return f"{recipe.completions_per_step} completions of {recipe.max_completion_length} tokens"


def _packed(weight: torch.Tensor, device: torch.device | str) -> Any:
    layer = bitsandbytes.nn.Linear4bit(
        weight.shape[1], weight.shape[0], bias=False, compute_dtype=torch.float32, quant_type="nf4"
    )
    layer.weight = bitsandbytes.nn.Params4bit(weight.clone(), requires_grad=False, quant_type="nf4")
    return layer.to(device)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU (models shrunk)"


def write(rows: list[Row], folder: Path) -> None:
    """The rows as gpu_check.json and as a table in gpu_check.md."""
    found = [asdict(row) | {"met": row.met} for row in rows]
    (folder / "gpu_check.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lines = ["| check | what | value | bound | |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        value = row.value if isinstance(row.value, str) else f"{row.value:.3g}"
        bound = f"{row.bound}{'' if row.met else ' **not met**'}"
        lines.append(f"| {row.check} | {row.name} | {value} {row.unit} | {bound} | {row.detail} |")
    (folder / "gpu_check.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    checks: Mapping[str, Callable[[GpuCheck], Iterator[Row]]] = {
        name: getattr(GpuCheck, name)
        for name in ("machine", "products", "tests", "update", "profiles", "stock", "resume")
    }
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="CHECK", help=f"of {', '.join(checks)}")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--output", type=Path, default=Path(), help="folder of the two files")
    options = parser.parse_args()
    if unknown := set(options.names) - checks.keys():
        parser.error(f"unknown check {unknown.pop()!r}: choose from {', '.join(checks)}")
    if join().device.type != options.device:
        parser.error(f"this process trains on {join().device.type}, not on {options.device}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        check = GpuCheck(options.device, Path(scratch))
        for name in options.names or checks:
            start = now()
            try:
                for row in checks[name](check):
                    value = row.value if isinstance(row.value, str) else f"{row.value:.3g}"
                    print(f"{name}: {row.name}: {value} {row.unit} {row.detail}", flush=True)
                    rows.append(row)
            except Exception as error:  # the other checks tell something too
                traceback.print_exc()
                text = f"{type(error).__name__}: {error}"
                rows.append(Row(name, "failed", 1, "", "<= 0", text.replace("\n", " ")[:300]))
            print(f"{name}: {now() - start:.0f} s", flush=True)
            options.output.mkdir(parents=True, exist_ok=True)
            write(rows, options.output)
    broken = [row for row in rows if not row.met]
    if broken:
        first = broken[0]
        print(f"NOT MET: {first.check}: {first.name}: {first.value} ({first.bound}) {first.detail}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
