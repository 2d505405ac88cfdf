"""What scoring tokens takes: full logits against chunks, each in a process of its own."""

import multiprocessing
import platform
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil
import torch
from torch import Tensor

from intuitor_lib.certainty.head import Head, head_log_probs
from intuitor_lib.certainty.tokens import chunked_self_certainty, self_certainty, token_log_probs

__all__ = ["peak_resident", "scoring_peak"]

_HIDDEN = 576  # of SmolLM2-135M; what is measured hardly depends on it


def scoring_peak(what: str, way: str, tokens: int, vocabulary: int) -> int:
    """Bytes above the hidden states and the LM head at the peak of scoring `tokens` tokens.

    `what` is "certainty" (self-certainty, no gradient) or "loss" (log-probabilities and their
    backward pass), `way` "full" (all logits at once) or "ours" (chunks). In fp32; memory of the
    GPU where there is one, else of a process started for it, whose peak is nobody else's.
    """
    if torch.cuda.is_available():
        return _measure(what, way, tokens, vocabulary)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure, what, way, tokens, vocabulary).result()


def _measure(what: str, way: str, tokens: int, vocabulary: int) -> int:
    torch.manual_seed(0)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    hidden = torch.empty(tokens, _HIDDEN, device=device).normal_()
    head = torch.nn.Linear(_HIDDEN, vocabulary, bias=False, device=device).requires_grad_(False)
    ids = torch.randint(0, vocabulary, (tokens,), device=device)
    # A few tokens first: thread pools and buffers of the libraries are not what is measured.
    _score(what, way, hidden[:8].clone(), head, ids[:8])
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _score(what, way, hidden, head, ids)
        return torch.cuda.max_memory_allocated() - before
    before = psutil.Process().memory_info().rss
    _score(what, way, hidden, head, ids)
    return peak_resident() - before


def peak_resident() -> int:
    """Bytes resident at most since the process began."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not ru_maxrss, which on Linux begins with that of the process it was forked from.
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _score(what: str, way: str, hidden: Tensor, head: torch.nn.Linear, ids: Tensor) -> None:
    if what == "certainty":
        with torch.no_grad():
            if way == "full":
                self_certainty(head(hidden))
            else:
                chunked_self_certainty(hidden, Head(head.weight))
        return
    hidden.requires_grad_()
    scores = (
        token_log_probs(head(hidden), ids)
        if way == "full"
        else head_log_probs(hidden, Head(head.weight), ids)[0]
    )
    scores.mean().backward()
