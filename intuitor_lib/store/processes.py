"""Several processes on one training: roles, shared values, shares of a batch.

`torchrun` or `accelerate launch` start them. Each computes its share of every update, and gradients
are averaged over them (DDP: NCCL between GPUs, gloo on the CPU). With one process nothing here has
an effect.
"""

import contextlib
import datetime
import logging
import os
from collections.abc import Iterator
from typing import Any, TypeVar

import accelerate
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather_object, get_int_from_env, str_to_bool

from ..recipe import InputError

logger = logging.getLogger(__name__)

Value = TypeVar("Value")
# A process waits this long for the others, which may be loading a model or sampling.
_PATIENCE = datetime.timedelta(hours=1)
# Variables in which launchers and MPI give the number of processes.
_STARTED = ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"]


def join() -> Any:
    """The `accelerate.PartialState` of this process, joined to those started with it.

    Its device is a CUDA GPU or the CPU; Apple's GPU has no float64, which sampling needs. Without
    GPUs, accelerate joins processes only if `cpu` is set; otherwise each would train on its own,
    unnoticed.
    """
    several = get_int_from_env(_STARTED, 1) > 1
    cpu = str_to_bool(os.environ.get("ACCELERATE_USE_CPU", "false")) == 1
    apple = torch.backends.mps.is_available()
    cpu = cpu or ((several or apple) and not torch.cuda.is_available())
    settings = {"timeout": _PATIENCE} if several else {}
    state = accelerate.PartialState(cpu=cpu, **settings)
    alone = several and state.num_processes == 1
    if alone or state.device.type == "mps":  # made before, without `cpu`
        AcceleratorState._reset_state(reset_partial_state=True)
        state = accelerate.PartialState(cpu=cpu, **settings)
    return state


def warn_if_alone() -> None:
    """Warn if `accelerate launch --cpu --num_processes N` started a single process.

    accelerate 1.15 starts several on a CPU only through MPI; without `--mpirun_hostfile` it sets
    the address where they would meet and runs one.
    """
    launched = (
        str_to_bool(os.environ.get("ACCELERATE_USE_CPU", "false")) and "MASTER_ADDR" in os.environ
    )
    if launched and join().num_processes == 1 and not any(name in os.environ for name in _STARTED):
        logger.warning(
            "accelerate launch --cpu started this one process, whatever its --num_processes: for "
            "several on the CPU use torchrun --standalone --nproc_per_node N"
        )


def is_main() -> bool:
    """Whether this is the process that writes files and messages."""
    return bool(join().is_main_process)


def wait() -> None:
    """Wait until every process has called this."""
    join().wait_for_everyone()


def from_main(value: Value) -> Value:
    """The main process's value, on every process."""
    if join().num_processes == 1:
        return value
    values: list[Any] = [value]
    broadcast_object_list(values)
    return values[0]


def from_all(values: list[Value]) -> list[Value]:
    """The concatenated lists of all processes in their order, on every process."""
    return list(values) if join().num_processes == 1 else gather_object(values)


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """A block that succeeds on every process or fails on every one.

    Otherwise a process that succeeded would wait for ever for one that failed. Nothing in the
    block may wait for other processes.

    Raises:
        RuntimeError: another process failed; with its error.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    failures = from_all([None if failure is None else f"{type(failure).__name__}: {failure}"])
    if failure is not None:
        raise failure
    for index, text in enumerate(failures):
        if text is not None:
            raise RuntimeError(f"process {index} of {len(failures)} failed: {text}")


def share_batch(batch_size: int, accumulation: int, processes: int) -> tuple[int, int]:
    """Batch size and accumulation steps of each process for an update of the same completions.

    Each process computes an equal share of the `batch_size * accumulation` completions, in as few
    passes as possible with at most `batch_size` at a time. A group may lie on two processes; its
    rewards are gathered before they are normalized.

    Args:
        batch_size: the recipe's `per_device_train_batch_size`.
        accumulation: the recipe's `gradient_accumulation_steps`.
        processes: how many processes share an update.

    Raises:
        InputError: the completions of an update cannot be shared equally.
    """
    total = batch_size * accumulation
    if total % processes:
        fitting = [n for n in range(1, total + 1) if total % n == 0]
        near = [n for n in fitting if n < processes][-1:] + [n for n in fitting if n > processes][
            :1
        ]
        raise InputError(
            f"{processes} processes cannot share the {total} completions of an update equally "
            f"(per_device_train_batch_size={batch_size} x "
            f"gradient_accumulation_steps={accumulation}): start "
            f"{' or '.join(map(str, near))} processes, or make the product a multiple of "
            f"{processes}"
        )
    share = total // processes
    passes = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= batch_size)
    return share // passes, passes
