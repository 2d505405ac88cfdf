"""What a training starts from: its reference, without dropout, and one dtype."""

import shutil

import peft
import pytest
import torch
import transformers
from adapters import save_adapter
from models import with_own_code
from trainers import make_trainer

from intuitor_lib.policy import loading
from intuitor_lib.policy.loading import load_policy
from intuitor_lib.store import RunStore
from intuitor_lib.training import training
from intuitor_lib.training.training import train

IA3 = peft.IA3Config(
    target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
)
FULL = {"use_lora": False, "quantization": "none"}


def gpt2(folder, tiny_model):
    shutil.copytree(tiny_model, folder)
    sizes = {"vocab_size": 106, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
    config = transformers.GPT2Config(**sizes, eos_token_id=1, pad_token_id=0, bos_token_id=None)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return {"model": str(folder)}


STARTS = {
    "LoRA on the embedding": lambda folder, model: {
        "adapter": str(save_adapter(folder, model, target_modules=["q_proj", "embed_tokens"]))
    },
    "IA3": lambda folder, model: {"adapter": str(save_adapter(folder, model, IA3))},
    "dropout in the model": gpt2,
    "all weights, dropout": lambda folder, model: {**gpt2(folder, model), **FULL},
}


@pytest.mark.parametrize("start", STARTS)
def test_kl_starts_at_zero(start, tiny_recipe, tiny_model, tmp_path):
    changes = STARTS[start](tmp_path / "start", tiny_model)
    recipe = tiny_recipe.replace(max_steps=1, beta=0.1, warmup_ratio=0.0, **changes)
    run = train(recipe, runs=tmp_path / "runs")
    assert run.metrics[0]["kl"] == pytest.approx(0, abs=1e-6)
    if "adapter" in changes:
        before, after = map(peft.load_peft_weights, (changes["adapter"], str(run.adapter)))
        assert any(not torch.equal(before[name], after[name]) for name in after)


def test_the_reference_of_all_weights_is_the_model_as_it_was_given(
    tiny_recipe, tiny_model, tmp_path
):
    """TRL would read it from disk again, without revision, dtype and trust."""
    folder = with_own_code(shutil.copytree(tiny_model, tmp_path / "model"))
    recipe = tiny_recipe.replace(model=str(folder), trust_remote_code=True, **FULL)
    policy = load_policy(recipe)
    shutil.rmtree(folder)
    trainer = make_trainer(recipe, policy, tmp_path / "trainer")
    assert trainer.beta == trainer.args.beta == recipe.beta
    reference = dict(trainer.ref_model.named_parameters())
    for name, parameter in policy.model.named_parameters():
        copy = reference[name]
        assert torch.equal(copy, parameter)
        assert copy.data_ptr() != parameter.data_ptr()
        assert not copy.requires_grad


def test_a_training_without_kl_keeps_no_reference(tiny_recipe, tmp_path):
    with pytest.warns(UserWarning, match="beta=0"):
        recipe = tiny_recipe.replace(beta=0.0, **FULL)
    assert make_trainer(recipe, load_policy(recipe), tmp_path).ref_model is None


@pytest.fixture
def fickle(monkeypatch):
    """A machine where bf16 is slow at the first measurement, and fast ever after."""
    seconds = iter([1.0])

    def product_seconds(dtype, device):
        return next(seconds, 0.0) if dtype == torch.bfloat16 else 0.1

    monkeypatch.setattr(loading, "product_seconds", product_seconds)
    cached = getattr(loading, "fast_dtype", None)
    if cached is not None:
        monkeypatch.setattr(loading, "fast_dtype", cached.__wrapped__)


def test_auto_is_decided_once_a_run(tiny_recipe, tmp_path, monkeypatch, fickle):
    seen = {}

    def watched(recipe, folder, device):
        seen["bf16"] = training_arguments(recipe, folder, device).bf16
        raise KeyboardInterrupt

    training_arguments = training.grpo_config
    monkeypatch.setattr(training, "grpo_config", watched)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe.replace(dtype="auto"), runs=tmp_path)
    (run,) = RunStore(tmp_path)
    assert (seen["bf16"], run.environment["compute_dtype"]) == (False, "float32")


@pytest.mark.parametrize("changes", [{}, FULL])
def test_the_dtype_of_computing_is_recorded(changes, tiny_recipe, tmp_path):
    recipe = tiny_recipe.replace(dtype="bfloat16", max_steps=1, **changes)
    assert train(recipe, runs=tmp_path).environment["compute_dtype"] == "bfloat16"
