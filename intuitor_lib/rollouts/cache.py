"""A cache of keys and values that grows in place."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):
    """Keys and values with room to grow, so that a step copies none of the earlier ones."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.keys = self._room = key_states[..., :0, :]
        self.values = self._value_room = value_states[..., :0, :]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        if end > self._room.shape[-2]:
            capacity = room_for(start, end)
            self._room = _with_room(self.keys, key_states, capacity)
            self._value_room = _with_room(self.values, value_states, capacity)
        self._room[..., start:end, :] = key_states
        self._value_room[..., start:end, :] = value_states
        self.keys, self.values = self._room[..., :end, :], self._value_room[..., :end, :]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices.to(self.keys.device))
        self._room, self._value_room = self.keys, self.values  # the next step makes new room


def room_for(held: int, needed: int) -> int:
    """Tokens to make room for when `needed` tokens do not fit beside the `held` ones."""
    return max(needed, held + held // 2, held + 64)


def _with_room(held: Tensor, like: Tensor, capacity: int) -> Tensor:
    room = like.new_empty(*like.shape[:-2], capacity, like.shape[-1])
    room[..., : held.shape[-2], :] = held
    return room


def cache_bytes(backbone: Any, rows: int, tokens: int) -> int:
    """Most memory of a cache of `rows` sequences of `tokens` tokens, while it grows."""
    config = backbone.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    held = 2 * width * (getattr(config, "num_key_value_heads", None) or heads)
    room = room_for(tokens, tokens + 1)
    itemsize = backbone.get_input_embeddings().weight.element_size()
    # While one layer grows, it is held twice.
    return rows * room * held * itemsize * (config.num_hidden_layers + 1)
