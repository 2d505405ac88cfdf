"""Where a training is saved and may stop, and an order of problems that a resumed one repeats."""

import contextlib
import math
import random
import signal
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import transformers
from accelerate.utils import gather_object

from ..recipe import InputError, Recipe
from ..store.checkpoints import complete_checkpoint
from ..store.processes import join
from ..store.signals import handling
from .monitor import WINDOW

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Stopped by a signal, with everything saved. The message explains how to resume."""


class StopRequest:
    """Whether to stop: within `listening` a signal sets `asked`; SIGINT after that interrupts.

    Signals are handled in the main thread only; in another thread nothing changes here.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def listening(self, promise: str) -> Iterator[None]:
        """Handle SIGINT and SIGTERM: the first one prints `promise` and sets `asked`.

        Raises:
            KeyboardInterrupt: at SIGINT, once asked. SIGTERM may come twice, from two who ask.
        """

        def take(number: int, frame: FrameType | None) -> None:
            if self.asked:
                if number == signal.SIGINT:
                    raise KeyboardInterrupt
                return
            self.asked = True
            # The signal may have come in the middle of another print.
            with contextlib.suppress(RuntimeError):
                print(f"\n{promise}", file=sys.stderr, flush=True)

        with handling(_SIGNALS, take):
            yield


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM interrupt as SIGINT does; it would end the process, which may be a kernel."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt("stopped by SIGTERM; the same command resumes")

    with handling([signal.SIGTERM], interrupt):
        yield


def kept_checkpoints(recipe: Recipe) -> int:
    """How many are kept: two to resume from, and one from before the window of a collapse."""
    return 2 + -(-WINDOW * recipe.num_iterations // recipe.save_steps)


def _all_finite(model: torch.nn.Module) -> bool:
    """Whether no trained weight is NaN or infinite, in any process."""
    trained = (p.detach() for p in model.parameters() if p.requires_grad)
    return all(gather_object([all(bool(p.isfinite().all()) for p in trained)]))


class EpochSampler(torch.utils.data.Sampler[int]):
    """TRL's order of problems, with each epoch's order a function of seed and epoch.

    TRL draws the orders of all epochs from one generator, which no checkpoint holds: a training
    resumed in its second epoch would repeat the first one's order. The first epoch is TRL's.
    `per_rollout` is the number of optimizer steps for each rollout, `step()` the current step. An
    epoch ends with an optimizer step, which may have fewer completions than the others.
    """

    def __init__(self, theirs: Any, per_rollout: Fraction, step: Callable[[], int]) -> None:
        self.theirs, self._step = theirs, step
        rollouts = len(theirs.data_source) // theirs.batch_size
        self.updates = math.ceil(rollouts * per_rollout)  # in an epoch

    def __len__(self) -> int:
        return len(self.theirs)

    def __iter__(self) -> Iterator[int]:
        """Indices of the current epoch."""
        if self.theirs.shuffle:
            epoch, seed = self._step() // max(1, self.updates), self.theirs.seed or 0
            # Torch's generator uses 32 bits of a seed.
            later = random.Random(f"{seed}:{epoch}").getrandbits(32)
            self.theirs.generator.manual_seed(later if epoch else seed)
        return iter(self.theirs)


class SavePoints(transformers.TrainerCallback):
    """Saves every `save_steps` steps, at the last step, and before stopping at a request.

    Checkpoints do not hold the rollout of an update, so they are taken between two rollouts, which
    are `num_iterations` steps apart. `run` is the folder of the run. Weights that are NaN or
    infinite end the training before they are saved; under `on_collapse="restore"` the monitor does.
    """

    def __init__(self, recipe: Recipe, run: Path, stop: StopRequest) -> None:
        self._recipe, self._run, self._stop = recipe, run, stop
        self._saved = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved = state.global_step

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: torch.nn.Module, **kwargs: Any
    ) -> None:
        if self._recipe.on_collapse != "restore" and not _all_finite(model):
            raise InputError(
                f"step {state.global_step} made the weights NaN or infinite; checkpoints and "
                "snapshots before it are kept. Lower "
                f"learning_rate={self._recipe.learning_rate:g}, and see that no reward is infinite"
            )
        stopping = any(gather_object([self._stop.asked]))
        last = state.global_step >= state.max_steps
        if state.global_step % self._recipe.num_iterations and not last:
            return
        due = state.global_step - self._saved >= self._recipe.save_steps
        if due or last or stopping:
            control.should_save = True
        if stopping:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        join().wait_for_everyone()  # until each process has written its part
        if join().is_main_process:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            complete_checkpoint(folder, self._run)
        self._saved = state.global_step
