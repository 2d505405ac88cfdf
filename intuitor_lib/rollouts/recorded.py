"""A decoding step recorded as a CUDA graph: a GPU replays it without waiting for the host.

A step of a small model is a thousand small operations, which take the host longer to start than the
GPU to compute. Recorded once, all of them start at once. Shapes must then stay the same: keys and
values have room for every token from the start, and a mask says which of it is filled.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, StaticLayer

logger = logging.getLogger(__name__)

_ROOM = 8  # the room is a multiple of this, as the attention kernels want it
_given_up: list[str] = []  # why recording failed in this process


def can_record(backbone: Any, layers: Sequence[Any]) -> bool:
    """Whether the steps of a backbone can be recorded: on one GPU, with attention to all tokens."""
    config = backbone.config.get_text_config()
    device = backbone.get_input_embeddings().weight.device
    kinds = getattr(config, "layer_types", None) or ()
    return (
        device.type == "cuda"
        and config._attn_implementation == "sdpa"
        and all(kind == "full_attention" for kind in kinds)
        and all(layer.keys.device == device for layer in layers)
    )


class RecordedStep:
    """The step of a batch that feeds its last tokens; recorded after it ran for the first time.

    Args:
        backbone: the transformer without its LM head.
        held: keys and values (B, heads, S, width) of each layer for the S positions so far.
        mask: which of these positions are no padding (B, S); None for all.
        positions: the position of the next token (B,).
        room: positions in all.
    """

    def __init__(
        self,
        backbone: Any,
        held: Sequence[tuple[Tensor, Tensor]],
        mask: Tensor | None,
        positions: Tensor,
        room: int,
    ) -> None:
        rows, filled = positions.shape[0], held[0][0].shape[-2]
        self.backbone, self.room, self.filled = backbone, -(-room // _ROOM) * _ROOM, filled
        self.cache = DynamicCache(config=backbone.config.get_text_config())
        self.cache.layers = [_with_room(keys, values, self.room) for keys, values in held]
        device = positions.device
        self.mask = torch.zeros(rows, 1, 1, self.room, dtype=torch.bool, device=device)
        self.mask[:, 0, 0, :filled] = True if mask is None else mask
        self.positions = positions.unsqueeze(1).clone()
        self.next = torch.tensor([filled], device=device)  # on the device, for the graph moves it
        self.ids = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.hidden: Tensor = torch.empty(0)
        self.graph: Any = None

    def __call__(self, tokens: Tensor) -> Tensor:
        """Feed the last tokens (B,); the hidden states (B, H) hold until the next call."""
        self.ids.copy_(tokens.unsqueeze(1))
        self.filled += 1
        if self.graph is not None:
            self.graph.replay()
        else:
            self._step()
            self._record()
        return self.hidden

    def keep(self, rows: Tensor) -> "RecordedStep":
        """The step of some rows; it is recorded anew."""
        held = [
            (layer.keys[rows, :, : self.filled], layer.values[rows, :, : self.filled])
            for layer in self.cache.layers
        ]
        mask, positions = self.mask[rows, 0, 0, : self.filled], self.positions[rows, 0]
        return RecordedStep(self.backbone, held, mask, positions, self.room)

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
        if _given_up or not torch.cuda.is_available():  # the tests' mock device records nothing
            return
        made, device = self.hidden, self.ids.device.type
        # Weights that autocast keeps would be kept in the graph's memory.
        cast = torch.autocast(
            device,
            torch.get_autocast_dtype(device),
            torch.is_autocast_enabled(device),
            cache_enabled=False,
        )
        graph = torch.cuda.CUDAGraph()
        try:
            with cast, torch.cuda.graph(graph):
                self._step()
        except RuntimeError as error:
            _given_up.append(str(error))
            logger.warning("decoding steps are not recorded as CUDA graphs: %s", error)
            self.hidden = made
            return
        # The first step's values, where the replays will put theirs.
        self.hidden.copy_(made)
        self.graph = graph


def _with_room(keys: Tensor, values: Tensor, room: int) -> StaticLayer:
    layer = StaticLayer(room)
    layer.lazy_initialization(keys, values)
    filled = keys.shape[-2]
    layer.keys[:, :, :filled], layer.values[:, :, :filled] = keys, values
    layer.cumulative_length.fill_(filled)
    return layer
