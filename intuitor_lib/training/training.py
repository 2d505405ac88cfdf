"""Train a recipe: open or resume its run, train the policy, save the result."""

import contextlib
import errno
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import peft
from accelerate.utils import gather_object
from transformers.trainer_callback import PrinterCallback

from ..policy import Policy, compute_dtype, describe_policy, load_policy
from ..policy.adapters import ignore_renames
from ..policy.linear import decide_unpacking
from ..policy.loading import at_commit
from ..policy.pretrained import Source, cached_commit
from ..problems import Problem, Problems, fit_prompts, load_problems, prompt_date, to_dataset
from ..recipe import InputError, Recipe
from ..report import LiveTraining, quiet_transformers
from ..rollouts.serving import check_rollout, send_merged_weights
from ..store import Run, RunStore
from ..store.checkpoints import checkpoint_step, newest_checkpoint, restore_records
from ..store.files import SUMS, read_rows, redact
from ..store.processes import (
    all_or_none,
    from_main,
    join,
    refuse_sharding,
    share_batch,
    warn_if_alone,
)
from .memory_advice import require_memory
from .monitor import WINDOW, alarms
from .readiness import preflight, require
from .recorder import Recorder
from .rewards.factory import reward_functions
from .samples import held_out_accuracy
from .savepoints import Interrupted, SavePoints, StopRequest, interruptible
from .tracking import PROJECT, require_trackers, trackers
from .trainer import IntuitorTrainer, grpo_config

logger = logging.getLogger(__name__)

_LITTLE_SPACE = 2**20  # bytes; with less, a failure is attributed to the disk


def train(
    recipe: Recipe, *, runs: str | Path | None = None, problems: Problems | None = None
) -> Run:
    """Train a recipe, or return the run of the store that already holds it.

    An interrupted run resumes from its last whole checkpoint and ends, on a CPU, as if it had not
    been interrupted. If another process is training the run, this one waits for it.
    Called on every process that `torchrun` or `accelerate launch` started, it trains the recipe on
    all of them: the main process writes the run, and each process returns it.

    Args:
        recipe: the recipe to train.
        runs: folder of the run store; by default as in `RunStore`.
        problems: the result of `load_problems(recipe)`, if it is loaded already.

    Raises:
        InputError: malformed problems, prompts that do not fit, a policy that cannot be loaded, an
            update that the processes cannot share, too little memory, or a fault found by
            `preflight`; before anything is loaded on a device where possible.
        Interrupted: stopped by a signal, with everything saved.
        OSError: the disk is full or read-only; saved files are whole.
        RuntimeError: another process failed.
    """
    refuse_sharding()
    problems = problems or load_problems(recipe)
    warn_if_alone()
    share_batch(recipe, join().num_processes)
    run = _open(recipe, problems, runs)
    if from_main(run.finished):
        if join().is_main_process:
            run.tidy()
        return run
    with _held(run):
        if not from_main(run.finished):
            with interruptible():
                _Training(recipe, problems, run).train()
    return run


def _open(recipe: Recipe, problems: Problems, runs: str | Path | None) -> Run:
    """The run, created by the main process if it is new."""
    with all_or_none():
        described, path = problems.describe(), Path()
        if join().is_main_process:
            path = RunStore(runs).open(recipe, described).path
    asked = set(gather_object([(recipe.digest, described["fingerprint"])]))
    if len(asked) > 1:
        raise InputError(
            f"the processes were given {len(asked)} different recipes or problems: start them all "
            "with the same command, on the same files"
        )
    return Run(from_main(path))


@contextlib.contextmanager
def _held(run: Run) -> Iterator[None]:
    """Hold the run's lock in the main process; the other processes wait with it."""
    if join().is_main_process:
        # Told every second, the others wait as long as it takes.
        with run.lock(lambda: from_main(False)):
            from_main(True)
            yield
    else:
        while not from_main(False):
            pass
        yield


class _Training:
    """One training of a run, by all processes."""

    def __init__(self, recipe: Recipe, problems: Problems, run: Run) -> None:
        self.recipe, self.problems, self.run = recipe, problems, run
        self.main, self.processes = join().is_main_process, join().num_processes
        self.unpacks: bool | None = None  # as before it was interrupted
        self.display = LiveTraining(f"train {run.id}", recipe.max_steps, shown=self.main)

    def train(self) -> None:
        """Train the run from its newest checkpoint, or from the start, to the end."""
        try:
            checkpoint = self._resume()
            policy = self._load()
            self._describe(policy)
            if self.main:
                restore_records(self.run.path, checkpoint)
            collapsed = self._update(policy, checkpoint)
            with all_or_none():
                if self.main:
                    _save(policy, self.run)
                    self.run.finish(**collapsed)
        except BaseException as error:
            self._fail(error)
            raise
        run = self.run
        self.display.close(f"`{run.id}`: trained {run.steps} steps in {run.seconds:.0f} s")

    def _resume(self) -> Path | None:
        """Mark the run as running; the checkpoint to resume from."""
        found = None
        if self.main:
            self.run.clean()
            self.run.set_status("running", error=None)
            (self.run.path / SUMS).unlink(missing_ok=True)  # of an end that did not last
            found = newest_checkpoint(self.run.path, self.display.note)
        checkpoint = from_main(found)
        before: dict[str, Any] = {}
        if checkpoint is not None and self.main:
            with contextlib.suppress(OSError, ValueError):  # damaged: measured again
                before = self.run.environment
        self.unpacks = from_main(before.get("unpacked"))
        self.recipe = at_commit(_with_dtype(self.recipe, before), from_main(before.get("commit")))
        return checkpoint

    def _load(self) -> Policy:
        """The policy, after checks of sampling and memory; followed by the preflight."""
        recipe, problems, device = self.recipe, self.problems, join().device
        with all_or_none(), contextlib.nullcontext() if self.main else quiet_transformers():
            check_rollout(recipe, device)
            require_trackers(recipe)
            require_memory(
                recipe, device=device.type, problems=problems.train, processes=self.processes
            )
            policy = load_policy(recipe)
            decide_unpacking(policy.model, self.unpacks)
            if self.main and recipe.preflight_problems:
                require(preflight(recipe, problems, policy, runs=self.run.path.parent), recipe.name)
        return policy

    def _describe(self, policy: Policy) -> None:
        """Show and record the device, the precision and the parameters of the policy."""
        facts = describe_policy(policy.model)
        # Weights that are all trained are fp32, and computed in this dtype by autocast.
        facts |= {"compute_dtype": self.recipe.dtype, "processes": self.processes}
        facts["prompt_date"] = prompt_date(policy.tokenizer)
        facts["commit"] = cached_commit(Source.of(self.recipe))
        facts["unpacked"] = decide_unpacking(policy.model)  # 4-bit weights, on a CPU
        # For a local folder, only its name: notebooks are published.
        model = self.recipe.model
        self.display.note(
            f"{Path(model).name if Path(model).is_dir() else model} on {facts['device']} "
            f"({facts['device_name']})"
            f"{f' in {self.processes} processes' if self.processes > 1 else ''}: weights "
            f"{facts['quantization']}, computing in {facts['compute_dtype']}, training "
            f"{facts['trainable_parameters']:,} of {facts['parameters']:,} parameters"
        )
        if self.main:
            self.run.set_environment(facts)

    def _fail(self, error: BaseException) -> None:
        """Record and show the failure."""
        run = self.run
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        full = _disk_fault(error, run) if self.main else None
        if self.main and not run.finished:  # a signal may come while its checkpoints are removed
            with contextlib.suppress(OSError):  # a full disk is reported below
                run.set_status(state, error=redact(f"{type(error).__name__}: {error}")[:2000])
        steps = len(read_rows(run.path / "metrics.jsonl"))
        self.display.close(f"`{run.id}` {state} after {steps} of {self.recipe.max_steps} steps")
        if full is not None:
            raise full from error

    def _update(self, policy: Policy, checkpoint: Path | None) -> dict[str, Any]:
        """Train the policy from a checkpoint, or from the start, to the last step.

        Returns:
            Details for the run's status after a collapse: the alarms, and the step of the weights
            if an earlier checkpoint was restored.
        """
        recipe = self.recipe
        stop = StopRequest()
        promise = (
            "stopping: this step is finished and saved first; Ctrl-C stops at once and loses "
            f"the steps since the last checkpoint ({recipe.save_steps} at most)"
        )
        with ignore_renames(), contextlib.ExitStack() as open_trackers:
            trainer = self._make_trainer(policy, stop, open_trackers)
            over = self._collapsed()
            if checkpoint is not None and (over or checkpoint_step(checkpoint) >= recipe.max_steps):
                trainer._load_from_checkpoint(str(checkpoint))  # killed after its last step
                done = checkpoint_step(checkpoint)
            else:
                resumed = None if checkpoint is None else str(checkpoint)
                with stop.listening(promise):
                    trainer.train(resume_from_checkpoint=resumed)
                done = trainer.state.global_step
            found = self._collapsed()
            if not found and done < recipe.max_steps:
                raise Interrupted(
                    f"stopped after step {done} of {recipe.max_steps}, and saved: train the same "
                    "recipe again to resume it"
                )
            if not found or recipe.on_collapse == "stop":
                return {"collapse": found} if found else {}
            best = self._checkpoint_before(done, found)
            trainer._load_from_checkpoint(str(best))
            return {"collapse": found, "restored": checkpoint_step(best)}

    def _collapsed(self) -> list[str]:
        """The alarms that end the training; none under on_collapse="warn"."""
        if self.recipe.on_collapse == "warn":
            return []
        rows = read_rows(self.run.path / "metrics.jsonl") if self.main else []
        found = alarms(rows, problems=self.recipe.problems_per_step)
        return from_main([str(alarm) for alarm in found])

    def _checkpoint_before(self, done: int, found: list[str]) -> Path:
        """The newest checkpoint from before the window of a collapse found at step `done`.

        The window is of rollouts, which are `num_iterations` steps apart.
        """
        before = done - WINDOW * self.recipe.num_iterations
        best = None
        if self.main:
            best = newest_checkpoint(self.run.path, logger.warning, before=before)
        best = from_main(best)
        if best is None:
            raise InputError(
                f"run {self.run.id} collapsed by step {done} ({', '.join(found)}), before its "
                f"first checkpoint (save_steps={self.recipe.save_steps}): there is nothing to "
                "restore. Lower learning_rate or save_steps, raise beta, or set on_collapse='stop'"
            )
        return best

    def _make_trainer(
        self, policy: Policy, stop: StopRequest, open_trackers: contextlib.ExitStack
    ) -> IntuitorTrainer:
        recipe, run = self.recipe, self.run
        kept = self._fitting_problems(policy)
        labelled = any(problem.answer is not None for problem in kept)
        tested = any(problem.tests is not None for problem in kept)
        rewards, weights = reward_functions(recipe, policy, labelled=labelled, tested=tested)
        args = grpo_config(recipe, run.path / "checkpoints", next(policy.model.parameters()).device)
        args.reward_weights = weights
        args.run_name, args.project = run.id, PROJECT
        recorder = Recorder(
            recipe,
            run,
            self.display,
            held_out_accuracy(recipe, self.problems.held_out, policy),
            lambda step: _save(policy, run, run.snapshot_name(step)),
        )
        tracked = trackers(recipe, run, recorder) if self.main else []
        tracked = [open_trackers.enter_context(tracker) for tracker in tracked]
        trainer = IntuitorTrainer(
            policy.model,
            reward_funcs=rewards,
            args=args,
            train_dataset=to_dataset(kept, recipe),
            processing_class=policy.tokenizer,
            callbacks=[SavePoints(recipe, run.path, stop), recorder, *tracked],
            rollout=recipe.rollout,
            rollout_batch_size=recipe.rollout_batch_size,
            update=recipe.update,
            on_completions=recorder.completions,
        )
        if recipe.rollout == "vllm":
            send_merged_weights(trainer.vllm_generation, policy.model)
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _fitting_problems(self, policy: Policy) -> list[Problem]:
        """The training problems whose prompts fit."""
        recipe, problems = self.recipe, self.problems.train
        kept, dropped = fit_prompts(problems, recipe, policy.tokenizer)
        if dropped and self.main:
            text = "%d of %d prompts are longer than max_prompt_length=%d tokens and left out"
            logger.warning(text, len(dropped), len(problems), recipe.max_prompt_length)
        if len(kept) < recipe.problems_per_step:
            raise InputError(
                f"{len(kept)} problems are fewer than the {recipe.problems_per_step} of one "
                "update: add problems, or lower per_device_train_batch_size x "
                "gradient_accumulation_steps"
            )
        return kept


def _disk_fault(error: BaseException, run: Run) -> OSError | None:
    """The error to raise if a failure was caused by the disk, else None.

    torch and safetensors report a full disk in errors of their own, without its number. The
    checkpoint that was being written is removed, which leaves room to record the failure.
    """
    if isinstance(error, InputError) or not isinstance(error, Exception):
        return None
    number, file = getattr(error, "errno", None), getattr(error, "filename", None)
    if file is not None and not Path(str(file)).is_relative_to(run.path):
        return None
    free = shutil.disk_usage(run.path).free
    if number in (errno.ENOSPC, errno.EDQUOT) or (number is None and free < _LITTLE_SPACE):
        for folder in (run.path / "checkpoints").glob("checkpoint-*"):
            if not (folder / SUMS).is_file():
                shutil.rmtree(folder, ignore_errors=True)
        fault, remedy = f"the disk is full: {free / 2**20:.1f} MiB are free", "free some space"
    elif number in (errno.EROFS, errno.EACCES, errno.EPERM):
        fault, remedy = f"it cannot be written ({error})", "make it writable"
    else:
        return None
    return OSError(
        number or errno.ENOSPC,
        f"run {run.path}: {fault}. Saved files are whole: {remedy} and train the run again, or "
        "name another folder with --runs DIR or INTUITOR_RUNS",
    )


def _with_dtype(recipe: Recipe, before: Mapping[str, Any]) -> Recipe:
    """The recipe with the dtype that "auto" stands for, the same for all processes and resumptions.

    "auto" measures speed, so it might choose otherwise a moment later, on another day or in
    another process. `before` is the environment of a training that is resumed.
    """
    if recipe.dtype != "auto":
        return recipe
    device = join().device
    same_device = before.get("device", "").partition(":")[0] == device.type
    dtype = before.get("compute_dtype") if same_device else None
    dtype = dtype or str(compute_dtype(recipe.dtype, device)).removeprefix("torch.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the recipe has warned before
        return recipe.replace(dtype=from_main(dtype))


def _save(policy: Policy, run: Run, name: str | None = None) -> None:
    """Save the policy's weights under `name`; by default as the run's result."""
    model, tokenizer = policy
    is_adapter = isinstance(model, peft.PeftModel)
    settings = {"selected_adapters": ["default"], "save_embedding_layers": False}

    def save(folder: Path) -> None:
        model.save_pretrained(folder, **settings if is_adapter else {})
        if not is_adapter:
            tokenizer.save_pretrained(folder)

    run.save_folder(name or ("adapter" if is_adapter else "model"), save)
