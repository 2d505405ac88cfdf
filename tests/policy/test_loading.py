"""Policies: 4 bits and LoRA are real, the two traps of the pinned libraries are shut."""

import copy
import json
import shutil

import bitsandbytes as bnb
import pytest
import torch
from adapters import save_adapter
from conftest import CHAT_TEMPLATE, character_tokenizer
from policies import dequantized, linears, move_adapter

from intuitor_lib.policy.adapters import (
    START_ADAPTER,
    adapter_is_fresh,
    add_start_adapter,
    reference_policy,
)
from intuitor_lib.policy.loading import (
    compute_dtype,
    describe_policy,
    fast_dtype,
    load_model,
    load_policy,
)
from intuitor_lib.problems.prompts import require_chat_template
from intuitor_lib.recipe.constants import InputError

IDS = torch.tensor([[10, 20, 30, 40, 50]])


def test_four_bits_and_lora_are_real(tiny_recipe):
    model, tokenizer = load_policy(tiny_recipe)
    facts = describe_policy(model)
    # 2 layers x (q, k, v, o, gate, up, down); embedding and head stay in full precision.
    assert facts["layers_4bit"] == len(linears(model)) == 14
    assert {layer.weight.quant_type for layer in linears(model)} == {"nf4"}
    assert all(layer.weight.quant_state.nested for layer in linears(model))
    assert facts["quantization"] == "nf4"
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable
    assert all(".lora_A." in name or ".lora_B." in name for name in trainable)
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    assert tokenizer.padding_side == "left"


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_model_to_evaluate_has_nothing_to_train(quantization, tiny_model):
    model = load_model(str(tiny_model), quantization=quantization).model
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert describe_policy(model)["quantization"] == quantization
    assert len(linears(model)) == (14 if quantization == "nf4" else 0)


def test_parameters_are_counted_as_the_full_model_has_them(tiny_recipe):
    full = load_policy(tiny_recipe.replace(quantization="none")).model
    four_bit = load_policy(tiny_recipe).model
    assert describe_policy(four_bit)["parameters"] == sum(p.numel() for p in full.parameters())
    assert describe_policy(four_bit)["memory_bytes"] < describe_policy(full)["memory_bytes"]


def test_a_full_policy_trains_every_weight_in_fp32(tiny_recipe):
    recipe = tiny_recipe.replace(quantization="none", use_lora=False, dtype="bfloat16")
    model = load_policy(recipe).model
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())


def test_the_seed_decides_the_adapter(tiny_recipe):
    def adapter(seed):
        model = load_policy(tiny_recipe.replace(seed=seed)).model
        return torch.cat([p.flatten() for n, p in model.named_parameters() if ".lora_A." in n])

    assert torch.equal(adapter(1), adapter(1))
    assert not torch.equal(adapter(1), adapter(2))


def test_scoring_first_leaves_gradients_and_weights_as_they_are(tiny_recipe, tmp_path, monkeypatch):
    """bitsandbytes would repack the weights at the first forward in eval mode (AVX512-BF16)."""
    # So that the trap is open on CPUs without those instructions too.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = load_policy(tiny_recipe).model
    assert not any(layer.support_avx512bf16_for_cpu for layer in linears(model))
    before = [dequantized(layer).clone() for layer in linears(model)]
    twin = dequantized_twin(model)

    model.eval()
    with torch.no_grad():
        model(IDS)
        model.generate(input_ids=IDS, max_new_tokens=3, do_sample=False)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    model.train()

    for layer, weight in zip(linears(model), before, strict=True):
        assert torch.equal(dequantized(layer), weight)
    for m in (model, twin):
        move_adapter(m)
        m(input_ids=IDS, labels=IDS).loss.backward()
    ours = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    theirs = {n: p.grad for n, p in twin.named_parameters() if p.requires_grad}
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert gradient is not None, name
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-6)


def dequantized_twin(model):
    """The same policy with plain linear layers that hold the dequantized weights."""
    twin = copy.deepcopy(model)
    for name, layer in list(twin.named_modules()):
        if isinstance(layer, bnb.nn.Linear4bit):
            plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=False)
            plain.weight = torch.nn.Parameter(dequantized(layer).float(), requires_grad=False)
            twin.set_submodule(name, plain)
    return twin


def test_the_reference_is_the_adapter_off(tiny_recipe):
    model = load_policy(tiny_recipe).model.eval()
    assert adapter_is_fresh(model)
    with torch.no_grad():
        base = model(IDS).logits
        move_adapter(model)
        moved = model(IDS).logits
        with reference_policy(model):
            reference = model(IDS).logits
        again = model(IDS).logits
    assert not adapter_is_fresh(model)
    assert torch.equal(reference, base)
    assert torch.equal(again, moved)
    assert not torch.allclose(moved, base)


def test_a_policy_started_from_an_adapter_keeps_it_as_its_reference(tiny_recipe, tmp_path):
    first = load_policy(tiny_recipe).model
    move_adapter(first)
    first.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    model = load_policy(tiny_recipe.replace(adapter=str(tmp_path / "adapter"))).model.eval()
    assert START_ADAPTER in model.peft_config
    next(p for n, p in model.named_parameters() if ".lora_B.default" in n).requires_grad_(False)
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trainable
    assert not any(START_ADAPTER in name for name in trainable)
    with torch.no_grad():
        started = model(IDS).logits
        torch.testing.assert_close(started, first.eval()(IDS).logits)
        move_adapter_default(model)
        with reference_policy(model):
            assert torch.equal(model(IDS).logits, started)
        assert not torch.allclose(model(IDS).logits, started)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == trainable


def move_adapter_default(model):
    for name, parameter in model.named_parameters():
        if ".lora_B.default" in name:
            parameter.data.mul_(-2)


def test_the_start_adapter_is_copied_once(tiny_recipe):
    model = load_policy(tiny_recipe).model
    move_adapter(model)
    add_start_adapter(model)
    copied = {n: p.clone() for n, p in model.named_parameters() if START_ADAPTER in n}
    move_adapter(model, seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if START_ADAPTER in name:
                parameter.copy_(copied[name])
    add_start_adapter(model)
    assert all(torch.equal(p, copied[n]) for n, p in model.named_parameters() if START_ADAPTER in n)


def test_a_model_without_adapters_has_no_reference_within(tiny_recipe):
    model = load_policy(tiny_recipe.replace(quantization="none", use_lora=False)).model
    with pytest.raises(InputError, match="no adapter to turn off"), reference_policy(model):
        pass


def test_auto_is_fp32_where_bf16_is_slow(monkeypatch):
    seconds = {torch.bfloat16: 1.0, torch.float32: 0.1}
    monkeypatch.setattr(
        "intuitor_lib.policy.loading.product_seconds", lambda dtype, _: seconds[dtype]
    )
    for faster in (0.05, 1.0):
        fast_dtype.cache_clear()
        seconds[torch.bfloat16] = faster
        wanted = torch.bfloat16 if faster < 0.1 else torch.float32
        assert compute_dtype("auto", "cpu") == wanted
        seconds[torch.bfloat16] = 0.15 - faster  # a process measures once
        assert compute_dtype("auto", "cpu") == wanted
    fast_dtype.cache_clear()
    assert compute_dtype("bfloat16", "cpu") == torch.bfloat16
    with pytest.raises(InputError, match=r"dtype='fp8': choose auto"):
        compute_dtype("fp8", "cpu")


def test_a_tokenizer_without_pad_token_pads_with_its_end_token(tiny_recipe, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    character_tokenizer(pad=False).save_pretrained(folder)
    model, tokenizer = load_policy(tiny_recipe.replace(model=str(folder)))
    assert tokenizer.pad_token == tokenizer.eos_token == "<e>"
    assert model.config.pad_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("flags", [{}, {"temperature": 0.6, "top_p": 0.9}])
def test_a_model_with_a_temperature_and_no_do_sample_can_be_saved(flags, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | flags))
    load_model(str(folder)).model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / file.name).read_text())
    assert saved.items() >= flags.items()
    assert saved.get("do_sample", False) == bool(flags)


def test_folders_may_be_named_from_home(tiny_recipe, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(tiny_model, tmp_path / "base")
    save_adapter(tmp_path / "adapter", tiny_model)
    named = {"model": "~/base", "adapter": "~/adapter", "quantization": "none"}
    model = load_policy(tiny_recipe.replace(**named)).model
    expected = load_model(str(tiny_model), adapter=str(tmp_path / "adapter"), dtype="float32").model
    assert torch.equal(model(IDS).logits, expected(IDS).logits)


@pytest.mark.parametrize(
    ("template", "told"),
    [(None, False), (CHAT_TEMPLATE, False), (CHAT_TEMPLATE.replace("<a>", "<u>"), True)],
)
def test_an_adapter_with_another_chat_template_is_told(
    template, told, tiny_recipe, tiny_model, tmp_path, caplog
):
    adapter = str(save_adapter(tmp_path / "adapter", tiny_model))
    if template is not None:
        character_tokenizer(chat_template=template).save_pretrained(adapter)
    for load in (
        lambda: load_policy(tiny_recipe.replace(adapter=adapter, quantization="none")),
        lambda: load_model(str(tiny_model), adapter=adapter),
    ):
        caplog.clear()
        load()
        assert ("another chat template than the model's" in caplog.text) == told


def test_a_date_in_the_template_is_no_other_template(tiny_model, tmp_path, caplog):
    """Exports have the template with a fixed date."""
    tokenizer = character_tokenizer(chat_template="{{ strftime_now('%Y') }}" + CHAT_TEMPLATE)
    model = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer.save_pretrained(model)
    adapter = save_adapter(tmp_path / "adapter", model)
    require_chat_template(tokenizer)
    tokenizer.save_pretrained(adapter)
    load_model(str(model), adapter=str(adapter))
    assert "chat template" not in caplog.text


def test_a_tokenizer_without_chat_template_is_refused(tiny_recipe, tiny_model, tmp_path):
    folder = shutil.copytree(
        tiny_model, tmp_path / "model", ignore=shutil.ignore_patterns("*.jinja", "tokenizer*")
    )
    character_tokenizer(chat_template=None).save_pretrained(folder)
    with pytest.raises(InputError, match="no chat template"):
        load_policy(tiny_recipe.replace(model=str(folder)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_prompt_length": 260}, "exceed the 256 tokens"),
        ({"adapter": "nowhere"}, "adapter='nowhere' could not be loaded.*adapter_config.json"),
        ({"model": "no-such-org/no-such-model"}, "no-such-model.*not be loaded.*local folder"),
    ],
)
def test_bad_input_names_the_remedy(tiny_recipe, changes, message):
    with pytest.raises((InputError), match=f"(?s){message}"):
        load_policy(tiny_recipe.replace(**changes))
