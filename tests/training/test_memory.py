"""What a training takes: the estimate beside real models and real backward passes."""

import json
import types

import pytest
import torch
import transformers
from transformers.cache_utils import DynamicCache

from intuitor_lib.certainty.forward import completion_states
from intuitor_lib.certainty.head import backbone_and_head
from intuitor_lib.cli.script import main
from intuitor_lib.policy.linear import speed_up_linears
from intuitor_lib.policy.loading import load_policy
from intuitor_lib.recipe.constants import InputError
from intuitor_lib.recipe.recipes import get_recipe
from intuitor_lib.rollouts.cache import GrowingLayer
from intuitor_lib.training import memory, memory_advice
from intuitor_lib.training.memory import estimate_memory
from intuitor_lib.training.memory_advice import advice, available_memory, require_memory
from intuitor_lib.training.memory_check import check
from intuitor_lib.training.memory_configs import ARCHITECTURES, checkpoint_bytes, model_config
from intuitor_lib.training.memory_meta import META, Device, Tracker, build, stored_tensors, unpack
from intuitor_lib.training.memory_table import Fit, markdown
from intuitor_lib.training.memory_trace import _last_room
from intuitor_lib.training.training import train

# As the models' cards on the hub say.
PUBLISHED = {
    "Qwen/Qwen2.5-1.5B": 1.54,
    "Qwen/Qwen2.5-3B": 3.09,
    "Qwen/Qwen2.5-7B": 7.62,  # "7.61B" on the card, 7,615,616,512 by its weights
    "Qwen/Qwen2.5-14B": 14.8,
    "Qwen/Qwen3-14B": 14.8,
    "meta-llama/Llama-3.2-3B-Instruct": 3.21,
    "allenai/OLMo-2-1124-7B-SFT": 7.30,
}


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_architectures_have_the_published_number_of_parameters(model):
    published = PUBLISHED[model]
    digits = 1 if published > 10 else 2
    assert round(memory_advice._parameters(model, None) / 1e9, digits) == published


def bytes_by_kind(model) -> dict[str, int]:
    sizes: dict[str, int] = {}
    seen = set()
    for kind, tensor in stored_tensors(model):
        if tensor.untyped_storage()._cdata not in seen:
            seen.add(tensor.untyped_storage()._cdata)
            sizes[kind] = sizes.get(kind, 0) + tensor.numel() * tensor.element_size()
    return sizes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"quantization": "none"},
        {"quantization": "none", "use_lora": False},
        {"lora_r": 4, "lora_target_modules": ("q_proj", "v_proj")},
    ],
)
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

    estimate = estimate_memory(recipe, device="cpu")
    parts = estimate.phases["update"]
    found = {kind: parts.get(kind, 0) for kind in ("weights", "adapter", "unpacked weights")}
    assert {k: v for k, v in found.items() if v} == bytes_by_kind(model)
    assert parts["optimizer"] == sum(t.nbytes for t in states)
    assert parts["optimizer"] == 8 * sum(p.numel() for p in trained)
    assert estimate.phases["loading"]["checkpoint file"] == checkpoint_bytes(recipe.model)
    reference = 0 if recipe.use_lora else parts["weights"]
    assert parts.get("reference model", 0) == reference


def saved_bytes(model, device) -> int:
    """Of the storages that a forward pass keeps for the backward pass, parameters left out."""
    kept: dict[int, int] = {}
    left_out = {tensor.untyped_storage()._cdata for _, tensor in stored_tensors(model)}
    storages = []  # held, so that no other takes its place

    def pack(tensor):
        storage = tensor.untyped_storage()
        if tensor.device == device and tensor.is_floating_point():
            storages.append(storage)
            kept[storage._cdata] = storage.nbytes()
        return tensor

    prompts = [[1] * 20, [1] * 20, [2] * 19, [2] * 19]
    completions = [[3] * 12, [3] * 12, [3] * 12, [3] * 11]
    _, backbone, _ = backbone_and_head(model)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        states = completion_states(
            backbone, prompts, completions, share_prompts=True, device=device
        )
    assert states.requires_grad
    return sum(size for key, size in kept.items() if key not in left_out)


@pytest.mark.parametrize(
    "changes",
    [{}, {"quantization": "none"}, {"quantization": "none", "use_lora": False}],
)
def test_the_backward_pass_keeps_as_much_as_on_the_meta_device(tiny_recipe, changes):
    recipe = tiny_recipe.replace(**changes)
    real = load_policy(recipe).model.train()
    speed_up_linears(real)
    model = build(recipe, model_config(recipe.model), torch.float32)
    unpack(model)
    with Tracker(), Device("cpu", None).computing():
        expected = saved_bytes(model.train(), META)
    assert saved_bytes(real, torch.device("cpu")) == expected > 0


def test_the_tracker_counts_what_is_alive():
    with Tracker() as tracker:
        tracker.moment("a")
        first = torch.empty(1000, device=META)
        view = first[:10]
        with tracker.kind("logits"):
            second = first.exp()
        del second
        tracker.moment("b")
        assert tracker.live.total() == view.untyped_storage().nbytes() == 4000
    assert tracker.peaks["a"] == {"activations": 4000, "logits": 4000}
    assert tracker.peaks["b"].total() == 4000
    del first, view
    assert tracker.live.total() == 0


@pytest.mark.parametrize(("prompt", "completion"), [(5, 2), (64, 70), (100, 400), (7, 1000)])
def test_room_grows_as_in_rollouts(prompt, completion):
    layer = GrowingLayer()
    one = torch.zeros(1, 1, prompt, 2)
    layer.update(one, one)
    layer.batch_select_indices(torch.tensor([0]))
    rooms = [prompt]
    for _ in range(completion - 1):
        layer.update(one[..., :1, :], one[..., :1, :])
        rooms.append(layer._room.shape[-2])
    before = [room for room in rooms if room != rooms[-1]]
    assert _last_room(prompt, completion) == before[-1]


def deep_folder(tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    config.save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("changes", "device"),
    [
        ({}, "cpu"),
        ({"gradient_checkpointing": True, "gradient_accumulation_steps": 2}, "cuda"),
        ({"quantization": "none", "use_lora": False}, "cpu"),
        ({"rollout": "generate", "update": "plain"}, "cuda"),
    ],
)
def test_a_deep_model_is_as_its_layers_say(tiny_recipe, tmp_path, monkeypatch, changes, device):
    recipe = tiny_recipe.replace(model=deep_folder(tmp_path), **changes)
    from_few = estimate_memory(recipe, device=device)
    memory._stored.cache_clear()
    memory._traced.cache_clear()
    monkeypatch.setattr(memory, "_DEPTHS", (5, 6))
    whole = estimate_memory(recipe, device=device)
    for phase, parts in whole.phases.items():
        for kind in {*parts, *from_few.phases[phase]} - {"runtime", "fragmentation"}:
            assert parts.get(kind, 0) == from_few.phases[phase].get(kind, 0), (phase, kind)


def test_more_of_anything_takes_more(tiny_recipe):
    usual = estimate_memory(tiny_recipe, device="cuda")
    for changes, phase in [
        ({"max_completion_length": 100}, "rollout"),
        ({"max_completion_length": 100}, "update"),
        ({"per_device_train_batch_size": 8}, "reference"),
        ({"quantization": "none"}, "loading"),
    ]:
        more = estimate_memory(tiny_recipe.replace(**changes), device="cuda")
        assert more.phase_total(phase) > usual.phase_total(phase), changes
    for changes, phase in [
        ({"rollout_batch_size": 1}, "rollout"),
        ({"gradient_checkpointing": True}, "update"),
    ]:
        long = tiny_recipe.replace(max_completion_length=100)
        less = estimate_memory(long.replace(**changes), device="cuda").phase_total(phase)
        assert less < estimate_memory(long, device="cuda").phase_total(phase), changes
    with pytest.warns(UserWarning, match="beta=0"):
        no_reference = tiny_recipe.replace(beta=0.0)
    assert "reference" not in estimate_memory(no_reference, device="cpu").phases
    with pytest.raises(InputError, match="device='tpu'"):
        estimate_memory(tiny_recipe, device="tpu")


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
    monkeypatch.setenv(memory_advice.SKIP, "0")
    with pytest.raises(AssertionError, match="the policy was loaded"):
        train(tiny_recipe, runs=tmp_path)


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


def test_what_cannot_be_estimated_passes(tiny_recipe, monkeypatch, caplog):
    unknown = tiny_recipe.replace(model="nobody/knows-this")
    with pytest.raises(InputError, match="configuration of model='nobody/knows-this'"):
        estimate_memory(unknown, device="cpu")
    assert require_memory(unknown, device="cpu") is None
    assert "memory was not estimated" in caplog.text


def test_memory_that_is_available(tmp_path, monkeypatch):
    assert 0 < available_memory("cpu") < 2**50
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    for folder, limit in ((group, "max"), (tmp_path / "a", str(3 * 2**20))):
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text(str(2**20))
        (folder / "memory.stat").write_text("anon 5\ninactive_file 1024\n")
    monkeypatch.setattr(memory_advice, "_groups", lambda: [("", "/a/b")])
    assert [*memory_advice._cgroup_room(tmp_path)] == [2 * 2**20 + 1024]


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
    assert main(["memory"]) == 2
    assert "name a recipe" in capsys.readouterr().err


def test_the_table():
    recipe = get_recipe("intuitor", "gpu-12gb", rollout_batch_size=14)
    rows = [*markdown(iter([Fit("a/b", 12, recipe, 2**33), Fit("a/c", 8, None, 0)]))]
    assert rows[2] == "| b | 12 GiB | 1024 | 7 | 14 | 8.00 GiB |"
    assert rows[3].endswith("| - | - | - | nothing of these fits |")


def test_layers_that_differ_are_all_traced(tmp_path):
    config = transformers.Gemma3TextConfig(
        num_hidden_layers=6, hidden_size=32, intermediate_size=64, vocab_size=100, head_dim=8
    )
    config.save_pretrained(tmp_path)
    assert not memory._layers_are_alike(str(tmp_path), None)
    assert DynamicCache(config=config).layers


@pytest.mark.slow
def test_the_estimate_is_near_what_a_training_takes():
    (row,) = check(["gradient checkpointing"])
    assert 0.8 < row.ratio < 1.2
