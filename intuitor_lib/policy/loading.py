"""Load models and their tokenizers, in 4 bits or not, and the trained policies of runs."""

import functools
import logging
import time
import warnings
from typing import Any, NamedTuple

import torch
import transformers

from ..certainty.head import head_fault
from ..problems.prompts import require_chat_template, stop_clock
from ..recipe import EMBEDDED_MODELS, InputError, Recipe
from ..recipe.checks import context_faults
from ..store import Run
from ..store.processes import join
from .adapters import add_adapter, check_adapter, ignore_renames, load_adapter, read_adapter_weights
from .embedded import keep_quantized, quantized_folder
from .pretrained import Source, load_config, load_tokenizer, load_weights

logger = logging.getLogger(__name__)


class Policy(NamedTuple):
    """A model and its tokenizer."""

    model: Any
    tokenizer: Any


def load_policy(recipe: Recipe) -> Policy:
    """The recipe's model and tokenizer, quantized and with LoRA adapters where the recipe has them.

    On the GPU of this process if there is one, else on the CPU. Under LoRA the base weights are
    frozen and the LoRA weights are fp32.

    Dropout of the model and of a continued adapter is turned off, since the ratio of eq. 5 starts
    at 1 and the KL term at 0 only without it; `lora_dropout` is the recipe's.

    Raises:
        InputError: prompt and completion do not fit the model's context; the tokenizer has no
            chat template or no token to pad with; the adapter or the model cannot be loaded, has
            no reference, or cannot be scored from its hidden states.
    """
    check_adapter(recipe)
    source = Source.of(recipe)
    config = load_config(source)
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    for too_long in context_faults(recipe, context):
        raise InputError(too_long)
    _turn_off_dropout(config)
    dtype = compute_dtype(recipe.dtype, join().device)
    # AdamW steps of 3e-6 round away in bf16, so weights that are all trained stay fp32.
    stored = dtype if recipe.use_lora else torch.float32
    model, tokenizer = _load(source, config, recipe.quantization, compute=dtype, stored=stored)
    _compare_templates(recipe.adapter, tokenizer)
    require_chat_template(tokenizer)
    if recipe.use_lora:
        with ignore_renames():
            model = add_adapter(model, recipe)
    fault = head_fault(model)
    if fault is not None:
        raise InputError(f"model={recipe.model!r} cannot be trained: {fault}")
    return Policy(model.to(_device(recipe.quantization, model)), tokenizer)


def load_model(
    model: str,
    *,
    revision: str | None = None,
    adapter: str | None = None,
    quantization: str = "none",
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> Policy:
    """A model to generate and score with, without trainable weights.

    Args:
        model: one of `EMBEDDED_MODELS`, a local folder or a name on the hub.
        revision: revision on the hub.
        adapter: folder or hub name of a PEFT adapter.
        quantization: "nf4" or "none".
        dtype: dtype of computing, as in a recipe.
        trust_remote_code: run code that comes with the model.

    Raises:
        InputError: as `load_policy`, but the chat template is not required.
    """
    compute = compute_dtype(dtype, join().device)
    source = Source(model, revision, trust_remote_code)
    config = load_config(source)
    loaded, tokenizer = _load(source, config, quantization, compute=compute, stored=compute)
    _compare_templates(adapter, tokenizer)
    if adapter is not None:
        with ignore_renames():
            loaded = load_adapter(loaded, adapter, model, trainable=False)
    loaded.requires_grad_(False)
    return Policy(loaded.to(_device(quantization, loaded)), tokenizer)


def load_run(
    run: Run, *, step: int | None = None, frozen: bool = False, dtype: str | None = None
) -> Policy:
    """Load the trained policy of a finished run; its reference is the policy training started from.

    With `step`, load the snapshot after that step (`snapshot_steps`). With `frozen`, load it
    without a reference and with no trainable weights, computing in `dtype` if it is given.

    Raises:
        InputError: the run is not finished, is damaged, or has no such snapshot.
    """
    run.require_finished()
    run.require_whole()
    recipe = recorded_recipe(run)
    if recipe.use_lora:
        run.require_same_base()
    weights, settings = str(run.weights(step)), base_settings(recipe)
    settings["dtype"] = dtype or settings["dtype"]
    if frozen and recipe.use_lora:
        return load_model(recipe.model, **settings | {"adapter": weights})
    if frozen:
        return load_model(weights, **settings | {"revision": None})
    if not recipe.use_lora:
        return load_policy(recipe.replace(model=weights))
    policy = load_policy(recipe)
    read_adapter_weights(policy.model, weights, recipe.model)
    return policy


def recorded_recipe(run: Run) -> Recipe:
    """The recipe of a run, with its model at the commit on the hub that the run loaded."""
    return at_commit(run.recipe, run.environment.get("commit"))


def at_commit(recipe: Recipe, commit: str | None) -> Recipe:
    """A recipe with its model at a commit on the hub, unless it names a revision itself."""
    if commit is None or recipe.model_revision is not None:
        return recipe
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the recipe has warned before
        return recipe.replace(model_revision=commit)


def base_settings(recipe: Recipe) -> dict[str, Any]:
    """Arguments of `load_model` for the policy that training by this recipe starts from."""
    return {
        "adapter": recipe.adapter,
        "revision": recipe.model_revision,
        "quantization": recipe.quantization,
        "dtype": recipe.dtype if recipe.use_lora else "float32",
        "trust_remote_code": recipe.trust_remote_code,
    }


def _device(quantization: str, model: Any) -> torch.device:
    # 4-bit weights were put on their device while they were loaded.
    return join().device if quantization == "none" else model.device


def _load(
    source: Source, config: Any, quantization: str, *, compute: torch.dtype, stored: torch.dtype
) -> Policy:
    tokenizer = load_tokenizer(source)
    if tokenizer.pad_token_id is None:
        # As in TRL. Masks are made from lengths, so an end token that is also padding still counts.
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise InputError(
            f"the tokenizer of {source.name} has neither a pad nor an end-of-sequence token: set "
            "tokenizer.pad_token and tokenizer.eos_token in its folder"
        )
    device, kept, place = join().device, None, config.name_or_path
    weights: dict[str, Any] = {"config": config, "dtype": stored}
    if source.name in EMBEDDED_MODELS and quantization == "nf4" and device.type == "cpu":
        kept = quantized_folder(source.name, stored)
        if kept.is_dir():
            source, kept = Source(str(kept)), None
            config.quantization_config = load_config(source).quantization_config
    already = _stored_quantization(source.name, config, quantization)
    if already is not None:
        already["bnb_4bit_compute_dtype"] = str(compute).removeprefix("torch.")
    elif quantization == "nf4":
        weights["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    if device.type == "cuda":
        weights["device_map"] = {"": device}
    model = load_weights(source, **weights)
    if kept is not None:
        keep_quantized(model, kept)
    model.name_or_path = model.config.name_or_path = place  # which adapters are saved with
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    try:
        model.generation_config.validate(strict=True)
    except ValueError:  # a temperature without do_sample, with which it could not be saved
        model.generation_config.do_sample = True
    for module in model.modules():
        # bitsandbytes would repack weights in place at the first forward in eval mode on an
        # AVX512-BF16 CPU; from then on a layer's input gets no gradient and its weights differ.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return Policy(model, tokenizer)


def _compare_templates(adapter: str | None, tokenizer: Any) -> None:
    """Warn of an adapter that was saved with another chat template than its model's."""
    if adapter is None:
        return
    try:
        own = load_tokenizer(Source(adapter)).chat_template
    except InputError:  # most adapters are saved without a tokenizer
        return
    if own and stop_clock(own) != stop_clock(tokenizer.chat_template):
        logger.warning(
            "adapter=%r was saved with another chat template than the model's, which is used. If "
            "it was trained with its own, copy its tokenizer and template into a copy of the "
            "model's folder, and give that folder as model",
            adapter,
        )


def _stored_quantization(name: str, config: Any, quantization: str) -> dict[str, Any] | None:
    """The settings of a model that is stored in NF4; None for one that is not."""
    stored = getattr(config, "quantization_config", None)
    if not stored:
        return None
    method = stored.get("quant_method", "bitsandbytes")
    ours = method == "bitsandbytes"
    if ours and stored.get("load_in_4bit") and stored.get("bnb_4bit_quant_type") == "nf4":
        if quantization == "nf4":
            return stored
        remedy = "set quantization='nf4', or take the model's weights in bf16"
    elif quantization == "none" and not ours:
        return None  # transformers loads it with the package of its method
    else:
        remedy = "take the model's weights in bf16"
        if not ours:
            remedy = f"set quantization='none' to keep it in {method}, or {remedy}"
    raise InputError(
        f"quantization={quantization!r} and model={name!r} is stored quantized already ({method}): "
        + remedy
    )


def _turn_off_dropout(config: Any) -> None:
    """Set every rate of dropout and of noise on a router in a configuration to 0."""
    for key, value in vars(config).items():
        if isinstance(value, transformers.PretrainedConfig):
            _turn_off_dropout(value)
        elif ("drop" in key or "jitter" in key) and type(value) is float:
            setattr(config, key, 0.0)


def describe_policy(model: Any) -> dict[str, Any]:
    """Device, precision, 4-bit layers, trainable and all parameters of a loaded model."""
    import bitsandbytes

    four_bit = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    first = next(model.parameters())
    dtype = four_bit[0].compute_dtype if four_bit else first.dtype
    return {
        "device": str(first.device),
        "device_name": torch.cuda.get_device_name(first.device) if first.is_cuda else "CPU",
        "compute_dtype": str(dtype).removeprefix("torch."),
        "quantization": "nf4" if four_bit else "none",
        "layers_4bit": len(four_bit),
        "parameters": model.num_parameters(),
        "trainable_parameters": model.num_parameters(only_trainable=True),
        "memory_bytes": model.get_memory_footprint(return_buffers=False),
    }


def compute_dtype(name: str, device: torch.device | str) -> torch.dtype:
    """The torch dtype for a recipe's `dtype` on a device.

    "auto" is bf16 on GPUs that have it and on CPUs that multiply it faster than fp32, else fp32:
    a CPU without AVX512-BF16 or AMX multiplies bf16 matrices hundreds of times slower. A process
    measures it once.

    Raises:
        InputError: an unknown name.
    """
    if name == "auto":
        return fast_dtype(torch.device(device))
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(f"dtype={name!r}: choose auto, bfloat16, float16 or float32")
    return dtype


@functools.cache
def fast_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = product_seconds(torch.bfloat16, device) < product_seconds(torch.float32, device)
    return torch.bfloat16 if fast else torch.float32


def product_seconds(dtype: torch.dtype, device: torch.device, size: int = 256) -> float:
    """Seconds of the product of two square matrices, the best of up to twenty.

    The first ones start threads, and other work on the machine slows some: neither may decide.
    """
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    seconds: list[float] = []
    while len(seconds) < 3 or (len(seconds) < 20 and sum(seconds) < 0.1):
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
