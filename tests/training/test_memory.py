"""What a training takes: the estimate beside real models, caches and backward passes."""

import contextlib
import importlib.util
import json
import time
import types
from pathlib import Path

import bitsandbytes
import pytest
import torch
import transformers

from intuitor_lib.certainty.forward import completion_states
from intuitor_lib.certainty.head import CHUNK_LOGITS, backbone_and_head
from intuitor_lib.cli import main
from intuitor_lib.policy import load_policy
from intuitor_lib.policy.linear import merged_adapters, speed_up_linears
from intuitor_lib.recipe import PROFILES, RECIPES, InputError, get_recipe
from intuitor_lib.rollouts.sampling import _Batch
from intuitor_lib.training import memory, memory_advice
from intuitor_lib.training.memory import ARCHITECTURES, estimate_memory, model_shape
from intuitor_lib.training.memory_advice import advice, available_memory, require_memory
from intuitor_lib.training.training import train

# As the models' cards on the hub say.
PUBLISHED = {
    "embedded:SmolLM2-135M-Instruct": 0.13,  # 134,515,008 by its weights
    "Qwen/Qwen2.5-1.5B": 1.54,
    "Qwen/Qwen2.5-3B": 3.09,
    "Qwen/Qwen2.5-7B": 7.62,  # "7.61B" on the card, 7,615,616,512 by its weights
    "Qwen/Qwen2.5-14B": 14.8,
    "Qwen/Qwen3-14B": 14.8,
    "meta-llama/Llama-3.2-3B-Instruct": 3.21,
    "allenai/OLMo-2-1124-7B-SFT": 7.30,
}
KINDS = {"Llama": "llama", "Qwen2": "qwen2", "Qwen3": "qwen3", "Olmo2": "olmo2"}
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
    sizes = {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    }
    config = getattr(transformers, f"{kind}Config")(**sizes | settings)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folders_shape_has_the_parameters_of_its_model(kind, tied, tmp_path):
    model = make_folder(tmp_path, kind, tie_word_embeddings=tied)
    shape = model_shape(str(tmp_path))
    assert shape.kind == KINDS[kind]
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
def test_models_of_another_kind_are_refused_and_pass(kind, settings, tmp_path, tiny_recipe, caplog):
    config = getattr(transformers, f"{kind}Config")(**settings)
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="not built as Llama"):
        model_shape(str(tmp_path))
    assert require_memory(tiny_recipe.replace(model=str(tmp_path)), device="cpu") is None
    assert "memory was not estimated" in caplog.text


def real_bytes(model) -> dict[str, int]:
    """Of parameters, constants of 4-bit weights and what layers keep beside them, by part."""
    sizes = {"weights": 0, "adapter": 0, "unpacked weights": 0}
    for name, parameter in model.named_parameters():
        sizes["adapter" if ".lora_" in name else "weights"] += parameter.nbytes
    for layer in model.modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            state, second = layer.weight.quant_state, layer.weight.quant_state.state2
            constants = (state.absmax, state.code, state.offset, second.absmax, second.code)
            sizes["weights"] += sum(tensor.nbytes for tensor in constants)
        unpacked = vars(layer).get("_unpacked")
        sizes["unpacked weights"] += 0 if unpacked is None else unpacked.nbytes
    return sizes


@pytest.mark.parametrize("changes", WAYS)
def test_what_is_stored_is_what_is_loaded(tiny_recipe, changes):
    recipe = tiny_recipe.replace(**changes)
    model = load_policy(recipe).model
    speed_up_linears(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    states = [t for state in optimizer.state.values() for t in state.values() if t.dim()]

    phases = estimate_memory(recipe, device="cpu").phases
    update = phases["update"]
    assert {kind: update.get(kind, 0) for kind in real_bytes(model)} == real_bytes(model)
    assert update["optimizer"] == sum(t.nbytes for t in states)
    assert update.get("gradients", 0) in (0, sum(p.grad.nbytes for p in trained))
    reference = 0 if recipe.use_lora else update["weights"]
    assert update.get("reference model", 0) == reference
    files = [*Path(recipe.model).glob("*.safetensors")]
    assert phases["loading"]["checkpoint file"] == sum(file.stat().st_size for file in files)

    with merged_adapters(model):
        layers = [vars(layer)["_merged"] for layer in model.modules() if "_merged" in vars(layer)]
        assert phases["rollout"].get("merged weights", 0) == sum(w.nbytes for w in layers)
    assert bool(layers) == recipe.use_lora


def test_an_adapter_that_is_gone_on_with_counts_twice(tiny_recipe, tmp_path):
    model = load_policy(tiny_recipe.replace(lora_r=5)).model
    model.save_pretrained(tmp_path)
    parts = estimate_memory(tiny_recipe.replace(adapter=str(tmp_path)), device="cpu").parts
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    assert (parts["adapter"], parts["optimizer"]) == (2 * trained, 2 * trained)


def in_dtype(dtype):
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast("cpu", dtype=getattr(torch, dtype))


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
    with torch.no_grad(), in_dtype(dtype):
        batch = _Batch(model.model, [[1] * prompt] * group + [[2] * prompt] * group, length, 0)
        batch.prefill()
        before = 0
        for _ in range(length - 1):
            rooms = [t.nbytes for x in batch.cache.layers for t in (x._room, x._value_room)]
            batch.step()
            now = [t.nbytes for x in batch.cache.layers for t in (x._room, x._value_room)]
            before = sum(rooms) if now != rooms else before
    moments = [*memory._Training(recipe, "cpu", prompt).rollout()]
    assert moments[-1]["cache"] == sum(now)
    assert moments[1]["cache"] == sum(now) + before / len(batch.cache.layers)


PROMPTS = [[1] * 20, [1] * 20, [2] * 19, [2] * 19]
COMPLETIONS = [[3] * 12, [3] * 12, [3] * 12, [3] * 11]


def saved_bytes(model, *, share: bool, dtype: str, rows: int = 4) -> int:
    """Of the storages that a forward pass keeps for the backward pass, weights left out."""
    kept: dict[int, int] = {}
    storages = []  # held, so that no other takes its place
    weights = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    weights |= {
        vars(layer)["_unpacked"].untyped_storage()._cdata
        for layer in model.modules()
        if "_unpacked" in vars(layer)
    }

    def pack(tensor):
        storage = tensor.untyped_storage()
        if tensor.is_floating_point():
            storages.append(storage)
            kept[storage._cdata] = storage.nbytes()
        return tensor

    _, backbone, _ = backbone_and_head(model)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, in_dtype(dtype):
        states = completion_states(
            *(backbone, PROMPTS[:rows], COMPLETIONS[:rows]),
            share_prompts=share,
            device=torch.device("cpu"),
        )
    assert states.requires_grad
    return sum(size for key, size in kept.items() if key not in weights)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", WAYS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_backward_pass_keeps_as_much_as_estimated(
    tiny_recipe, tmp_path, tiny_model, kind, changes, dtype
):
    make_folder(tmp_path, kind, tie_word_embeddings=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(tmp_path)
    share = changes.get("use_lora", True)  # TRL scores with a head that is trained
    length = 12 if share else 11  # it feeds the last token, `completion_states` does not
    recipe = tiny_recipe.replace(
        **changes, model=str(tmp_path), dtype=dtype, max_completion_length=length
    )
    model = load_policy(recipe).model.train()
    speed_up_linears(model)
    training = memory._Training(recipe, "cpu", 20)
    kept = next(training.update())["activations"]
    if share:  # not saved, but held by the cache meanwhile
        kept -= 3 * training.cached * 4 * (20 + length - 1)
    real = saved_bytes(model, share=share, dtype=dtype)
    assert 0.93 < kept / real < 1.07


def test_keys_are_not_repeated_where_nothing_is_masked(tiny_recipe):
    recipe = tiny_recipe.replace(
        per_device_train_batch_size=1, gradient_accumulation_steps=4, max_completion_length=12
    )
    model = load_policy(recipe).model.train()
    speed_up_linears(model)
    kept = next(memory._Training(recipe, "cpu", 20).update())["activations"]
    assert kept == pytest.approx(saved_bytes(model, share=True, dtype="float32", rows=1), rel=0.02)


def test_a_reference_that_shares_no_prompts_keeps_no_cache(tiny_recipe):
    recipe = tiny_recipe.replace(per_device_train_batch_size=1, gradient_accumulation_steps=4)
    training = memory._Training(recipe, "cpu", 20)
    tokens = 20 + recipe.max_completion_length - 1
    assert next(training.reference()) == {"activations": training.passing(tokens, tokens)}
    shared = memory._Training(tiny_recipe, "cpu", 20)
    cache = 2 * shared.cached * (2 * 20 + 4 * tokens)
    assert next(shared.reference())["activations"] > cache + shared.passing(4 * (tokens - 20))


def test_the_logits_are_those_of_a_chunk_or_of_trls_tile(tiny_recipe):
    large = get_recipe("intuitor", "gpu-12gb")
    logits = [
        [*memory._Training(recipe, device, 64).update()][1]["logits"]
        for recipe, device in [
            (large, "cuda"),
            (large.replace(update="plain"), "cuda"),
            (tiny_recipe, "cpu"),
        ]
    ]
    vocabulary = model_shape(tiny_recipe.model).vocabulary
    tokens = tiny_recipe.per_device_train_batch_size * tiny_recipe.max_completion_length
    assert logits == [12 * CHUNK_LOGITS, 2 * 4096 * 32768, 12 * tokens * vocabulary]


def test_checkpointing_keeps_the_inputs_of_the_layers():
    recipe = get_recipe("intuitor", "gpu-12gb", gradient_checkpointing=True)
    shape = model_shape(recipe.model)
    tokens = 7 * (512 + 1024 - 1)
    forward = next(memory._Training(recipe, "cuda", 512).update())["activations"]
    adapter = estimate_memory(recipe, device="cuda").parts["adapter"]
    assert forward == tokens * shape.hidden * (2 * shape.layers + 4) + adapter // 2


def test_more_of_anything_takes_more(tiny_recipe):
    usual = estimate_memory(tiny_recipe, device="cuda")
    for changes, phase in [
        ({"max_completion_length": 100}, "rollout"),
        ({"max_completion_length": 100}, "update"),
        ({"max_prompt_length": 100}, "rollout"),
        ({"per_device_train_batch_size": 8}, "reference"),
        ({"lora_r": 64}, "update"),
        ({"lora_dropout": 0.1}, "update"),
        ({"dtype": "float32", "quantization": "none"}, "loading"),
    ]:
        more = estimate_memory(tiny_recipe.replace(**changes), device="cuda")
        assert more.phase_total(phase) > usual.phase_total(phase), changes
    for changes, phase in [
        ({"rollout_batch_size": 1}, "rollout"),
        ({"gradient_checkpointing": True}, "update"),
        ({"dtype": "bfloat16"}, "update"),
    ]:
        long = tiny_recipe.replace(max_completion_length=100)
        less = estimate_memory(long.replace(**changes), device="cuda").phase_total(phase)
        assert less < estimate_memory(long, device="cuda").phase_total(phase), changes
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
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: short)
    estimate = estimate_memory(tiny_recipe, device="cpu")
    assert not {"unpacked weights", "merged weights"} & estimate.phases["rollout"].keys()


def test_every_recipe_is_estimated_at_once_without_model_and_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something was loaded")

    for auto in (transformers.AutoConfig, transformers.AutoTokenizer):
        monkeypatch.setattr(auto, "from_pretrained", refuse)
    for name in ("from_config", "from_pretrained"):
        monkeypatch.setattr(transformers.AutoModelForCausalLM, name, refuse)
    monkeypatch.setattr(memory_advice, "embedded_model_folder", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    recipes = [get_recipe(name, profile) for name in RECIPES for profile in PROFILES]
    estimate_memory(recipes[0], device="cpu")  # which times products, once
    start = time.perf_counter()
    for recipe in recipes:
        estimate = estimate_memory(recipe, device="cuda")
        assert estimate.total == sum(estimate.parts.values()) > memory.CUDA_RUNTIME
    assert (time.perf_counter() - start) / len(recipes) < 0.02


def test_advice_really_fits(tiny_recipe):
    recipe = tiny_recipe.replace(max_completion_length=150, gradient_accumulation_steps=8)
    now = estimate_memory(recipe, device="cuda")
    assert advice(recipe, now.total, device="cuda") == []
    smallest = memory.CUDA_RUNTIME + 10**6
    for budget in (now.total - 1, smallest):
        found = advice(recipe, budget, device="cuda")
        assert found
        for one in found:
            after = estimate_memory(recipe.replace(**one.changes), device="cuda")
            assert (one.total, one.saves) == (after.total, now.total - after.total)
            assert one.fits == (after.total <= budget)
            assert one.saves > 0
            same = recipe.replace(**one.changes)
            if "per_device_train_batch_size" in one.changes:
                assert same.completions_per_step == recipe.completions_per_step
    assert any(one.fits for one in advice(recipe, now.total - 1, device="cuda"))


def test_advice_is_the_mildest_that_fits_and_harmless_first():
    recipe = get_recipe("intuitor", "gpu-12gb")
    found = advice(recipe, 6 * 2**30, device="cuda")
    assert [*found[0].changes.items()] == [("rollout_batch_size", 56)]
    assert [next(iter(one.changes)) for one in found[1:]] == ["max_completion_length", "model"]
    assert (
        estimate_memory(recipe.replace(rollout_batch_size=112), device="cuda").total
        > 6 * 2**30
        >= found[0].total
    )
    assert str(found[0]).startswith("rollout_batch_size=56: ")
    assert str(found[0]).endswith("less (fits)")


def test_advice_puts_several_together_where_one_is_not_enough():
    recipe = get_recipe("intuitor", "gpu-24gb")
    budget = 9 * 2**30
    found = advice(recipe, budget, device="cuda")
    alone = recipe.replace(rollout_batch_size=56)
    assert found[0].changes == {"rollout_batch_size": 56}
    estimate = estimate_memory(alone, device="cuda")
    assert estimate.phase_total("rollout") <= budget < estimate.phase_total("update")
    # Micro-batches as large as fit, and nothing that changes the training.
    assert found[-1].changes == {
        "rollout_batch_size": 56,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 56,
    }
    assert [one.fits for one in (found[0], found[-1])] == [False, True]


def test_no_smaller_model_for_an_adapter(tiny_recipe, tmp_path):
    load_policy(tiny_recipe).model.save_pretrained(tmp_path)
    recipe = get_recipe("intuitor", "gpu-12gb", adapter=str(tmp_path))
    assert not any("model" in one.changes for one in advice(recipe, 10**9, device="cuda"))


def test_the_preflight_refuses(tiny_recipe, tmp_path, monkeypatch):
    assert require_memory(tiny_recipe, device="cpu") is not None
    recipe = tiny_recipe.replace(max_completion_length=150)
    needed = estimate_memory(recipe, device="cuda").total
    with pytest.raises(InputError, match=r"Lower one of: .*max_completion_length=.*fits"):
        require_memory(recipe, device="cuda", available=needed - 1000)

    def loaded(recipe):
        raise AssertionError("the policy was loaded")

    monkeypatch.setattr("intuitor_lib.training.training.load_policy", loaded)
    monkeypatch.setattr(memory_advice, "available_memory", lambda device: 0)
    monkeypatch.setattr(memory_advice, "advice", lambda *_, **__: [])
    with pytest.raises(InputError, match=r"0.00 GiB are free on cpu.*INTUITOR_MEMORY_CHECK=0"):
        train(tiny_recipe, runs=tmp_path)
    monkeypatch.setenv(memory.SKIP, "0")
    with pytest.raises(AssertionError, match="the policy was loaded"):
        train(tiny_recipe, runs=tmp_path)


def test_what_the_process_has_is_not_asked_for_again(tiny_recipe):
    estimate = estimate_memory(tiny_recipe, device="cpu")
    more = estimate.total - estimate.parts["runtime"]
    assert require_memory(tiny_recipe, device="cpu", available=more + 2**20) is not None
    with pytest.raises(InputError, match=r"0\.00 GiB are free"):
        require_memory(tiny_recipe, device="cpu", available=more - 1000)


def test_processes_share_an_update(tiny_recipe):
    recipe = tiny_recipe.replace(max_completion_length=150)
    one = estimate_memory(recipe, device="cuda").total
    shared = require_memory(recipe, device="cuda", available=one, processes=2)
    half = recipe.replace(per_device_train_batch_size=2)
    assert shared.total == estimate_memory(half, device="cuda").total < one


def test_the_preflight_takes_the_longest_prompt_of_the_problems(tiny_recipe):
    long = tiny_recipe.replace(max_prompt_length=240)
    needed = estimate_memory(long, device="cuda").total
    short = estimate_memory(long, device="cuda", prompt_tokens=30).total
    assert short < needed
    problems = [types.SimpleNamespace(prompt="1+1=")]
    estimate = require_memory(
        long, device="cuda", available=(needed + short) // 2, problems=problems
    )
    assert estimate is not None
    assert estimate.prompt_tokens < 30


def test_what_cannot_be_estimated_passes(tiny_recipe, caplog):
    unknown = tiny_recipe.replace(model="nobody/knows-this")
    with pytest.raises(InputError, match="configuration of model='nobody/knows-this'"):
        estimate_memory(unknown, device="cpu")
    assert require_memory(unknown, device="cpu") is None
    assert "memory was not estimated" in caplog.text


@pytest.mark.parametrize(
    ("line", "top", "names"),
    [
        ("0::/a/b", "", ("memory.max", "memory.current", "inactive_file", "max")),
        (
            "5:cpu,cpuacct:/x\n4:hugetlb,memory:/a/b",
            "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", str(2**63)),
        ),
    ],
)
def test_memory_that_is_available(tmp_path, line, top, names):
    assert 0 < available_memory("cpu") < 2**50
    groups = tmp_path / "cgroup"
    groups.write_text(line + "\n")
    limit, used, pages, none = names
    inner = tmp_path / top / "a" / "b"
    inner.mkdir(parents=True)
    for folder, size in ((inner, none), (inner.parent, str(3 * 2**20))):
        (folder / limit).write_text(size)
        (folder / used).write_text(str(2**20))
        (folder / "memory.stat").write_text(f"anon 5\n{pages} 1024\n")
    assert min(memory_advice._cgroup_room(groups, tmp_path)) == 2 * 2**20 + 1024
    assert [*memory_advice._cgroup_room(tmp_path / "none", tmp_path)] == []


def test_in_a_container_the_limit_is_at_the_top(tmp_path):
    groups = tmp_path / "cgroup"
    groups.write_text("0::/of/the/host\n")
    for name, text in {"max": "5000", "current": "1000", "stat": "inactive_file 10\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert [*memory_advice._cgroup_room(groups, tmp_path)] == [4010]


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


def script(name):
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table():
    found, total = script("memory_table").largest("Qwen/Qwen2.5-1.5B", 8)
    assert total == estimate_memory(found, device="cuda").total <= 8 * 2**30
    longer = found.replace(max_completion_length=3072)
    assert estimate_memory(longer, device="cuda").total > 8 * 2**30


@pytest.mark.slow
def test_the_estimate_is_near_what_a_training_takes(tmp_path):
    check = script("memory_check")
    changes = {**check.SMALL, **check.CHECKED["gradient checkpointing"], "dtype": "float32"}
    measured, estimated = check.measure(get_recipe("quickstart", "cpu", **changes), tmp_path)
    assert 0.85 < estimated / measured < 1.15
