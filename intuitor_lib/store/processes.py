"""Several processes on one training: joining them, shared values, shares of a batch.

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
from accelerate.utils import broadcast_object_list, gather_object
from accelerate.utils.environment import get_int_from_env, parse_flag_from_env

from ..recipe import InputError, Recipe

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
    on_cpu = (several or torch.backends.mps.is_available()) and not torch.cuda.is_available()
    settings: Any = {"cpu": on_cpu or parse_flag_from_env("ACCELERATE_USE_CPU")}
    if several:
        settings["timeout"] = _PATIENCE
    state = accelerate.PartialState(**settings)
    if (several and state.num_processes == 1) or state.device.type == "mps":
        AcceleratorState._reset_state(reset_partial_state=True)  # made before, without `cpu`
        state = accelerate.PartialState(**settings)
    return state


def warn_if_alone() -> None:
    """Warn if `accelerate launch --cpu --num_processes N` started a single process.

    accelerate 1.15 starts several on a CPU only through MPI; without `--mpirun_hostfile` it sets
    the address where they would meet and runs one.
    """
    launched = parse_flag_from_env("ACCELERATE_USE_CPU") and "MASTER_ADDR" in os.environ
    if launched and not any(name in os.environ for name in _STARTED):
        logger.warning(
            "accelerate launch --cpu started this one process, whatever its --num_processes: for "
            "several on the CPU use torchrun --standalone --nproc_per_node N"
        )


def refuse_sharding() -> None:
    """Refuse a launch that would shard the weights over the processes."""
    zero = parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")
    zero &= os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"
    if zero or parse_flag_from_env("ACCELERATE_USE_FSDP"):
        raise InputError(
            f"{'DeepSpeed ZeRO-3' if zero else 'FSDP'} shards the weights, and self-certainty "
            "needs whole ones: launch without it, as with torchrun (DDP); LoRA on a 4-bit model "
            "fits one device"
        )


def from_main(value: Value) -> Value:
    """The main process's value, on every process."""
    return broadcast_object_list([value])[0]


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
    failures = gather_object([None if failure is None else f"{type(failure).__name__}: {failure}"])
    if failure is not None:
        raise failure
    for index, text in enumerate(failures):
        if text is not None:
            raise RuntimeError(f"process {index} of {len(failures)} failed: {text}")


def share_batch(recipe: Recipe, processes: int) -> dict[str, int]:
    """The recipe's batch settings for each process, for an update of the same completions.

    Each of the `processes` computes an equal share of the completions, in as few passes as
    possible with at most `per_device_train_batch_size` at a time. A group may lie on two
    processes; its rewards are gathered before they are normalized.

    Raises:
        InputError: the completions of an update cannot be shared equally.
    """
    total, most = recipe.completions_per_step, recipe.per_device_train_batch_size
    if total % processes:
        fitting = [n for n in range(1, total + 1) if total % n == 0]
        fewer, more = ([n for n in fitting if (n > processes) is above] for above in (False, True))
        raise InputError(
            f"{processes} processes cannot share the {total} completions of an update equally "
            f"(per_device_train_batch_size={most} x "
            f"gradient_accumulation_steps={recipe.gradient_accumulation_steps}): start "
            f"{' or '.join(map(str, fewer[-1:] + more[:1]))} processes, or make the product a "
            f"multiple of {processes}"
        )
    share = total // processes
    passes = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= most)
    return {"per_device_train_batch_size": share // passes, "gradient_accumulation_steps": passes}
