"""Adapters: what fits no model is refused, and what is trained has the right reference."""

import functools
import json

import peft
import pytest
import torch
from adapters import move, rename, save_adapter
from conftest import character_tokenizer
from safetensors.torch import load_file, save_file

from intuitor_lib.policy.adapters import (
    START_ADAPTER,
    adapter_is_fresh,
    add_start_adapter,
    check_adapter,
    reference_policy,
)
from intuitor_lib.policy.loading import load_model, load_policy
from intuitor_lib.policy.tiny import make_tiny_model
from intuitor_lib.recipe import InputError

IDS = torch.tensor([[10, 20, 30, 40, 50]])
FOR_TEXT = {"task_type": "CAUSAL_LM"}
IA3 = peft.IA3Config(
    target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], **FOR_TEXT
)
PROMPT = peft.PromptTuningConfig(num_virtual_tokens=2, **FOR_TEXT)


@pytest.fixture
def saved(tiny_model, tmp_path):
    """A function that saves an adapter of the tiny model."""
    return functools.partial(save_adapter, tmp_path / "adapter", tiny_model)


@pytest.fixture
def whole(tiny_recipe):
    return tiny_recipe.replace(quantization="none")


# --- Weights that fit


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda name: name.replace(".layers.", ".text.layers."), "of 8 tensors 0 fit .*missing"),
        (lambda name: name.replace(".0.self_attn", ".9.self_attn"), "of 8 tensors 4 fit"),
        (lambda name: None if ".1.self_attn.v_proj.lora_B" in name else name, "of 7 tensors 7 fit"),
        (lambda name: name.replace("base_model.model.", ""), "of 8 tensors 0 fit"),
    ],
    ids=["other names", "more layers", "one missing", "no prefix"],
)
@pytest.mark.parametrize("use", ["evaluate", "train"])
def test_tensors_that_fit_nothing_are_refused(change, found, use, saved, whole, tiny_model):
    folder = str(saved())
    rename(folder, change)
    load = {
        "evaluate": lambda adapter: load_model(str(tiny_model), adapter=adapter),
        "train": lambda adapter: load_policy(whole.replace(adapter=adapter)),
    }[use]
    with pytest.raises(InputError, match=f"{found}.*give the model that it was trained on"):
        load(folder)


def test_an_adapter_that_changes_nothing_is_legal(saved, whole, tiny_model):
    folder = saved()
    model = load_model(str(tiny_model), adapter=str(folder), dtype="float32").model
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.zero_()
    model.save_pretrained(folder)
    policy = load_policy(whole.replace(adapter=str(folder))).model
    assert adapter_is_fresh(policy)
    assert START_ADAPTER not in policy.peft_config  # its reference is the adapter off


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task_type": "SEQ_CLS"}, "is for the task SEQ_CLS"),
        ({"target_modules": ["gate_proj"]}, "of 12 tensors 0 fit"),
    ],
)
def test_an_adapter_of_something_else(settings, message, saved, tiny_model):
    folder = saved(target_modules=["k_proj", "o_proj", "up_proj"])
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(InputError, match=message):
        load_model(str(tiny_model), adapter=str(folder))


def test_an_adapter_of_another_size(tiny_model, tmp_path):
    wide = make_tiny_model(
        "Llama", tmp_path / "wide", tokenizer=character_tokenizer(), hidden_size=128
    )
    folder = save_adapter(tmp_path / "adapter", wide)
    with pytest.raises(InputError, match=r"size mismatch.*made for"):
        load_model(str(tiny_model), adapter=str(folder))


# --- The reference of an adapter that is trained further

KINDS = {
    "LoRA": {},
    "LoRA on the embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "LoRA with dropout": {"lora_dropout": 0.5},
    "DoRA": {"use_dora": True},
    "trained norms": {"modules_to_save": ["norm"]},
    "trained tokens": {"trainable_token_indices": [10, 20]},
    "IA3": {"config": IA3},
    "LoKr": {"config": peft.LoKrConfig(r=4, target_modules=["q_proj"], **FOR_TEXT)},
    "VeRA": {"config": peft.VeraConfig(r=4, target_modules=["q_proj", "v_proj"], **FOR_TEXT)},
    "layer norms": {"config": peft.LNTuningConfig(target_modules=["norm"], **FOR_TEXT)},
}


@pytest.mark.parametrize(("kind", "dropout"), [*((kind, 0.0) for kind in KINDS), ("LoRA", 0.5)])
def test_the_reference_is_the_adapter_it_started_from(kind, dropout, saved, whole, tiny_model):
    folder = str(saved(**KINDS[kind]))
    expected = load_model(str(tiny_model), adapter=folder, dtype="float32").model(IDS).logits
    recipe = whole.replace(adapter=folder, lora_dropout=dropout)
    model = load_policy(recipe).model.train()  # TRL scores the reference as it trains
    assert not adapter_is_fresh(model)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, expected) == (not dropout)
        move(model)
        assert not torch.allclose(model(IDS).logits, expected)
        with reference_policy(model):
            assert torch.equal(model(IDS).logits, expected)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init_lora_weights": "pissa"}, "kind LORA .*own reference .*merge the adapter"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "kind LORA .*own reference"),
        ({"bias": "all"}, "bias='all': it trains biases of the model itself"),
        ({"modules_to_save": ["lm_head"]}, "names lm_head"),
        ({"target_modules": ["q_proj", "lm_head"]}, "names lm_head"),
        ({"target_modules": ".*(q_proj|lm_head)"}, "its LM head is a Linear"),
        ({"config": PROMPT}, "PROMPT_TUNING, virtual tokens"),
        (
            {"config": peft.AdaptionPromptConfig(adapter_len=2, adapter_layers=2, **FOR_TEXT)},
            "kind ADAPTION_PROMPT .*own reference",
        ),
    ],
)
def test_an_adapter_without_a_reference_is_refused(settings, message, saved, whole, tiny_model):
    folder = str(saved(**settings))
    load_model(str(tiny_model), adapter=folder)  # to evaluate, it needs none
    with pytest.raises(InputError, match=message):
        load_policy(whole.replace(adapter=folder))


@pytest.mark.parametrize("settings", [{"bias": "all"}, {"target_modules": ["lm_head"]}])
def test_settings_alone_refuse_before_the_model_is_read(settings, saved, whole):
    with pytest.raises(InputError, match=r"bias='all'|names lm_head"):
        load_policy(whole.replace(adapter=str(saved(**settings)), model="no-such-org/model"))


def test_an_adapter_that_brings_other_weights_of_the_model_is_refused(saved, whole):
    folder = saved(target_modules=["q_proj", "embed_tokens"])
    brought = "base_model.model.model.embed_tokens.base_layer.weight"
    assert brought in load_file(folder / "adapter_model.safetensors")
    load_policy(whole.replace(adapter=str(folder)))
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[brought] += 1
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match="brings weights of the model itself"):
        load_policy(whole.replace(adapter=str(folder)))


def test_only_plain_lora_counts_as_fresh(tiny_model):
    base = load_model(str(tiny_model), dtype="float32").model
    untrained = peft.get_peft_model(base, IA3)
    assert not adapter_is_fresh(untrained)  # its ones could have been trained
    move(untrained)
    before = untrained(IDS).logits
    add_start_adapter(untrained)
    move(untrained)
    with reference_policy(untrained):
        assert torch.equal(untrained(IDS).logits, before)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("qkv_proj",), "it has no qkv_proj. Name some of its linear layers .down_proj, gate"),
        (("q_proj", "qkv_proj", "W_pack"), "it has no qkv_proj, W_pack"),
        ("model.*qkv_proj", "not found in the base model. .*down_proj"),
        (("norm",), "RMSNorm.* is not supported.*down_proj"),
        (("q_proj", "lm_head"), "names lm_head"),
    ],
)
def test_layers_that_the_model_lacks_are_refused(targets, message, whole):
    with pytest.raises(InputError, match=f"lora_target_modules.*{message}"):
        load_policy(whole.replace(lora_target_modules=targets))


def test_settings_of_a_fresh_adapter_are_told_where_another_is_trained(saved, whole, caplog):
    recipe = whole.replace(adapter=str(saved()))
    check_adapter(recipe)
    assert not caplog.records
    check_adapter(recipe.replace(lora_r=64))
    (record,) = caplog.records
    assert "lora_r=64 has no effect: adapter=" in record.getMessage()
