"""Files of models: one place reads them, and what is wrong with them is one line."""

import ast
import json
import shutil
from pathlib import Path

import bitsandbytes
import pytest
import torch
import transformers
from adapters import save_adapter
from models import FAMILIES, SMALL, with_own_code
from safetensors.torch import load_file, save_file

import intuitor_lib
from intuitor_lib.cli import main
from intuitor_lib.policy.loading import describe_policy, load_model, load_policy
from intuitor_lib.policy.pretrained import Source, cached_commit
from intuitor_lib.policy.shapes import model_shape
from intuitor_lib.problems import load_problems
from intuitor_lib.recipe import SMOLLM2, InputError
from intuitor_lib.training.memory_advice import longest_prompt, require_memory

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2471645608\n"
IDS = torch.tensor([[10, 20, 30, 40, 50]])


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A copy of the tiny model's folder, to damage."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def configure(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def halve(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def shard(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")


def pickled(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def renamed(folder, change):
    file = folder / "model.safetensors"
    save_file({change(name): tensor for name, tensor in load_file(file).items()}, file)


def sequence_to_sequence(folder):
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = transformers.T5Config(vocab_size=106, **sizes)
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)


def as_adapter(folder, *, whole):
    """Put an adapter in the folder, beside the whole model or instead of it."""
    save_adapter(folder, folder)
    if not whole:
        for file in (*folder.glob("model*"), *folder.glob("config*")):
            file.unlink()


FAULTS = {
    "LFS weights": (
        lambda f: (f / "model.safetensors").write_text(POINTER),
        r"model\.safetensors is a Git LFS pointer.*git lfs pull",
    ),
    "LFS pickle": (lambda f: pickled(f).write_text(POINTER), r"pytorch_model\.bin is a Git LFS"),
    "LFS tokenizer": (
        lambda f: (f / "tokenizer.json").write_text(POINTER),
        r"the tokenizer of .*tokenizer\.json is a Git LFS pointer",
    ),
    "LFS configuration": (
        lambda f: (f / "config.json").write_text(POINTER),
        r"config\.json is not readable as JSON.*git lfs pull",
    ),
    "cut configuration": (
        lambda f: halve(f / "config.json"),
        r"config\.json is not readable as JSON.*fetch it again",
    ),
    "a list for a configuration": (
        lambda f: (f / "config.json").write_text("[]"),
        r"the configuration of .*could not be loaded",
    ),
    "LFS shard": (
        lambda f: (shard(f), max(f.glob("model-*")).write_text(POINTER)),
        r"model-00004-of-00004\.safetensors is a Git LFS pointer",
    ),
    "cut": (
        lambda f: halve(f / "model.safetensors"),
        r"model\.safetensors is damaged or cut off.*fetch it again",
    ),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "is damaged or cut off"),
    "cut pickle": (lambda f: halve(pickled(f)), "Fetch its files again"),
    "missing shard": (
        lambda f: (shard(f), max(f.glob("model-*")).unlink()),
        r"model-00004-of-00004\.safetensors.* Fetch its files again",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no file named model.safetensors"),
    "names of another model": (
        lambda f: renamed(f, lambda name: f"module.{name}"),
        r"lack 21 of the model's weights.*lm_head\.weight, model\.embed",
    ),
    "fewer layers": (
        lambda f: configure(f, num_hidden_layers=3),
        r"lack 9 of the model's weights.*model\.layers\.2",
    ),
    "another size": (lambda f: configure(f, hidden_size=128), "or have them in another size"),
    "unknown": (
        lambda f: configure(f, model_type="qwen9"),
        "`qwen9`.*Check model_type in its config.json",
    ),
    "no configuration": (lambda f: (f / "config.json").unlink(), "configuration of .*model_type"),
    "bad configuration": (lambda f: configure(f, num_attention_heads="x"), "num_attention_heads"),
    "T5": (sequence_to_sequence, "no causal language model.*take a decoder-only one"),
    "no tokenizer": (
        lambda f: [file.unlink() for file in f.glob("tokenizer*")],
        "the tokenizer of .*Copy tokenizer.json",
    ),
    "an adapter": (lambda f: as_adapter(f, whole=False), "holds a PEFT adapter, no whole model"),
    "with an adapter": (lambda f: as_adapter(f, whole=True), "holds a PEFT adapter"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_files_are_named_with_the_remedy(fault, folder, tiny_recipe):
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_policy(tiny_recipe.replace(model=str(folder)))
    assert "\n" not in str(caught.value)


def test_the_command_line_ends_with_a_line_and_status_2(folder, capsys):
    (folder / "model.safetensors").write_text(POINTER)
    assert main(["evaluate", str(folder), "-b", "humaneval", "--n", "1"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "git lfs pull" in last


def test_good_files_of_other_forms_load(folder, tiny_recipe):
    shard(folder)
    expected = load_policy(tiny_recipe).model(IDS).logits
    loaded = load_policy(tiny_recipe.replace(model=str(folder))).model
    assert torch.equal(loaded(IDS).logits, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "adapter_model.safetensors").write_text(POINTER), "git lfs pull"),
        (lambda f: halve(f / "adapter_model.safetensors"), "is damaged or cut off"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "could not be loaded"),
        (lambda f: (f / "adapter_config.json").unlink(), "Can't find 'adapter_config.json'"),
    ],
)
def test_broken_files_of_an_adapter(change, message, tiny_recipe, tiny_model, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", tiny_model)
    change(adapter)
    with pytest.raises(InputError, match=message):
        load_policy(tiny_recipe.replace(adapter=str(adapter)))


def test_a_whole_model_is_no_adapter(tiny_recipe, tiny_model):
    with pytest.raises(InputError, match="it holds a whole model: give it as model"):
        load_policy(tiny_recipe.replace(adapter=str(tiny_model)))


@pytest.mark.parametrize(
    ("stored", "asked", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, "nf4", "already .gptq.: set quantization='none'"),
        ({"quant_method": "awq", "bits": 4}, "nf4", "already .awq.: set quantization='none'"),
        ({"quant_method": "fp8"}, "nf4", "already .fp8.: set quantization='none'"),
        ({"quant_method": "gptq", "bits": 4}, "none", "optimum.*take the model's weights in bf16"),
        ({"load_in_8bit": True}, "nf4", "already .bitsandbytes.: take the model's weights in bf16"),
        (
            {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
            "nf4",
            "already .bitsandbytes.: take the model's weights",
        ),
    ],
)
def test_a_model_that_is_quantized_already(stored, asked, message, folder):
    configure(folder, quantization_config=stored)
    with pytest.raises(InputError, match=message):
        load_model(str(folder), quantization=asked)


def test_a_model_stored_in_nf4_is_taken_as_it_is(folder, tiny_model):
    ours = load_model(str(tiny_model), quantization="nf4", dtype="float32").model
    ours.save_pretrained(folder)
    again = load_model(str(folder), quantization="nf4", dtype="float32").model
    assert describe_policy(again) == describe_policy(ours)
    assert torch.equal(again(IDS).logits, ours(IDS).logits)
    linear = next(m for m in again.modules() if isinstance(m, bitsandbytes.nn.Linear4bit))
    assert linear.compute_dtype == torch.float32
    with pytest.raises(InputError, match=r"quantization='none'.*set quantization='nf4'"):
        load_model(str(folder))


def test_a_model_of_the_hub_is_known_by_its_commit(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--model"
    for branch, commit in (("main", "a" * 40), ("other", "b" * 40)):
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / branch).write_text(commit)
    assert cached_commit(Source("org/model")) == "a" * 40
    assert cached_commit(Source("org/model", "other")) == "b" * 40
    for name in ("org/another", str(tiny_model), SMOLLM2):
        assert cached_commit(Source(name)) is None


# --- Code of a model's own


def test_nothing_asks_whether_to_run_a_model_s_code(folder, tiny_recipe, monkeypatch):
    """transformers asks on the terminal where it is told neither yes nor no."""
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("asked"))
    recipe = tiny_recipe.replace(model=str(with_own_code(folder)))
    problems = load_problems(recipe).train
    with pytest.raises(InputError, match="trust_remote_code=true if you trust it"):
        model_shape(Source.of(recipe))
    assert require_memory(recipe, problems=problems) is None
    assert longest_prompt(recipe, problems) == 7
    trusted = recipe.replace(trust_remote_code=True)
    assert require_memory(trusted, problems=problems) is not None
    assert type(load_policy(trusted).model.get_base_model()).__name__ == "OddForCausalLM"


def test_models_are_read_in_one_place():
    """So that no call forgets the recipe's revision or its trust."""
    allowed = {
        "policy/pretrained.py": 1,
        "policy/adapters.py": 1,  # the configuration of an adapter
        "policy/embedded.py": 2,  # its GGUF file, checked by its hash
        "sharing/merging.py": 1,  # a model without weights, from a configuration that was read
    }
    library = Path(intuitor_lib.__file__).parent
    found = {}
    for file in library.rglob("*.py"):
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        calls = [n for n in nodes if isinstance(n, ast.Attribute) and n.attr in _READERS]
        if calls:
            found[file.relative_to(library).as_posix()] = len(calls)
    assert found == allowed


_READERS = ("from_pretrained", "from_config", "load_adapter", "pipeline", "get_config_dict")


# --- Dropout

DROPOUT = {
    "GPT2": {"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3},
    "OPT": {"dropout": 0.3, "attention_dropout": 0.3, "layerdrop": 0.5},
    "Llama": {"attention_dropout": 0.3},
    "Qwen2": {"attention_dropout": 0.3},
    "FalconH1": {"attention_dropout": 0.3},
}


@pytest.mark.parametrize("family", DROPOUT)
def test_a_policy_is_trained_without_dropout(family, folder, tiny_recipe):
    """Else the ratio of eq. 5 does not start at 1."""
    tokens = {"vocab_size": 106, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    settings = {"n_positions": 256, "max_position_embeddings": 256, "max_seq_len": 256}
    small = {**SMALL, **FAMILIES[family], **settings, **tokens, **DROPOUT[family]}
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, f"{family}Config")(**small)
    )
    assert not torch.equal(model.train()(IDS).logits, model(IDS).logits)
    model.save_pretrained(folder)
    targets = "all-linear" if family != "FalconH1" else ("q_proj",)
    changes = {"quantization": "none", "lora_target_modules": targets}
    recipe = tiny_recipe.replace(model=str(folder), **changes)
    policy = load_policy(recipe).model.train()
    assert torch.equal(policy(IDS).logits, policy(IDS).logits)


def test_lora_dropout_is_the_recipe_s(folder, tiny_recipe, tmp_path):
    dropout = [
        part.p
        for part in load_policy(tiny_recipe.replace(lora_dropout=0.25)).model.modules()
        if isinstance(part, torch.nn.Dropout)
    ]
    assert set(dropout) == {0.25}
    adapter = str(save_adapter(tmp_path / "adapter", folder, lora_dropout=0.5))
    policy = load_policy(tiny_recipe.replace(adapter=adapter)).model
    assert policy.peft_config["default"].lora_dropout == 0.0
