"""Each architecture of the paper's larger models, tiny and random, trained in 4 bits."""

import pytest
import transformers

from intuitor_lib import train
from intuitor_lib.paper.families import ARCHITECTURES, tiny_recipe
from intuitor_lib.policy.embedded import is_cached
from intuitor_lib.policy.pretrained import Source
from intuitor_lib.policy.tiny import make_tiny_model
from intuitor_lib.recipe.recipes import get_recipe
from intuitor_lib.training.memory import model_shape

needs_tokenizer = pytest.mark.skipif(
    not is_cached(), reason="the embedded model, whose tokenizer they use, is not fetched yet"
)


@needs_tokenizer
@pytest.mark.parametrize("architecture", dict.fromkeys(ARCHITECTURES.values()))
def test_a_tiny_model_is_of_its_family(architecture, tmp_path):
    folder = make_tiny_model(architecture, tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == f"{architecture}ForCausalLM"
    assert sum(p.numel() for p in model.parameters()) < 5e6


@needs_tokenizer
@pytest.mark.slow
def test_it_trains_in_four_bits(tmp_path):
    recipe = tiny_recipe("olmo2-7b", tmp_path / "models")
    run = train(recipe, runs=tmp_path / "runs")
    assert run.steps == 2
    assert run.environment["quantization"] == "nf4"
    assert all(row["grad_norm"] > 0 for row in run.metrics)


def test_an_unknown_family_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"choose from qwen2\.5-7b"):
        tiny_recipe("grpo", tmp_path)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_architecture_is_that_of_the_recipes_model(name):
    shape = model_shape(Source.of(get_recipe(name, "gpu-24gb")))
    assert shape.kind == ARCHITECTURES[name].lower()
