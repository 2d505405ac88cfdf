"""Adapters as PEFT saves them."""

from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file


def save_adapter(folder: Path, model: Path, config=None, **settings) -> Path:
    """An adapter of `config`, by default LoRA with `settings`, whose weights change the model."""
    if config is None:
        defaults = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
        config = peft.LoraConfig(**defaults | settings)
    base = transformers.AutoModelForCausalLM.from_pretrained(model)
    adapted = peft.get_peft_model(base, config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    adapted.save_pretrained(folder)
    return folder


def move(model) -> None:
    """Change every trainable weight."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1


def rename(folder: str | Path, change) -> None:
    """Give the tensors of a saved adapter the names `change(name)`; None leaves one out."""
    file = Path(folder) / "adapter_model.safetensors"
    named = {change(name): tensor for name, tensor in load_file(file).items()}
    save_file({name: tensor for name, tensor in named.items() if name}, file)
