"""Write a run's policy as one model in 16 bits, and check that the files are that policy.

An adapter is merged into the weights that it was trained on: under NF4 into the dequantized ones,
not into those of full precision, on which it is another policy. The sum is computed in fp32 and
rounded once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import peft
import torch
import transformers

from ..certainty import completion_log_probs
from ..policy import Policy, load_model, load_run
from ..policy.loading import recorded_recipe
from ..policy.pretrained import Source, load_config
from ..problems import prompt_token_ids
from ..problems.prompts import messages
from ..recipe import InputError
from ..report import quiet_transformers
from ..rollouts import generate
from ..rollouts.serving import merged_weights
from ..store import Run
from ..store.files import read_json, write_json

TOLERANCE = 0.05
"""Nats by which the log-probability of a token may change on average.

With SmolLM2-135M, rounding to bf16 changes it by 0.004, the base before NF4 in place of the one
after it by 0.35.
"""

_PROMPTS, _TOKENS = 8, 32
_PLACE = ("is_local", "local_files_only", "name_or_path", "cache_dir")


class Check(NamedTuple):
    """What loading the files again showed, on greedy completions of some of the run's prompts."""

    dtype: str  # of the files
    computed: str  # the dtype in which both were computed
    prompts: int
    tokens: int
    difference: float  # mean absolute change of a token's log-probability, nats
    largest: float
    training: float | None  # the same between the policy with and without its adapter
    same: int  # greedy completions that are the same


def write_merged(run: Run, folder: Path) -> Check:
    """Write model, tokenizer and generation settings of a finished run into a folder; check them.

    Raises:
        InputError: an adapter or a model that cannot be merged.
        RuntimeError: the files, loaded again, are another policy.
    """
    recipe = run.recipe
    if recipe.use_lora and recipe.trust_remote_code:
        raise InputError(
            f"run {run.id}: {recipe.model!r} comes with code of its own, which a merged model "
            "would need too: export the adapter, without merged"
        )
    computed = run.environment.get("compute_dtype", recipe.dtype)
    dtype = torch.float16 if computed == "float16" else torch.bfloat16
    policy = load_run(run, frozen=True, dtype=computed)
    # Some of the run's prompts; their templates are filled already.
    texts = list(dict.fromkeys(row["prompt"] for row in run.completions))[:_PROMPTS]
    asked = [messages(text, recipe.system_prompt) for text in texts]
    prompts = prompt_token_ids(policy.tokenizer, asked)
    length = min(_TOKENS, recipe.max_completion_length)
    completions = _greedy(policy, prompts, length)
    expected = _log_probs(policy, prompts, completions)
    training = None
    if isinstance(policy.model, peft.PeftModel):
        with policy.model.disable_adapter():
            before = _log_probs(policy, prompts, completions)
        training = (expected - before).abs().mean().item()
    with quiet_transformers():
        _save(policy, run, dtype, folder)
        del policy
        written = load_model(str(folder), dtype=computed)
    if prompt_token_ids(written.tokenizer, asked) != prompts:
        raise RuntimeError(
            f"run {run.id}: the saved tokenizer makes other prompts; nothing is kept"
        )
    change = (_log_probs(written, prompts, completions) - expected).abs()
    difference = change.mean().item()
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"run {run.id}: loaded again, the merged weights are another policy: the "
            f"log-probability of a token differs by {difference:.3f} nats on average, more than "
            f"{TOLERANCE}. "
            "Nothing is kept: export the adapter, without merged"
        )
    again = _greedy(written, prompts, length)
    same = sum(map(list.__eq__, again, completions))
    name, largest = str(dtype).removeprefix("torch."), change.max().item()
    return Check(name, computed, len(prompts), len(change), difference, largest, training, same)


def _greedy(policy: Policy, prompts: Sequence[list[int]], length: int) -> list[list[int]]:
    settings: Any = {"max_new_tokens": length, "temperature": 0.0, "certainty": False}
    return [list(one.ids) for one in generate(policy, prompts, label=None, **settings)]


def _log_probs(
    policy: Policy, prompts: Sequence[list[int]], completions: Sequence[list[int]]
) -> torch.Tensor:
    """Log-probabilities (N,) of all tokens of all completions."""
    return torch.cat(completion_log_probs(policy.model, prompts, completions, eos_token_id=[]))


def _save(policy: Policy, run: Run, dtype: torch.dtype, folder: Path) -> None:
    model, tokenizer = policy
    adapted = isinstance(model, peft.PeftModel)
    if adapted and model.peft_config["default"].peft_type != peft.PeftType.LORA:
        kind = model.peft_config["default"].peft_type.value
        raise InputError(
            f"run {run.id}: an adapter of the kind {kind} is not merged, plain LoRA is: export the "
            "adapter, without merged"
        )
    source = Source.of(recorded_recipe(run)) if adapted else Source(str(run.weights()))
    config = load_config(source)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    wanted = plain.state_dict()
    core = model.get_base_model() if adapted else model
    named = merged_weights(model) if adapted else model.named_parameters()
    try:
        weights = {name: weight.detach().to("cpu", dtype) for name, weight in named}
    except ValueError as error:  # DoRA and others
        raise InputError(f"run {run.id}: {error}: export the adapter, without merged") from error
    weights |= {name: kept.cpu() for name, kept in core.named_buffers() if name in wanted}
    found = plain.load_state_dict(weights, strict=False, assign=True)
    plain.tie_weights()
    absent = [name for name, weight in plain.state_dict().items() if weight.is_meta]
    if absent or found.unexpected_keys:
        raise InputError(
            f"run {run.id}: its weights are not those of a plain {type(plain).__name__} "
            f"({', '.join([*absent, *found.unexpected_keys][:3])}): export the adapter"
        )
    plain.generation_config = core.generation_config
    plain.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer without the notes on where it was loaded from."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    kept = {key: value for key, value in read_json(file).items() if key not in _PLACE}
    write_json(file, kept)
