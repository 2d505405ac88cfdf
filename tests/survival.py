"""Trainings killed with SIGKILL at many moments go on and end as if never interrupted.

    python tests/survival.py kill --kills 25 --seed 0
    python tests/survival.py together --processes 10

`kill` trains a tiny model over more than two epochs once, undisturbed, and notes what it does:
loads, samples, updates, writes each kind of file. Then each training of its own is killed, by
turns at a random moment or in the middle of one of those (a file half written), and asked for
again. It must end with the same metrics, completions and adapter, bit by bit.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

SECONDS_AT_MOST = 180


class Sites:
    """Counts what a training does; at one of these moments it stops and waits to be killed.

    A moment is (site, n): the n-th time that the site is reached.
    """

    def __init__(self, pipe: int, moment: tuple[str, int] | None) -> None:
        self.pipe, self.moment = pipe, moment
        self.seen: collections.Counter[str] = collections.Counter()

    def due(self, site: str) -> bool:
        self.seen[site] += 1
        return (site, self.seen[site]) == self.moment

    def stop(self) -> None:
        """Tell the parent, and wait for the end."""
        os.write(self.pipe, b"!")
        while True:
            time.sleep(60)

    def write_half(self, path: Path, content: bytes, mode: str = "wb") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as stream:
            stream.write(content[: len(content) // 2])
        self.stop()

    def install(self) -> None:
        """Put the sites into the modules; this process does nothing else afterwards."""
        import peft.peft_model
        import torch
        from transformers import TrainerState

        from intuitor_lib.store import files
        from intuitor_lib.training import trainer, training

        def around(owner, name, before):
            original = getattr(owner, name)

            def wrapped(*args, **kwargs):
                before(*args, **kwargs)
                return original(*args, **kwargs)

            setattr(owner, name, wrapped)

        def plain(site):
            def before(*args, **kwargs):
                if self.due(site):
                    self.stop()

            return before

        around(training, "load_policy", plain("loading"))
        around(trainer, "sample_completions", plain("sampling"))
        around(training.IntuitorTrainer, "training_step", plain("updating"))
        around(torch.optim.AdamW, "step", plain("stepping"))

        def replacing(source, target):
            path, written = Path(target), Path(source)
            if not written.parent.name.startswith(f".{path.name}."):
                return  # not by `write_text`
            place = "checkpoint " if path.parent.name.startswith("checkpoint-") else ""
            if self.due(f"write {place}{path.name}"):
                self.write_half(path.with_name(f".{path.name}.half"), written.read_bytes())

        def appending(path, rows):
            if self.due(f"append {path.name}"):
                self.write_half(path, files.dump_rows(list(rows)).encode(), "ab")

        def saving(value, file, *args, **kwargs):
            if self.due(f"save {Path(file).name}"):
                content = io.BytesIO()
                torch_save(value, content)
                self.write_half(Path(file), content.getvalue())

        def saving_tensors(tensors, file, *args, **kwargs):
            place = "checkpoint " if "checkpoint-" in str(file) else ""
            if self.due(f"save {place}{Path(file).name}"):
                from safetensors.torch import save

                self.write_half(Path(file), save(tensors))

        def saving_state(state, path):
            if self.due("save trainer_state.json"):
                self.write_half(Path(path), json.dumps(state.__dict__, default=str).encode())

        def copying(source, target):
            if self.due(f"copy {Path(target).name}"):
                self.write_half(Path(target), Path(source).read_bytes())

        def removing(folder, *args, **kwargs):
            kind = Path(folder).name.split("-")[0]
            if self.due(f"remove {'scratch' if kind[0] in '.t' else kind}"):
                for file in sorted(Path(folder).rglob("*")):
                    if file.is_file():
                        file.unlink()
                        break
                self.stop()

        torch_save = torch.save
        around(os, "replace", replacing)
        around(files, "append_rows", lambda path, rows: appending(path, rows))
        around(torch, "save", saving)
        around(peft.peft_model, "safe_save_file", saving_tensors)
        around(TrainerState, "save_to_json", saving_state)
        around(shutil, "copyfile", copying)
        around(shutil, "rmtree", removing)


def start(recipe_json: str, runs: Path, moment: tuple[str, int] | None = None) -> tuple[int, int]:
    """Fork a process that trains; returns its pid and the pipe on which it tells of its moment."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    status = 1
    try:
        log = os.open(runs.parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from intuitor_lib import Recipe, train

        sites = Sites(writing, moment)
        sites.install()
        train(Recipe.from_json(recipe_json), runs=runs)
        (runs.parent / f"seen-{os.getpid()}.json").write_text(json.dumps(sites.seen))
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def end(pid: int, pipe: int, seconds: float = SECONDS_AT_MOST) -> int:
    """Wait for a process to end by itself; returns its exit status."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            os.close(pipe)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"a training did not end within {seconds} s")


def kill(pid: int, pipe: int, wait: float | None) -> bool:
    """Kill a process when it tells of its moment, or after `wait` seconds.

    Returns whether it lived until then.
    """
    told, _, _ = select.select([pipe], [], [], SECONDS_AT_MOST if wait is None else wait)
    if wait is None and not (told and os.read(pipe, 1)):
        raise AssertionError("the moment never came")
    done, _ = os.waitpid(pid, os.WNOHANG)
    os.close(pipe)
    if done:
        return False
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def outcome(runs: Path) -> dict[str, object]:
    """What a finished training left, without what measures time."""
    from intuitor_lib import RunStore
    from intuitor_lib.store.files import digest

    (run,) = RunStore(runs)
    assert run.finished, run.status
    assert run.verify() == {}, run.verify()
    left = {path.name for path in run.path.iterdir()} & {"checkpoints", ".owner.json"}
    assert not left, left
    return {
        "metrics": [{k: v for k, v in row.items() if "time" not in k} for row in run.metrics],
        "completions": run.completions,
        "adapter": digest(run.adapter / "adapter_model.safetensors"),
    }


def tiny_recipe(folder: Path, **changes):
    """A recipe of two problems an update, three updates an epoch."""
    from conftest import make_tiny_llama, make_tiny_recipe

    model, problems = make_tiny_llama(folder / "model"), folder / "sums.jsonl"
    rows = [{"problem": f"{a}+{b}=", "answer": str(a + b)} for a in range(3) for b in range(2)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    several = {"max_steps": 8, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    often = {"save_steps": 2, "preflight_problems": 2}
    return make_tiny_recipe(model, problems, **several | often | changes)


def differences(found: dict, expected: dict) -> list[str]:
    """Names of the parts that differ."""
    return [name for name in expected if found[name] != expected[name]]


def kills(number: int, seed: int, folder: Path, **changes) -> None:
    """`number` trainings, each killed once and asked for again."""
    recipe = tiny_recipe(folder, **changes)
    text = recipe.to_json()
    (folder / "whole").mkdir()
    began = time.monotonic()
    pid, pipe = start(text, folder / "whole" / "runs")
    assert end(pid, pipe) == 0, (folder / "whole" / "log.txt").read_text()[-3000:]
    seconds = time.monotonic() - began
    expected = outcome(folder / "whole" / "runs")
    epochs = expected["metrics"][-1]["epoch"]
    assert epochs >= 2, epochs
    seen = json.loads(next((folder / "whole").glob("seen-*.json")).read_text())
    print(f"undisturbed: {seconds:.1f} s, {epochs:.1f} epochs; {len(seen)} kinds of moments")

    draw = random.Random(seed)
    order = sorted(seen)
    draw.shuffle(order)
    failed = 0
    for i in range(number):
        place = folder / f"kill-{i}"
        place.mkdir()
        if i % 2 and order:
            site = order[(i // 2) % len(order)]
            moment, wait = (site, draw.randint(1, seen[site])), None
            what = f"{site}, time {moment[1]} of {seen[site]}"
        else:
            moment, wait = None, draw.uniform(0.02, 0.98) * seconds
            what = f"after {wait:.2f} s"
        lived = False
        while not lived:  # a training may end sooner than the undisturbed one
            shutil.rmtree(place / "runs", ignore_errors=True)
            pid, pipe = start(text, place / "runs", moment)
            try:
                lived = kill(pid, pipe, wait)
            except AssertionError as error:
                raise AssertionError(
                    f"{what}: {error}: {(place / 'log.txt').read_text()}"
                ) from None
            wait = None if wait is None else wait * 0.9
        left = sum(1 for path in place.rglob("*") if path.is_file())
        pid, pipe = start(text, place / "runs")
        status = end(pid, pipe)
        if status:
            wrong = [f"exit status {status}: {(place / 'log.txt').read_text()[-2000:]}"]
        else:
            wrong = differences(outcome(place / "runs"), expected)
        failed += bool(wrong)
        verdict = "identical" if not wrong else f"DIFFERENT: {', '.join(wrong)}"
        print(f"{i + 1:3d}. killed {what} ({left} files): {verdict}", flush=True)
        if not wrong:
            shutil.rmtree(place)
    print(f"{number - failed} of {number} ended identical to the undisturbed training")
    if failed:
        raise SystemExit(1)


def together(processes: int, folder: Path) -> None:
    """Many processes ask for one run at once: it is trained once, all get the same."""
    text = tiny_recipe(folder).to_json()
    (folder / "shared").mkdir()
    started = [start(text, folder / "shared" / "runs") for _ in range(processes)]
    for pid, pipe in started:
        assert end(pid, pipe) == 0, (folder / "shared" / "log.txt").read_text()[-3000:]
    outcome(folder / "shared" / "runs")
    counts = [json.loads(p.read_text()) for p in (folder / "shared").glob("seen-*.json")]
    trained = [seen["updating"] // 2 for seen in counts if "updating" in seen]
    print(f"{len(counts)} processes were answered; {len(trained)} trained, {sum(trained)} steps")
    assert len(counts) == processes
    assert trained == [8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["kill", "together"])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    changes = {key: json.loads(value) for key, value in (s.split("=", 1) for s in options.set)}
    # Imported before the forks, so that each takes milliseconds to start.
    import intuitor_lib.training.training  # noqa: F401

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if options.what == "kill":
            kills(options.kills, options.seed, folder, **changes)
        else:
            together(options.processes, folder)


if __name__ == "__main__":
    main()
