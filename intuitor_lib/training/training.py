"""From a recipe to a trained run: GRPO with self-certainty as the reward, on TRL."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import peft
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils.notebook import NotebookProgressCallback

from ..policy.adapters import ignore_renames
from ..policy.loading import Policy, describe_policy, load_policy
from ..policy.precision import compute_dtype
from ..problems.problems import Problem, Problems, load_problems
from ..problems.prompts import conversation, fit_prompts, prompt_token_ids, to_dataset
from ..recipe.constants import InputError
from ..recipe.recipe import Recipe
from ..report.progress import LiveTraining, quiet_transformers
from ..rollouts.sampling import reason_against as reason_against_rollouts
from ..rollouts.serving import check_rollout, send_merged_weights
from ..store.checkpoints import checkpoint_step, newest_checkpoint, restore_records
from ..store.files import SUMS, read_rows, redact
from ..store.processes import (
    all_or_none,
    from_all,
    from_main,
    is_main,
    join,
    share_batch,
    wait,
    warn_if_alone,
)
from ..store.run_store import RunStore
from ..store.runs import Run
from .arguments import grpo_config
from .interrupts import Interrupted, StopRequest
from .memory_advice import require_memory
from .monitor import WINDOW, alarms
from .readiness import preflight, require, sample_aside
from .recorder import Recorder
from .rewards.answers import AccuracyReward
from .rewards.factory import reward_functions
from .savepoints import SavePoints
from .trainer import IntuitorTrainer

__all__ = ["train"]

logger = logging.getLogger(__name__)

_LITTLE_SPACE = 2**20  # bytes; a failure with less is laid to the disk


def train(
    recipe: Recipe, *, runs: str | Path | None = None, problems: Problems | None = None
) -> Run:
    """Train a recipe, or return the run of the store that already holds it.

    An interrupted run goes on from its last whole checkpoint and ends, on a CPU, as if it had not
    been interrupted. While another process trains the run this one shows its steps. Called on
    every process that `torchrun` or `accelerate launch` started, it trains the recipe on all of
    them: the main process writes the run, and each returns it.

    Args:
        recipe: what to train.
        runs: folder of the run store; by default as in `RunStore`.
        problems: what `load_problems(recipe)` returns, where it is at hand already.

    Raises:
        InputError: malformed problems, prompts that do not fit, a policy that cannot be had, or
            an update that the processes cannot share, or more memory than there is
            (`memory_advice.require_memory`); before anything is loaded on a device where possible.
            Or a fault that `preflight` found.
        Interrupted: somebody asked to stop, which saves first.
        OSError: the disk is full or cannot be written; what was saved is whole.
        RuntimeError: another process failed.
    """
    problems = problems or load_problems(recipe)
    warn_if_alone()
    share_batch(recipe, join().num_processes)
    run = _open(recipe, problems, runs)
    if from_main(run.finished):
        if is_main():
            run.tidy()
        return run
    with _held(run):
        if not from_main(run.finished):
            _train(recipe, problems, run)
    return run


def _open(recipe: Recipe, problems: Problems, runs: str | Path | None) -> Run:
    """The run, made by the main process if it is new.

    Raises:
        InputError: the processes were given different recipes or problems.
    """
    with all_or_none():
        described = problems.describe()
        path = RunStore(runs).open(recipe, described).path if is_main() else Path()
    asked = set(from_all([(recipe.digest, described["fingerprint"])]))
    if len(asked) > 1:
        raise InputError(
            f"the processes were given {len(asked)} different recipes or problems: start them all "
            "with the same command, on the same files"
        )
    return Run(from_main(path))


@contextlib.contextmanager
def _held(run: Run) -> Iterator[None]:
    """Hold the run by the main process's lock. The others wait with it, however long it takes."""
    if is_main():
        with contextlib.closing(_Watching(run)) as watching, run.lock(watching):
            watching.close()
            from_main(True)
            yield
    else:
        while not from_main(False):
            pass
        yield


class _Watching:
    """Shows the training of another process while this one waits for it."""

    def __init__(self, run: Run) -> None:
        self.run, self.shown = run, 0
        self.display: LiveTraining | None = None

    def __call__(self) -> None:
        from_main(False)
        if self.display is None:
            self.display = LiveTraining(f"{self.run.id}, elsewhere", self.run.recipe.max_steps)
        rows = read_rows(self.run.path / "metrics.jsonl")
        if len(rows) != self.shown:
            self.shown = len(rows)
            if rows:
                self.display.update(rows)

    def close(self) -> None:
        if self.display is not None:
            self.display.close(f"`{self.run.id}`: the other process is done")
            self.display = None


def _train(recipe: Recipe, problems: Problems, run: Run) -> None:
    main, processes = is_main(), join().num_processes
    display = LiveTraining(f"train {run.id}", recipe.max_steps, shown=main)
    try:
        if main:
            run.clean()
            run.set_status("running")
        checkpoint = from_main(newest_checkpoint(run.path, display.say) if main else None)
        recipe = _with_common_dtype(recipe, run, resumed=checkpoint is not None)
        with all_or_none(), contextlib.nullcontext() if main else quiet_transformers():
            check_rollout(recipe, join().device)
            device = join().device.type
            require_memory(recipe, device=device, problems=problems.train, processes=processes)
            policy = load_policy(recipe)
            if main and recipe.preflight_problems:
                found = preflight(recipe, problems, policy, runs=run.path.parent)
                require(found, recipe)
        facts = {**describe_policy(policy.model), "processes": processes}
        # Of a local folder its name alone: notebooks are published.
        name = Path(recipe.model).name if Path(recipe.model).is_dir() else recipe.model
        display.say(
            f"{name} on {facts['device']} ({facts['device_name']})"
            f"{f' in {processes} processes' if processes > 1 else ''}: weights "
            f"{facts['quantization']}, computing in {facts['compute_dtype']}, training "
            f"{facts['trainable_parameters']:,} of {facts['parameters']:,} parameters"
        )
        if main:
            run.set_environment(facts)
            restore_records(run.path, checkpoint)
        collapsed = _update(recipe, problems, policy, run, display, checkpoint)
        with all_or_none():
            if main:
                _save(policy, run)
                run.finish(**collapsed)
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        full = _disk_fault(error, run) if main else None
        if main:
            with contextlib.suppress(OSError):  # of a full disk, which is what is told
                told = redact(f"{type(error).__name__}: {error}")[:2000]
                run.set_status(state, error=told)
        steps = len(read_rows(run.path / "metrics.jsonl"))
        display.close(f"`{run.id}` {state} after {steps} of {recipe.max_steps} steps")
        if full is not None:
            raise full from error
        raise
    display.close(f"`{run.id}`: trained {run.steps} steps in {run.seconds:.0f} s")
    wait()


def _update(
    recipe: Recipe,
    problems: Problems,
    policy: Policy,
    run: Run,
    display: LiveTraining,
    checkpoint: Path | None,
) -> dict[str, Any]:
    """Train the policy from a checkpoint, or from the start, to the last step.

    Returns:
        What of a collapse belongs into the run's status: the alarms, and the step whose weights
        are the result where they are not the last one's.

    Raises:
        Interrupted: somebody asked to stop; all is saved.
    """
    stop = StopRequest()
    promise = (
        "stopping: this step is finished and saved first; once more stops at once and loses the "
        f"steps since the last checkpoint ({recipe.save_steps} at most)"
    )
    with ignore_renames():
        trainer = _make_trainer(recipe, problems, policy, run, display, stop)
        before = from_main(_collapsed(recipe, run))
        if checkpoint is not None and (before or checkpoint_step(checkpoint) >= recipe.max_steps):
            trainer._load_from_checkpoint(str(checkpoint))  # killed after its last step
            done = checkpoint_step(checkpoint)
        else:
            resumed = None if checkpoint is None else str(checkpoint)
            with stop.listening(promise):
                trainer.train(resume_from_checkpoint=resumed)
            done = trainer.state.global_step
        wait()
        found = from_main(_collapsed(recipe, run))
        if not found and done < recipe.max_steps:
            raise Interrupted(
                f"stopped after step {done} of {recipe.max_steps}, and saved: ask for the same "
                "run again and it goes on from there"
            )
        if not found or recipe.on_collapse == "stop":
            return {"collapse": found} if found else {}
        best = from_main(
            newest_checkpoint(run.path, logger.warning, before=done - WINDOW) if is_main() else None
        )
        if best is None:
            raise InputError(
                f"run {run.id} collapsed by step {done} ({', '.join(found)}), before its first "
                f"checkpoint (save_steps={recipe.save_steps}): there is nothing to go back to. "
                "Lower learning_rate or save_steps, raise beta, or set on_collapse='stop'"
            )
        trainer._load_from_checkpoint(str(best))
        return {"collapse": found, "restored": checkpoint_step(best)}


def _collapsed(recipe: Recipe, run: Run) -> list[str]:
    """The alarms that ended the training; none where it goes on in spite of them."""
    if recipe.on_collapse == "warn" or not is_main():
        return []
    rows = read_rows(run.path / "metrics.jsonl")
    return [str(alarm) for alarm in alarms(rows, problems=recipe.problems_per_step)]


def _held_out_accuracy(
    recipe: Recipe, problems: Sequence[Problem], policy: Policy
) -> Callable[[], tuple[float, int]] | None:
    """Measures accuracy and its number of completions, one sampled for each labelled problem.

    Its draws are its own: the training's are as without it. None where nothing can be measured.
    """
    labelled = [problem for problem in problems if problem.answer is not None]
    reason = reason_against_rollouts(policy.model)
    if not recipe.eval_steps or not labelled or reason:
        if recipe.eval_steps:
            logger.warning("no held-out accuracy on the way: %s", reason or "no held-out answers")
        return None
    conversations = [conversation(problem.prompt, recipe) for problem in labelled]
    prompt_ids = prompt_token_ids(policy.tokenizer, conversations)
    reward = AccuracyReward(last_number=recipe.last_number)

    def measure() -> tuple[float, int]:
        sampled = sample_aside(policy, prompt_ids, recipe, seed=recipe.seed)
        decode = policy.tokenizer.decode
        texts = [decode(completion.ids, skip_special_tokens=True) for completion in sampled]
        verdicts = reward(conversations, texts, [problem.answer for problem in labelled])
        return sum(filter(None, verdicts)) / len(verdicts), len(verdicts)

    return measure


def _disk_fault(error: BaseException, run: Run) -> OSError | None:
    """What a failure has to do with the disk; None where nothing.

    torch and safetensors tell of a full disk in errors of their own, without its number. The
    checkpoint that was being written is removed, which leaves room to say so.
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
        what = f"the disk is full: {free / 2**20:.1f} MiB are free"
        remedy = "free some space"
    elif number in (errno.EROFS, errno.EACCES, errno.EPERM):
        what, remedy = f"it cannot be written ({error})", "make it writable"
    else:
        return None
    return OSError(
        number or errno.ENOSPC,
        f"run {run.path}: {what}. What was saved is whole: {remedy} and ask for the run again, or "
        "name another folder with --runs DIR or INTUITOR_RUNS",
    )


def _with_common_dtype(recipe: Recipe, run: Run, *, resumed: bool) -> Recipe:
    """The recipe with one choice of dtype, for all processes and every resumption.

    "auto" measures, so on another day or in another process it might choose otherwise.
    """
    state = join()
    before = {}
    if resumed and is_main():
        with contextlib.suppress(OSError, ValueError):  # damaged: measured again
            before = run.environment
    if recipe.dtype != "auto" or (state.num_processes == 1 and not resumed):
        return recipe
    same_device = before.get("device", "").partition(":")[0] == state.device.type
    dtype = before.get("compute_dtype") if same_device else None
    dtype = dtype or str(compute_dtype(recipe.dtype, state.device)).removeprefix("torch.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the recipe has to say, it has said
        return recipe.replace(dtype=from_main(dtype))


def _make_trainer(
    recipe: Recipe,
    problems: Problems,
    policy: Policy,
    run: Run,
    display: LiveTraining,
    stop: StopRequest,
) -> IntuitorTrainer:
    kept, dropped = fit_prompts(problems.train, recipe, policy.tokenizer)
    if dropped and is_main():
        logger.warning(
            "%d of %d prompts are longer than max_prompt_length=%d tokens and left out",
            len(dropped),
            len(problems.train),
            recipe.max_prompt_length,
        )
    if len(kept) < recipe.problems_per_step:
        raise InputError(
            f"{len(kept)} problems are fewer than the {recipe.problems_per_step} of one update: "
            "add problems, or lower per_device_train_batch_size x gradient_accumulation_steps"
        )
    labelled = any(problem.answer is not None for problem in kept)
    tested = any(problem.tests is not None for problem in kept)
    rewards, weights = reward_functions(recipe, policy, labelled=labelled, tested=tested)
    args = grpo_config(recipe, run.path / "checkpoints", next(policy.model.parameters()).device)
    args.reward_weights = weights
    held_out = _held_out_accuracy(recipe, problems.held_out, policy)
    recorder = Recorder(
        recipe, run, display, held_out, lambda step: _save(policy, run, run.snapshot_name(step))
    )
    trainer = IntuitorTrainer(
        policy.model,
        reward_funcs=rewards,
        args=args,
        train_dataset=to_dataset(kept, recipe),
        processing_class=policy.tokenizer,
        callbacks=[recorder, SavePoints(recipe, run.path, stop)],
        rollout=recipe.rollout,
        rollout_batch_size=recipe.rollout_batch_size,
        update=recipe.update,
        on_completions=recorder.completions,
    )
    if recipe.rollout == "vllm":
        send_merged_weights(trainer.vllm_generation, policy.model)
    elif recipe.rollout == "continuous_batching":
        # TRL would cast the model to it before every rollout, LoRA weights included. Autocast,
        # which is set up by now, stays.
        trainer.args.bf16 = trainer.args.fp16 = False
    for printer in (PrinterCallback, ProgressCallback, NotebookProgressCallback):
        trainer.remove_callback(printer)
    return trainer


def _save(policy: Policy, run: Run, name: str | None = None) -> None:
    """Save the policy's weights under `name`; by default as the run's result."""
    if isinstance(policy.model, peft.PeftModel):
        run.save_folder(
            name or "adapter",
            lambda folder: policy.model.save_pretrained(
                folder, selected_adapters=["default"], save_embedding_layers=False
            ),
        )
    else:
        run.save_folder(name or "model", lambda folder: _save_whole(policy, folder))


def _save_whole(policy: Policy, folder: Path) -> None:
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
