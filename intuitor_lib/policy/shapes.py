"""Sizes of decoders built like Llama, from their configuration.

Those of the recipes' models are in `shapes.yaml`, so that estimates need no network.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ..recipe import InputError
from ..recipe.constants import read_yaml
from .pretrained import Source, load_config


class Shape(NamedTuple):
    """Sizes of a decoder; `query` and `key` are the widths of all heads together."""

    kind: str
    hidden: int
    intermediate: int
    layers: int
    query: int
    key: int
    vocabulary: int
    tied: bool
    windows: bool = False  # sliding-window attention in some layers

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of one decoder layer's linear layers."""
        hidden, middle, query, key = self.hidden, self.intermediate, self.query, self.key
        attention = {"q_proj": (hidden, query), "k_proj": (hidden, key), "v_proj": (hidden, key)}
        mlp = {"gate_proj": (hidden, middle), "up_proj": (hidden, middle)}
        return {**attention, "o_proj": (query, hidden), **mlp, "down_proj": (middle, hidden)}

    @property
    def parameters(self) -> tuple[int, int]:
        """Parameters of the linear layers, and of embeddings, LM head and norms; no biases."""
        linear = self.layers * sum(a * b for a, b in self.linears.values())
        return linear, self.hidden * (self.vocabulary * (2 - self.tied) + 2 * self.layers + 1)


ARCHITECTURES: Mapping[str, Shape] = {
    name: Shape(*sizes) for name, sizes in read_yaml(__file__, "shapes.yaml").items()
}
"""Shapes of the recipes' models, from their `config.json`."""


def model_shape(source: Source) -> Shape:
    """Return a model's shape, from `ARCHITECTURES`, a local folder or the hub."""
    if source.name in ARCHITECTURES:
        return ARCHITECTURES[source.name]
    config = load_config(source)
    values = config.get_text_config().to_dict()
    needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    experts = ("num_experts", "num_local_experts", "n_routed_experts")
    is_mixture = any(map(values.get, experts))
    if is_mixture or not all(isinstance(values.get(name), int) for name in needed):
        raise InputError(
            f"model={source.name!r} ({values['model_type']}) is not built as Llama: its memory "
            "cannot be estimated, and it trains without an estimate"
        )
    hidden, middle, layers, heads = (values[name] for name in needed)
    width = values.get("head_dim") or hidden // heads
    key = width * (values.get("num_key_value_heads") or heads)
    sizes = (hidden, middle, layers, width * heads, key, values["vocab_size"])
    windows = any(kind != "full_attention" for kind in values.get("layer_types") or ())
    return Shape(values["model_type"], *sizes, bool(config.tie_word_embeddings), windows)
