"""Parts of policies that several tests look at."""

import bitsandbytes as bnb
import torch


def linears(model):
    return [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]


def dequantized(layer):
    return bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)


def move_adapter(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
