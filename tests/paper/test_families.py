"""Each architecture of the paper's larger models, trained tiny and random; checkpoints."""

import pytest
import transformers
from conftest import character_tokenizer

from intuitor_lib import train
from intuitor_lib.paper.families import ARCHITECTURES, evaluate_checkpoints, tiny_recipe
from intuitor_lib.paper.numbers import CHECKPOINTS
from intuitor_lib.policy.embedded import is_cached
from intuitor_lib.policy.pretrained import Source
from intuitor_lib.policy.tiny import make_tiny_model
from intuitor_lib.recipe.constants import SYSTEM_PROMPTS, InputError
from intuitor_lib.recipe.recipes import get_recipe
from intuitor_lib.store.run_store import RunStore
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


COLUMNS = {"gsm8k": "GSM8K", "math500": "MATH500", "cruxeval": "CRUX"}
ROW, BASE = "Qwen2.5-1.5B + INTUITOR", "Qwen2.5-1.5B"


@pytest.fixture
def hub(tmp_path):
    """The two models of a row as tiny ones, in folders named as on the hub."""
    for row in (ROW, BASE):
        make_tiny_model(
            "Qwen2",
            tmp_path / "hub" / CHECKPOINTS[row]["model"],
            tokenizer=character_tokenizer(),
            max_position_embeddings=8192,
        )
    return tmp_path / "hub"


def test_a_checkpoint_and_its_base_stand_beside_the_paper(hub, benchmark_files, monkeypatch):
    monkeypatch.setenv("INTUITOR_BENCHMARKS", str(benchmark_files))
    settings = {"models": hub, "n": 1, "max_new_tokens": 4, "quantization": "nf4"}
    table, found = evaluate_checkpoints([ROW], COLUMNS, runs=hub / "runs", **settings)
    assert set(found) == {(row, column) for row in (ROW, BASE) for column in COLUMNS.values()}
    assert [row[0] for row in table.rows] == [BASE] * 3 + [ROW] * 3
    gsm8k = table.rows[3]
    assert gsm8k[1:4] == ["sunblaze-ucb/Qwen2.5-1.5B-Intuitor-MATH-1EPOCH", "GSM8K", "0.711"]
    assert gsm8k[5] == "+0.709"
    assert gsm8k[4].startswith("0.00 [")
    assert gsm8k[6].startswith("+0.00 [")
    records = list(RunStore(hub / "runs").evaluations())
    assert {r.spec["policy"]["quantization"] for r in records} == {"nf4"}
    prompts = {r.spec["benchmark"]["name"]: r.spec["decoding"]["system_prompt"] for r in records}
    assert prompts["gsm8k"] == prompts["math500"] == SYSTEM_PROMPTS["math-1.5b"]
    assert prompts["cruxeval"] != prompts["gsm8k"]


def test_what_is_missing_is_told_before_a_checkpoint_is_evaluated(hub, benchmark_files, tmp_path):
    with pytest.raises(InputError, match=r"no model in .*Qwen2\.5-3B"):
        evaluate_checkpoints(["Qwen2.5-3B + GRPO"], COLUMNS, models=hub, runs=tmp_path / "runs")
    with pytest.raises(KeyError, match=r"choose from Qwen2\.5-1\.5B"):
        evaluate_checkpoints(["Qwen2.5-3B + EM"], COLUMNS)
    assert not (tmp_path / "runs").exists()


def test_without_rows_the_table_says_what_could_be_evaluated():
    table, found = evaluate_checkpoints([], COLUMNS)
    assert len(table.rows) == len(CHECKPOINTS) * len(COLUMNS)
    assert {row[4] for row in table.rows} == {"not run here"}
    assert found == {}
