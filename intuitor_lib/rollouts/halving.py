"""Sample with half the batch size where memory runs out."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

logger = logging.getLogger(__name__)


def halve_until_it_fits(sample: Callable[[int], list[Any]], batch_size: int) -> list[Any]:
    """`sample(batch_size)`, tried again with half the size each time that memory runs out.

    Every attempt starts from the same random state. A smaller batch draws other random numbers for
    a completion than a larger one, so these completions differ from those of the same request with
    enough memory: the size is halved only where sampling would fail otherwise.
    """
    state = torch.get_rng_state()
    gpu_state = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    while True:
        try:
            return sample(batch_size)
        except RuntimeError as error:
            if batch_size <= 1 or not should_reduce_batch_size(error):
                raise
        # Here the error, which holds the tensors of the failed attempt, is gone.
        clear_device_cache(garbage_collection=True)
        torch.set_rng_state(state)
        if gpu_state is not None:
            torch.cuda.set_rng_state(gpu_state)
        batch_size //= 2
        logger.warning("memory ran out: sampling again with batch_size=%d", batch_size)
