"""A decoding step recorded as a CUDA graph: a GPU replays it without waiting for the host.

A step of a small model is a thousand small operations, which take the host longer to start than the
GPU to compute. Recorded once, all of them start at once. Shapes must then stay the same: keys and
values have room for the tokens to come, and a mask says which of it is filled.
"""

import logging
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, StaticLayer

from .cache import room_for

logger = logging.getLogger(__name__)

_ROOM = 8  # the room is a multiple of this, as the attention kernels want it
_given_up: list[str] = []  # why recording failed in this process


def can_record(backbone: Any) -> bool:
    """Whether steps can be recorded: on the current GPU, every layer attending to all tokens.

    transformers says which models run without the host's help; a host that has to look at a value
    spoils a recording.
    """
    config = backbone.config.get_text_config()
    devices = {parameter.device for parameter in backbone.parameters()}
    rope = str(getattr(config, "rope_parameters", None))
    return (
        not _given_up
        and {device.type for device in devices} == {"cuda"}
        and {device.index for device in devices} == {torch.cuda.current_device()}
        and config._attn_implementation == "sdpa"
        and bool(getattr(backbone, "_can_compile_fullgraph", False))
        and not getattr(config, "alibi", False)
        and not any(kind in rope for kind in ("dynamic", "longrope"))  # read the positions
        and not any(DynamicCache(config=config).is_sliding)
    )


class RecordedStep:
    """The step of a batch that feeds its last tokens; recorded when it runs for the second time.

    Args:
        backbone: the transformer without its LM head.
        cache: keys and values (B, heads, S, width) of S positions so far; its layers are replaced.
        mask: which of these positions are no padding (B, S); None for all.
        positions: the position of the next token (B,).
        most: positions there can be in all.
    """

    def __init__(
        self, backbone: Any, cache: Any, mask: Tensor | None, positions: Tensor, most: int
    ) -> None:
        rows, self.filled = positions.shape[0], cache.layers[0].keys.shape[-2]
        device = positions.device
        self.backbone, self.cache, self.most = backbone, cache, most
        if mask is None:
            mask = torch.ones(rows, self.filled, dtype=torch.bool, device=device)
        self.mask = mask[:, None, None]  # [B, 1, 1, room]
        self.positions = positions.unsqueeze(1).clone()
        self.next = torch.tensor([self.filled], device=device)  # there, since the graph moves it
        self.ids = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.hidden: Tensor = torch.empty(0)
        self.graph: Any = None
        self.ready = False
        self._make_room()

    def __call__(self, tokens: Tensor) -> Tensor:
        """Feed the last tokens (B,); the hidden states (B, H) hold until the next call."""
        if self.filled == self.mask.shape[-1]:
            self._make_room()
        self.ids.copy_(tokens.unsqueeze(1))
        self.filled += 1
        if self.ready and self.graph is None:
            self._record()
        if self.graph is None:
            self._step()  # also loads kernels, which cannot be recorded
            self.ready = True
        else:
            self.graph.replay()
        return self.hidden

    def keep(self, rows: Tensor) -> None:
        """Keep some rows; the step is recorded anew."""
        self._forget()
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        self.mask, self.positions, self.ids = self.mask[rows], self.positions[rows], self.ids[rows]

    def _step(self) -> None:
        self.mask.index_fill_(-1, self.next, True)
        self.hidden = self.backbone(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        self.next.add_(1)
        self.positions.add_(1)

    def _record(self) -> None:
        """Record the step, which computes nothing; where that fails, steps go on unrecorded."""
        if _given_up or not (self.ids.is_cuda and torch.cuda.is_available()):
            return  # the tests' mock device records nothing
        device, stream = self.ids.device.type, torch.cuda.current_stream()
        # Weights that autocast keeps would be kept in the graph's memory.
        cast = torch.autocast(
            device,
            torch.get_autocast_dtype(device),
            torch.is_autocast_enabled(device),
            cache_enabled=False,
        )
        graph = torch.cuda.CUDAGraph()
        try:
            with cast, torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._step()
        except torch.OutOfMemoryError:
            raise  # a smaller batch is tried
        except RuntimeError as error:
            torch.cuda.set_stream(stream)  # the recording's stays current where it fails
            _given_up.append(str(error))
            logger.warning("decoding steps are not recorded as CUDA graphs: %s", error)
            return
        self.graph = graph

    def _forget(self) -> None:
        self.graph, self.ready = None, False

    def _make_room(self) -> None:
        """Move keys and values, layer by layer, to where more of them fit."""
        self._forget()
        room = min(self.most, room_for(self.filled, self.filled + 1))
        room = -(-room // _ROOM) * _ROOM
        for i, layer in enumerate(self.cache.layers):
            self.cache.layers[i] = _roomy(layer, self.filled, room)
        filled, self.mask = self.mask, self.mask.new_zeros(*self.mask.shape[:-1], room)
        self.mask[..., : self.filled] = filled


def _roomy(held: Any, filled: int, room: int) -> StaticLayer:
    layer = StaticLayer(room)
    layer.lazy_initialization(held.keys, held.values)
    if held.values.dtype != held.keys.dtype:  # under autocast
        layer.values = layer.values.to(held.values.dtype)
    layer.keys[:, :, :filled] = held.keys[:, :, :filled]
    layer.values[:, :, :filled] = held.values[:, :, :filled]
    layer.cumulative_length.fill_(filled)
    return layer
