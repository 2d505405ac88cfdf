"""Small random models of many families."""

import json

import torch
import transformers
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from intuitor_lib.certainty.head import backbone_and_head

VOCABULARY = 97


# Wide initial weights, so that the distributions are far from uniform and a wrong one shows.
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.4,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
}


FAMILIES = {
    "Llama": {},
    "Qwen2": {},
    "Qwen3": {},
    "Olmo2": {},
    "Mistral": {"sliding_window": 3},
    "Gemma2": {"final_logit_softcapping": 3.0},
    "Cohere": {"logit_scale": 0.25},
    "Granite": {"logits_scaling": 3.0},
    "HyperCLOVAX": {"logits_scaling": 0.25},
    "MiniCPM3": {
        "dim_model_base": 8,
        "num_key_value_heads": 4,
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
    },
    "FalconH1": {"lm_head_multiplier": 0.3, "mamba_d_ssm": 32, "mamba_n_heads": 4},
    "RecurrentGemma": {"logits_soft_cap": 2.0, "lru_width": 32, "num_hidden_layers": 3},
    "OPT": {
        "ffn_dim": 32,
        "word_embed_proj_dim": 16,
        "init_std": 0.4,
        "max_position_embeddings": 32,
    },
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "initializer_range": 0.2},
    "GPTNeo": {
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
        "max_position_embeddings": 32,
    },
    "Mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "logit_scale": 0.1},
}


def make_model(family, **settings):
    settings = {**SMALL, **FAMILIES[family], **settings}
    config = getattr(transformers, f"{family}Config")(**settings)
    name = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    torch.manual_seed(0)
    return getattr(transformers, name)(config).eval()


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def lora(model, **settings):
    """`model` with an adapter whose B is not zero, so that it changes the distribution."""
    settings = {"r": 4, "target_modules": ["q_proj", "down_proj"], "lora_dropout": 0.5, **settings}
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    torch.manual_seed(11)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return adapted


def bart():
    small = transformers.BartConfig(
        vocab_size=97,
        d_model=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
    )
    return transformers.BartForConditionalGeneration(small)


def prompt_tuned():
    return get_peft_model(
        make_model("Llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )


def fed(model, call):
    """Real token ids of each call of the backbone."""
    seen = []

    def record(_, args, kwargs):
        seen.append(kwargs["input_ids"])

    handle = backbone_and_head(model)[1].register_forward_pre_hook(record, with_kwargs=True)
    call()
    handle.remove()
    return seen


def gpt1():
    config = transformers.OpenAIGPTConfig(vocab_size=97, n_embd=8, n_layer=1, n_head=2)
    return transformers.OpenAIGPTLMHeadModel(config)


def with_own_code(folder):
    """Make the Llama in a folder a model whose code comes with it."""
    file = folder / "config.json"
    classes = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddForCausalLM"}
    own = {"model_type": "odd", "architectures": ["OddForCausalLM"], "auto_map": classes}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    (folder / "odd.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        "class OddConfig(LlamaConfig):\n    model_type = 'odd'\n\n\n"
        "class OddForCausalLM(LlamaForCausalLM):\n    config_class = OddConfig\n"
    )
    return folder


def kl_from_uniform(logits):
    """The definition, one word at a time: sum_v 1/V log((1/V) / p_v), in float64."""
    logits = logits.double()
    words = logits.shape[-1]
    p = (logits - logits.amax(-1, keepdim=True)).exp()
    p = p / p.sum(-1, keepdim=True)
    return (1 / words * torch.log((1 / words) / p)).sum(-1)


class Waits(TorchDispatchMode):
    """Counts operations whose result the host reads, for which it would wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        reads = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select")
        self.count += masked or name in reads
        return func(*args, **(kwargs or {}))
