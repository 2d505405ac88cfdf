"""Random models of a real architecture, small enough to train anywhere."""

from pathlib import Path
from typing import Any

import torch
import transformers

from ..recipe import SMOLLM2
from ..report import quiet_transformers
from .pretrained import Source, load_tokenizer


def make_tiny_model(
    architecture: str, folder: str | Path, *, tokenizer: Any = None, **settings: Any
) -> Path:
    """A random model of two layers with a tokenizer, SmolLM2's by default, written to a folder.

    `architecture` is transformers' name of it ("Qwen2", "Llama"), `settings` override its
    configuration; `dtype` is that of the stored weights. Torch's random state is left as it was.
    """
    tokenizer = tokenizer or load_tokenizer(Source(SMOLLM2))
    dtype = settings.pop("dtype", torch.float32)
    config = getattr(transformers, f"{architecture}Config")(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **settings,
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{architecture}ForCausalLM")(config)
    with quiet_transformers():
        model.to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return Path(folder)
