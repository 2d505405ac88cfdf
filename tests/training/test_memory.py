"""The memory estimate against real models, caches, backward passes and measured trainings."""

import importlib.util
import json
import types
from pathlib import Path

import bitsandbytes
import pytest
import torch
import transformers

from intuitor_lib.certainty.forward import completion_states
from intuitor_lib.certainty.head import backbone_and_head
from intuitor_lib.cli import main
from intuitor_lib.policy import load_policy
from intuitor_lib.policy.linear import fixed_weights, speed_up_linears
from intuitor_lib.policy.pretrained import Source
from intuitor_lib.policy.shapes import ARCHITECTURES, model_shape
from intuitor_lib.recipe import PROFILES, RECIPES, InputError, get_recipe
from intuitor_lib.rollouts.sampling import _Batch
from intuitor_lib.training import memory
from intuitor_lib.training.memory import estimate_memory
from intuitor_lib.training.trainer import grpo_config

# Billions of parameters on the models' cards.
PUBLISHED = {
    "embedded:SmolLM2-135M-Instruct": 0.13,  # 134,515,008 by its weights
    "embedded:Qwen2.5-Coder-0.5B-Instruct": 0.49,  # 494,032,768 by its weights
    "Qwen/Qwen2.5-1.5B": 1.54,
    "Qwen/Qwen2.5-3B": 3.09,
    "Qwen/Qwen2.5-7B": 7.62,  # "7.61B" on the card, 7,615,616,512 by its weights
    "Qwen/Qwen2.5-14B": 14.8,
    "Qwen/Qwen3-14B": 14.8,
    "meta-llama/Llama-3.2-3B-Instruct": 3.21,
    "allenai/OLMo-2-1124-7B-SFT": 7.30,
}
KINDS = ("Llama", "Qwen2", "Qwen3", "Olmo2")
WAYS = [
    {},
    {"quantization": "none"},
    {"quantization": "none", "use_lora": False},
    {"lora_r": 4, "lora_target_modules": ("q_proj", "v_proj")},
]


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_architectures_have_the_published_number_of_parameters(model):
    published = PUBLISHED[model]
    digits = 1 if published > 10 else 2
    assert round(sum(ARCHITECTURES[model].parameters) / 1e9, digits) == published


def make_folder(folder, kind="Llama", **settings):
    sizes = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 160, "head_dim": 16}
    sizes |= {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"max_position_embeddings": 512, "pad_token_id": 0}
    config = getattr(transformers, f"{kind}Config")(**sizes | settings)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folders_shape_has_the_parameters_of_its_model(kind, tied, tmp_path):
    model = make_folder(tmp_path, kind, tie_word_embeddings=tied)
    shape = model_shape(Source(str(tmp_path)))
    assert shape.kind == kind.lower()
    left_out = (".bias", "q_norm.weight", "k_norm.weight")
    real = {n: p.numel() for n, p in model.named_parameters() if not n.endswith(left_out)}
    assert sum(shape.parameters) == sum(real.values())
    assert shape.parameters[0] == sum(size for name, size in real.items() if "_proj" in name)
    assert shape.linears == {
        name: (layer.in_features, layer.out_features)
        for part in (model.model.layers[0].self_attn, model.model.layers[0].mlp)
        for name, layer in part.named_children()
        if name.endswith("_proj")
    }


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Mixtral", {"num_local_experts": 2, "head_dim": 16}),
        ("GPT2", {"n_embd": 64, "n_layer": 2, "n_head": 4}),
        ("Mamba", {"hidden_size": 64, "num_hidden_layers": 2}),
    ],
)
def test_models_of_another_kind_are_refused(kind, settings, tmp_path):
    getattr(transformers, f"{kind}Config")(**settings).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="not built as Llama"):
        model_shape(Source(str(tmp_path)))


def test_nf4_weights_take_as_much_as_those_of_bitsandbytes():
    layer = bitsandbytes.nn.Linear4bit(1024, 2048, bias=False, quant_type="nf4")
    state = layer.to("cpu").weight.quant_state
    second = state.state2
    constants = (state.absmax, state.code, state.offset, second.absmax, second.code)
    real = layer.weight.nbytes + sum(tensor.nbytes for tensor in constants)
    assert real == pytest.approx(1024 * 2048 * memory.NF4_BYTES, rel=0.002)


@pytest.mark.parametrize("changes", WAYS[1:])
def test_stored_tensors_are_those_of_a_loaded_model(tiny_recipe, changes):
    recipe = tiny_recipe.replace(**{"quantization": "none"} | changes)
    model = load_policy(recipe).model
    speed_up_linears(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    states = [t for state in optimizer.state.values() for t in state.values() if t.dim()]
    adapter = sum(p.nbytes for p in trained) if recipe.use_lora else 0

    phases = estimate_memory(recipe, device="cpu").phases
    update = phases["update"]
    assert update["weights"] == sum(p.nbytes for p in model.parameters()) - adapter
    assert update.get("adapter", 0) == adapter
    assert update["optimizer"] == sum(t.nbytes for t in states)
    assert update.get("gradients", 0) in (0, sum(p.grad.nbytes for p in trained))
    assert update.get("reference model", 0) == (0 if recipe.use_lora else update["weights"])
    with fixed_weights(model):
        layers = [vars(layer)["_fixed"][0] for layer in model.modules() if "_fixed" in vars(layer)]
        assert phases["rollout"].get("merged weights", 0) == sum(w.nbytes for w in layers)
    assert bool(layers) == recipe.use_lora


@pytest.mark.parametrize("optim", memory.MOMENTS)
def test_moments_of_a_training_of_all_weights(optim, tiny_recipe, tmp_path):
    recipe = tiny_recipe.replace(optim=optim, use_lora=False, quantization="none")
    model = load_policy(recipe).model
    args = grpo_config(recipe, tmp_path, torch.device("cpu"))
    optimizer = transformers.Trainer(model, args).create_optimizer()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = [t for state in optimizer.state.values() for t in state.values()]
    large = [t for t in states if torch.is_tensor(t) and t.numel() >= 4096]  # others stay fp32
    small = sum(p.numel() for p in model.parameters() if p.numel() < 4096)
    estimated = estimate_memory(recipe, device="cpu").phases["update"]["optimizer"]
    assert sum(t.nbytes for t in large) == estimated - memory.MOMENTS[optim] * small


def test_several_processes_keep_gradients_twice(tiny_recipe):
    one, two = (estimate_memory(tiny_recipe, device="cuda", processes=n) for n in (1, 2))
    trained = one.phases["update"]["optimizer"] // 2
    assert two.phases["update"]["DDP's buckets"] == trained
    assert two.total - one.total == pytest.approx(trained * (1 + memory.FRAGMENTATION), abs=2)


def test_vllm_beside_the_trainer_counts(tiny_recipe, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**34, 24 * 2**30))
    with_vllm = tiny_recipe.replace(rollout="vllm", quantization="none", dtype="float32")
    server = {"vllm_mode": "server", "vllm_server_base_url": "http://localhost:8000"}
    found = [
        estimate_memory(with_vllm.replace(**changes), device="cuda") for changes in (server, {})
    ]
    parts = [estimate.parts.get("vLLM", 0) for estimate in found]
    assert parts == [0, int(with_vllm.vllm_gpu_memory_utilization * 24 * 2**30)]
    assert [len(estimate.assumptions) for estimate in found] == [3, 2]


def test_a_continued_adapter_counts_twice(tiny_recipe, tmp_path):
    model = load_policy(tiny_recipe.replace(lora_r=5)).model
    model.save_pretrained(tmp_path)
    parts = estimate_memory(tiny_recipe.replace(adapter=str(tmp_path)), device="cpu").parts
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    assert (parts["adapter"], parts["optimizer"]) == (2 * trained, 2 * trained)


def autocast(dtype):
    return torch.autocast("cpu", dtype=getattr(torch, dtype), enabled=dtype != "float32")


@pytest.mark.parametrize("kind", ["Llama", "Olmo2"])
@pytest.mark.parametrize("changes", [WAYS[1], WAYS[2]])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_keys_and_values_take_what_a_rollouts_cache_takes(
    tiny_recipe, tmp_path, kind, changes, dtype
):
    stored = torch.bfloat16 if dtype == "bfloat16" and changes == WAYS[1] else torch.float32
    model = make_folder(tmp_path, kind).to(stored)
    prompt, length, group = 20, 150, 2
    recipe = tiny_recipe.replace(
        **changes, model=str(tmp_path), dtype=dtype, max_completion_length=length
    )
    with torch.no_grad(), autocast(dtype):
        batch = _Batch(model.model, [[1] * prompt] * group + [[2] * prompt] * group, length)
        batch.prefill()
        for _ in range(length - 1):
            batch.step()
    real = sum(t.nbytes for x in batch.cache.layers for t in (x._room, x._value_room))
    parts = estimate_memory(recipe, device="cpu", prompt_tokens=prompt).phases["rollout"]
    assert parts["cache"] == real


PROMPTS = [[1] * 20, [1] * 20, [2] * 19, [2] * 19]
COMPLETIONS = [[3] * 12, [3] * 12, [3] * 12, [3] * 11]


def saved_bytes(model, *, share: bool, dtype: str) -> int:
    """Storages that a forward pass keeps for the backward pass, without weights."""
    storages = {}
    weights = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    weights |= {
        vars(layer)["_unpacked"].untyped_storage()._cdata
        for layer in model.modules()
        if "_unpacked" in vars(layer)
    }

    def pack(tensor):
        if tensor.is_floating_point():
            storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage()  # kept alive
        return tensor

    _, backbone, _ = backbone_and_head(model)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast(dtype):
        states = completion_states(backbone, PROMPTS, COMPLETIONS, share_prompts=share)
    assert states.requires_grad
    return sum(storage.nbytes() for key, storage in storages.items() if key not in weights)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", WAYS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_backward_pass_keeps_as_much_as_estimated(
    tiny_recipe, tmp_path, tiny_model, kind, changes, dtype
):
    make_folder(tmp_path, kind, tie_word_embeddings=True)
    transformers.AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    recipe = tiny_recipe.replace(
        **changes, model=str(tmp_path), dtype=dtype, max_completion_length=12
    )
    model = load_policy(recipe).model.train()
    speed_up_linears(model)
    training = memory._Training(recipe, "cpu", 20)
    kept = training.casts + training.shape.layers * training.layer_kept(training.tokens(share=True))
    real = saved_bytes(model, share=recipe.use_lora, dtype=dtype)
    assert 0.85 < kept / real < 1.15


def script(name):
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("dtype", "column"), [("float32", 2), ("bfloat16", 4)])
def test_estimates_are_near_the_peaks_of_nine_measured_trainings(dtype, column, tmp_path):
    check = script("memory_check")
    transformers.Qwen2Config(**check.RANDOM_CONFIG, vocab_size=49152).save_pretrained(tmp_path)
    documented = (Path(__file__).parents[2] / "docs" / "memory.md").read_text(encoding="utf-8")
    table = documented.partition("| ratio |")[2].splitlines()[2:]
    python, prompt = 0.57, 49  # GiB of Python and torch then, tokens of the longest prompt
    for row, changes in zip(table[: len(check.CHECKED)], check.CHECKED.values(), strict=True):
        model = {"model": str(tmp_path)} if "model" in changes else {}
        recipe = get_recipe("quickstart", "cpu", **check.SMALL | changes | model, dtype=dtype)
        estimate = estimate_memory(recipe, device="cpu", prompt_tokens=prompt)
        gib = (estimate.total - estimate.parts["runtime"]) / 2**30 + python
        measured = float(row.split("|")[column].split(",")[0])
        assert gib / measured == pytest.approx(1, abs=0.15), row


def test_phases_and_devices(tiny_recipe):
    with pytest.warns(UserWarning, match="beta=0"):
        no_reference = tiny_recipe.replace(beta=0.0)
    assert "reference" not in estimate_memory(no_reference, device="cpu").phases
    elsewhere = estimate_memory(tiny_recipe.replace(rollout="vllm"), device="cpu")
    assert "rollout" not in elsewhere.phases
    assert "not counted" in str(elsewhere)
    with pytest.raises(InputError, match="device='tpu'"):
        estimate_memory(tiny_recipe, device="tpu")


def test_4_bit_weights_are_unpacked_only_where_memory_is_free(tiny_recipe, monkeypatch):
    assert "unpacked weights" in estimate_memory(tiny_recipe, device="cpu").parts
    assert "unpacked weights" not in estimate_memory(tiny_recipe, device="cuda").parts
    plain = tiny_recipe.replace(rollout="generate", update="plain")
    assert "unpacked weights" not in estimate_memory(plain, device="cpu").parts
    short = types.SimpleNamespace(available=1000)
    monkeypatch.setattr("psutil.virtual_memory", lambda: short)
    estimate = estimate_memory(tiny_recipe, device="cpu")
    assert not {"unpacked weights", "merged weights"} & estimate.phases["rollout"].keys()


@pytest.mark.parametrize("rollout", ["grouped", "generate"])
def test_rollouts_in_parts_take_less(tiny_recipe, rollout):
    recipe = tiny_recipe.replace(rollout=rollout)
    parts = estimate_memory(recipe.replace(rollout_batch_size=1), device="cpu")
    whole = estimate_memory(recipe, device="cpu")
    assert parts.phases["rollout"]["cache"] < whole.phases["rollout"]["cache"]


def test_every_recipe_is_estimated_without_model_and_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something was loaded")

    for auto in (transformers.AutoConfig, transformers.AutoTokenizer):
        monkeypatch.setattr(auto, "from_pretrained", refuse)
    for name in ("from_config", "from_pretrained"):
        monkeypatch.setattr(transformers.AutoModelForCausalLM, name, refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    for name in RECIPES:
        for profile in PROFILES:
            estimate = estimate_memory(get_recipe(name, profile), device="cuda")
            assert estimate.total == sum(estimate.parts.values()) > memory.CUDA_RUNTIME


def test_the_command(tiny_recipe, tmp_path, capsys):
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(tiny_recipe.to_dict()), encoding="utf-8")
    assert main(["memory", str(path)]) == 0
    out = capsys.readouterr().out
    assert "on cpu, computing in float32" in out
    assert "fits in" in out
    assert main(["memory", str(path), "--gpu-gb", "0.5", "--set", "dtype=bfloat16"]) == 1
    out = capsys.readouterr().out
    assert "assumed: 0.62 GiB for the CUDA context" in out
    assert "does not fit in 0.50 GiB" in out
    assert main(["memory", "intuitor", "--profile", "gpu-12gb"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["loading", "rollout", "reference", "update"]
    assert lines[2].split() == ["weights", *["1.06", "GiB"] * 4]
    with pytest.raises(SystemExit):
        main(["memory"])
    assert "required: recipe" in capsys.readouterr().err


def test_the_table():
    found, total = script("memory_table").largest("Qwen/Qwen2.5-1.5B", 8)
    assert total == estimate_memory(found, device="cuda").total <= 8 * 2**30
    longer = found.replace(max_completion_length=3072)
    assert estimate_memory(longer, device="cuda").total > 8 * 2**30


@pytest.mark.slow
def test_the_estimate_is_near_what_a_training_takes(tmp_path):
    check = script("memory_check")
    changes = {**check.SMALL, **check.CHECKED["gradient checkpointing"], "dtype": "float32"}
    changes |= {"max_completion_length": 32}  # for its seconds
    measured, estimated = check.measure(get_recipe("quickstart", "cpu", **changes), tmp_path)
    assert 0.85 < estimated / measured < 1.15
