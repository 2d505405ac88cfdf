"""Sizes of decoders built like Llama, from their configuration.

The shapes of the recipes' models are stored here, so that estimates need no network.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ..recipe import QWEN_CODER, SMOLLM2, InputError
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
    SMOLLM2: Shape("llama", 576, 1536, 30, 576, 192, 49152, True),
    QWEN_CODER: Shape("qwen2", 896, 4864, 24, 896, 128, 151936, True),
    "Qwen/Qwen2.5-1.5B": Shape("qwen2", 1536, 8960, 28, 1536, 256, 151936, True),
    "Qwen/Qwen2.5-3B": Shape("qwen2", 2048, 11008, 36, 2048, 256, 151936, True),
    "Qwen/Qwen2.5-7B": Shape("qwen2", 3584, 18944, 28, 3584, 512, 152064, False),
    "Qwen/Qwen2.5-14B": Shape("qwen2", 5120, 13824, 48, 5120, 1024, 152064, False),
    "Qwen/Qwen3-14B": Shape("qwen3", 5120, 17408, 40, 5120, 1024, 151936, False),
    "meta-llama/Llama-3.2-3B-Instruct": Shape("llama", 3072, 8192, 28, 3072, 1024, 128256, True),
    "allenai/OLMo-2-1124-7B-SFT": Shape("olmo2", 4096, 11008, 32, 4096, 4096, 100352, False),
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
    if not all(isinstance(values.get(name), int) for name in needed) or any(
        map(values.get, experts)
    ):
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
