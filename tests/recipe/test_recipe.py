import copy
import dataclasses
import functools
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml

from intuitor_lib.cli.arguments import read_recipe
from intuitor_lib.cli.script import _parser
from intuitor_lib.recipe import PROFILES
from intuitor_lib.recipe.checks import model_context
from intuitor_lib.recipe.constants import (
    QWEN_CODER,
    SETTINGS,
    SMOLLM2,
    SYSTEM_PROMPTS,
    InputError,
    RecipeError,
)
from intuitor_lib.recipe.recipe import Recipe
from intuitor_lib.recipe.recipes import RECIPES, get_recipe

FIELDS = {f.name: f for f in dataclasses.fields(Recipe)}
LABELS = {
    *("name", "profile", "save_steps", "eval_steps", "preflight_problems", "snapshot_steps"),
    "report_to",
}
NAN, INF = float("nan"), float("inf")

every_recipe = pytest.mark.parametrize("name", RECIPES)
every_profile = pytest.mark.parametrize("profile", PROFILES)


def recipe_of(path):
    return read_recipe(_parser().parse_args(["train", str(path)]))


def quietly(build, *args, **kwargs):
    """A recipe without its warning about beta=0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build(*args, **kwargs)


# Faults

FAULTS = [
    # types
    ({"beta": "0.1"}, "beta='0.1' is not of type float"),
    ({"beta": None}, "beta=None is not of type float"),
    ({"learning_rate": True}, "learning_rate=True is not of type float"),
    ({"num_generations": 7.0}, "num_generations=7.0 is not of type int"),
    ({"num_generations": True}, "num_generations=True is not of type int"),
    ({"use_lora": 1}, "use_lora=1 is not of type bool"),
    ({"model": 3}, "model=3 is not of type str"),
    ({"rewards": "self_certainty"}, "rewards='self_certainty' is not of type tuple[str, ...]"),
    ({"rewards": ["self_certainty", 3]}, "rewards=('self_certainty', 3) is not of type"),
    ({"reward_weights": ["1"]}, "reward_weights=('1',) is not of type"),
    ({"max_problems": "all"}, "max_problems='all' is not of type int | None"),
    # choices
    ({"dtype": "bf16"}, "dtype='bf16': choose one of auto, bfloat16, float16, float32"),
    ({"quantization": "int8"}, "quantization='int8': choose one of nf4, none"),
    ({"over_long_prompts": "cut"}, "over_long_prompts='cut': choose one of drop, refuse"),
    ({"annotator": "base"}, "annotator='base': choose one of online, offline"),
    ({"multi_objective_aggregation": "sum"}, "choose one of sum_then_normalize"),
    ({"rollout": "trl"}, "rollout='trl': choose one of auto, grouped, generate"),
    ({"update": "fast"}, "update='fast': choose one of auto, grouped, plain"),
    ({"certainty_from": "logits"}, "choose one of auto, sampling, forward"),
    ({"certainty_from": "sampling", "rollout": "generate"}, "at hand only for rollout='grouped'"),
    ({"certainty_from": "sampling", "annotator": "offline"}, "and annotator='offline'"),
    ({"rollout_batch_size": 0}, "rollout_batch_size=0: must be at least 1, or null"),
    ({"vllm_mode": "alone"}, "choose one of colocate, server"),
    ({"rollout": "vllm", "vllm_mode": "server"}, "without vllm_server_base_url"),
    ({"vllm_gpu_memory_utilization": 1.0}, r"must be in (0, 1), the share of the GPU"),
    ({"model": "embedded:Other"}, f"embedded models are {SMOLLM2} and {QWEN_CODER}"),
    # ranges
    ({"beta": -0.1}, "beta=-0.1: the KL coefficient must be 0 or greater"),
    ({"beta": NAN}, "beta=nan: the KL coefficient must be 0 or greater"),
    ({"beta": INF}, "beta=inf: the KL coefficient must be 0 or greater"),
    ({"top_p": 0.0}, "top_p=0.0: must be in (0, 1]"),
    ({"top_p": NAN}, "top_p=nan: must be in (0, 1]"),
    ({"num_generations": 1}, "num_generations=1: a group needs at least 2 completions"),
    ({"num_generations": 0}, "num_generations=0: a group needs at least 2 completions"),
    ({"max_problems": 0}, "max_problems=0: must be at least 1, or null"),
    ({"prompt_template": "Q:"}, "prompt_template='Q:': must hold {prompt} exactly once"),
    ({"prompt_template": "{prompt} {prompt}"}, "must hold {prompt} exactly once"),
    *(
        ({key: value}, f"{key}={value!r}: must be greater than 0")
        for key in ("learning_rate", "epsilon", "temperature", "adam_epsilon", "max_grad_norm")
        for value in (0.0, -1.0, NAN, INF)
    ),
    *(
        ({key: 0}, f"{key}=0: must be greater than 0")
        for key in (
            "lora_r",
            "lora_alpha",
            "max_steps",
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "num_iterations",
            "max_prompt_length",
            "max_completion_length",
            "save_steps",
        )
    ),
    *(
        ({key: -1}, f"{key}={-1.0 if key == 'weight_decay' else -1}: must be 0 or greater")
        for key in ("eval_problems", "top_k", "weight_decay", "seed", "dataset_seed")
    ),
    *(
        ({key: value}, f"{key}={value!r}: must be in [0, 1)")
        for key in ("warmup_ratio", "lora_dropout", "adam_beta1", "adam_beta2")
        for value in (-0.1, 1.0, NAN)
    ),
    # settings that contradict each other
    (
        {"num_generations": 6},
        "num_generations=6 does not divide the batch of 7 x 128 = 896 completions: make "
        "per_device_train_batch_size x gradient_accumulation_steps a multiple of it",
    ),
    ({"use_lora": False}, "quantization='nf4' with use_lora=false: 4-bit weights cannot be"),
    (
        {"use_lora": False, "quantization": "none", "adapter": "folder"},
        "adapter='folder' with use_lora=false: set use_lora=true",
    ),
    ({"lora_target_modules": ()}, "lora_target_modules is empty"),
    (
        {"model": SMOLLM2, "max_completion_length": 8192},
        "max_completion_length=8192 leaves no room for a prompt in the 8192 tokens",
    ),
    (
        {"model": SMOLLM2, "max_prompt_length": 513, "max_completion_length": 7680},
        "max_prompt_length=513 + max_completion_length=7680 exceed the 8192 tokens",
    ),
    # rewards
    ({"rewards": ()}, "rewards=(): name at least one of self_certainty"),
    ({"report_to": "all"}, "report_to='all': choose from none, tensorboard, trackio, wandb, or a"),
    ({"report_to": ["wandb", "wnb"]}, "report_to='wnb': choose from"),
    ({"report_to": ["none", "wandb"]}, "name each tracker once, or 'none' alone"),
    ({"rewards": ("certainty",)}, "rewards holds 'certainty': choose from self_certainty"),
    ({"rewards": ("random", "random")}, "each may be named once; use reward_weights"),
    ({"reward_weights": (1.0, 2.0)}, "has 2 values for 1 rewards: give one weight each"),
]


@pytest.mark.parametrize(("changes", "expected"), FAULTS)
def test_faults_name_value_and_remedy(changes, expected):
    with pytest.raises(RecipeError) as caught:
        Recipe(**changes)
    assert expected in str(caught.value)
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict(changes)
    assert expected in str(caught.value)


def test_several_faults_are_reported_together():
    with pytest.raises(RecipeError) as caught:
        Recipe(name="mine", beta=-1, num_generations=1, top_p=2.0, rewards=("x",), dtype="fp8")
    message = str(caught.value)
    assert message.startswith("recipe 'mine' cannot be trained: ")
    for part in (
        "beta=-1.0:",
        "num_generations=1:",
        "top_p=2.0:",
        "rewards holds 'x'",
        "dtype='fp8'",
    ):
        assert part in message
    with pytest.raises(RecipeError, match=r"(?s)seed='a' is not.*|model=1 is not") as caught:
        Recipe(model=1, seed="a")
    assert "model=1 is not" in str(caught.value)
    assert "seed='a' is not" in str(caught.value)


@pytest.mark.parametrize(
    "build",
    [
        lambda **settings: Recipe.from_dict(settings),
        lambda **settings: Recipe.from_json(json.dumps(settings)),
        lambda **settings: Recipe.from_yaml(json.dumps(settings)),
        lambda **settings: Recipe().replace(**settings),
        lambda **settings: get_recipe("quickstart", "cpu", **settings),
    ],
)
def test_unknown_settings_name_the_nearest(build):
    with pytest.raises(RecipeError) as caught:
        build(num_generation=8, betta=0.1, zzzzzz=1)
    message = str(caught.value)
    assert "unknown setting 'num_generation': did you mean 'num_generations'?" in message
    assert "unknown setting 'betta': did you mean 'beta'?" in message
    assert "unknown setting 'zzzzzz': settings are name, profile, model" in message


def test_unknown_settings_have_no_source():
    with pytest.raises(RecipeError, match="did you mean 'beta'"):
        Recipe.source("betas")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not readable as JSON"),
        ("{", "not readable as JSON"),
        ("[1]", "mapping of settings to values, not list"),
        ("null", "mapping of settings to values, not NoneType"),
        ('{"beta": NaN}', "beta=nan"),
        ('{"beta": "x"}', "beta='x' is not of type float"),
    ],
)
def test_bad_json(text, expected):
    with pytest.raises(RecipeError, match=expected):
        Recipe.from_json(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "mapping of settings to values, not NoneType"),
        ("- beta", "mapping of settings to values, not list"),
        ("beta: [", "not readable as YAML"),
        ("beta: !!python/object/apply:os.getcwd []", "not readable as YAML"),
        ("!!python/name:os.system", "not readable as YAML"),
        ("model: !local x", "not readable as YAML"),
        ("beta: .nan", "beta=nan"),
        ("beta: yes", "beta=True is not of type float"),
    ],
)
def test_bad_yaml(text, expected):
    with pytest.raises(RecipeError, match=expected):
        Recipe.from_yaml(text)


def test_yaml_tags_run_nothing(tmp_path):
    made = tmp_path / "made"
    with pytest.raises(RecipeError):
        Recipe.from_yaml(f"beta: !!python/object/apply:os.mkdir ['{made}']")
    assert not made.exists()


# Warnings


def test_beta_0_warns_of_the_known_collapse():
    with pytest.warns(UserWarning, match=r"(?s)collapsed near step 20.*logan7000.*uses 0\.005"):
        Recipe(beta=0.0)


def test_a_positive_beta_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Recipe(beta=1e-9)


# Immutability, identity


def test_recipes_are_frozen():
    given = {"min_terms": 2}
    recipe = Recipe(dataset_kwargs=given)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.beta = 0.1
    with pytest.raises(TypeError):
        recipe.dataset_kwargs["min_terms"] = 3
    given["min_terms"] = 3
    assert recipe.dataset_kwargs == {"min_terms": 2}
    digits = [2, 1]
    recipe = Recipe(dataset_kwargs={"digits": digits})
    digits.append(9)
    assert recipe.dataset_kwargs == {"digits": [2, 1]}
    assert Recipe(rewards=["random"]).rewards == ("random",)


def test_replace_copies_and_validates():
    recipe = Recipe()
    assert recipe.replace(beta=0.01).beta == 0.01
    assert recipe.beta == 0.005
    with pytest.raises(RecipeError, match="beta=-1"):
        recipe.replace(beta=-1)


CHANGED = {
    "model": "Qwen/Qwen2.5-1.5B",
    "tests_column": "tests",
    "model_revision": "v2",
    "adapter": "folder",
    "dtype": "float32",
    "quantization": "nf4",
    "use_lora": False,
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.1,
    "lora_target_modules": ("q_proj",),
    "dataset": "reasoning-gym:chain_sum",
    "dataset_name": "main",
    "dataset_split": "test",
    "dataset_revision": "v3",
    "dataset_kwargs": {"min_terms": 2},
    "dataset_seed": 1,
    "max_problems": 10,
    "eval_problems": 10,
    "prompt_column": "question",
    "answer_column": None,
    "prompt_template": "Q: {prompt}",
    "system_prompt": "",
    "over_long_prompts": "refuse",
    "answer_extraction": "last_number",
    "rewards": ("random",),
    "reward_weights": (2.0,),
    "annotator": "offline",
    "multi_objective_aggregation": "normalize_then_sum",
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    "warmup_ratio": 0.2,
    "max_steps": 59,
    "num_generations": 14,
    "per_device_train_batch_size": 14,
    "gradient_accumulation_steps": 64,
    "num_iterations": 2,
    "beta": 0.01,
    "epsilon": 0.1,
    "max_prompt_length": 513,
    "max_completion_length": 3073,
    "temperature": 1.0,
    "top_p": 0.9,
    "top_k": 20,
    "adam_beta1": 0.8,
    "adam_beta2": 0.99,
    "adam_epsilon": 1e-6,
    "weight_decay": 0.1,
    "max_grad_norm": 0.5,
    "optim": "paged_adamw_8bit",
    "gradient_checkpointing": False,
    "rollout": "generate",
    "rollout_batch_size": 8,
    "certainty_from": "forward",
    "update": "plain",
    "vllm_mode": "server",
    "vllm_server_base_url": "http://localhost:8000",
    "vllm_gpu_memory_utilization": 0.4,
    "seed": 8,
    "trust_remote_code": True,
    "on_collapse": "stop",
}
CHANGED_LABELS = {
    "name": "other",
    "profile": "other",
    "save_steps": 11,
    "eval_steps": 5,
    "preflight_problems": 0,
    "snapshot_steps": 3,
    "report_to": ("tensorboard", "wandb"),
}


def test_every_setting_is_tried():
    assert list(SETTINGS) == list(FIELDS)
    assert set(CHANGED) == set(FIELDS) - LABELS
    assert set(CHANGED_LABELS) == LABELS


@pytest.mark.parametrize("key", CHANGED)
def test_digest_changes_with_every_setting(key):
    # Without quantization use_lora may be changed too.
    recipe = Recipe(quantization="none")
    changed = recipe.replace(**{key: CHANGED[key]})
    assert getattr(changed, key) != getattr(recipe, key)
    assert changed.digest != recipe.digest


def test_a_setting_that_came_later_leaves_stored_runs_their_digest():
    # Of the defaults, before there was `tests_column`.
    assert Recipe().digest == "9f02a72a3b80"


def test_stored_runs_keep_their_digest_from_before_there_was_a_choice_of_extraction():
    boxed, last, harness = (
        Recipe(answer_extraction=way).digest for way in ("boxed", "last_number", "harness")
    )
    assert (boxed, last) == ("9f02a72a3b80", "45a709e117ab")
    assert harness not in (boxed, last)


@pytest.mark.parametrize("key", CHANGED_LABELS)
def test_digest_ignores_labels(key):
    recipe = Recipe(eval_problems=8)
    assert recipe.replace(**{key: CHANGED_LABELS[key]}).digest == recipe.digest


def test_where_checkpoints_are_restored_their_distance_counts():
    """The result is one of the checkpoints, so how often they are made decides which."""
    recipes = [Recipe(on_collapse=way) for way in ("warn", "stop", "restore")]
    counts = [r.replace(save_steps=3).digest != r.digest for r in recipes]
    assert counts == [False, False, True]


def test_where_an_alarm_ends_a_training_the_accuracies_it_sees_count():
    measured = {"eval_problems": 9, "eval_steps": 3}
    for way, counts in {"warn": False, "stop": True, "restore": True}.items():
        recipe = Recipe(on_collapse=way, eval_problems=9)
        assert (recipe.replace(**measured).digest != recipe.digest) is counts


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"one")
    return tmp_path


@pytest.mark.parametrize("key", ["model", "adapter"])
@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "merges.txt", "chat_template.jinja", "code.py"]
)
def test_a_local_folder_counts_by_its_contents(folder, key, file):
    recipe = Recipe(**{key: str(folder)})
    before = recipe.digest
    assert recipe.digest == before
    (folder / "README.md").write_text("what it is")
    assert recipe.digest == before
    (folder / file).write_bytes(b"two")
    assert recipe.digest != before


@pytest.mark.parametrize("key", ["model", "adapter"])
def test_a_moved_folder_is_the_same_recipe(folder, tmp_path_factory, key):
    before = Recipe(**{key: str(folder)}).digest
    moved = folder.rename(tmp_path_factory.mktemp("elsewhere") / "moved")
    assert Recipe(**{key: str(moved)}).digest == before
    assert Recipe(**{key: str(folder)}).digest != before


def test_a_name_on_the_hub_counts_as_it_is():
    recipe = Recipe(model="owner/model", adapter="owner/adapter")
    assert recipe.local_weights() == {}
    assert recipe.digest == "d053b9e93381"


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_recipe_files_may_begin_with_a_byte_order_mark(tmp_path, suffix):
    recipe = Recipe(name="café", system_prompt="½")
    write = {"yaml": functools.partial(yaml.safe_dump, allow_unicode=True), "json": json.dumps}
    text = write[suffix](recipe.to_dict())
    (tmp_path / f"r.{suffix}").write_text(text, encoding="utf-8-sig")
    assert recipe_of(tmp_path / f"r.{suffix}") == recipe


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("name: caf\xe9\n".encode("cp1252"), "is not UTF-8"),
        ("name: x\n".encode("utf-16"), "is in UTF-16 or UTF-32, or is no text: save it as UTF-8"),
        ("name: x\n".encode("utf-16-le"), "is in UTF-16"),
        ("name: x\n".encode("utf-32-be"), "is in UTF-16 or UTF-32"),
    ],
)
def test_recipe_files_in_other_encodings_are_told(tmp_path, content, says):
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(InputError, match=says):
        recipe_of(tmp_path / "r.yaml")


def test_another_process_has_the_same_digests():
    program = (
        "import sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from intuitor_lib.recipe import PROFILES, RECIPES, get_recipe\n"
        "print(*(get_recipe(r, p).digest for r in RECIPES for p in PROFILES))\n"
        "assert not {'torch', 'transformers', 'datasets'} & {*sys.modules}\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": "4321"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    here = [quietly(get_recipe, r, p).digest for r in RECIPES for p in PROFILES]
    assert other.stdout.split() == here
    assert all(len(digest) == 12 and int(digest, 16) >= 0 for digest in here)


@pytest.mark.parametrize("key", FIELDS)
def test_every_default_has_a_source(key):
    assert len(Recipe.source(key)) >= 10
    assert ("label" in SETTINGS[key]) == (key in LABELS)


def test_every_setting_has_a_meaning():
    assert all(len(Recipe.meaning(key)) > 3 for key in FIELDS)
    assert Recipe.meaning("beta") == "coefficient of the KL penalty"


def test_sources_tell_the_disagreements():
    assert "0.0005" in Recipe.source("beta")
    assert "3e-6" in Recipe.source("learning_rate")


# Named recipes and profiles


@every_recipe
@every_profile
def test_every_recipe_builds_under_every_profile_and_round_trips(name, profile):
    recipe = quietly(get_recipe, name, profile)
    assert (recipe.name, recipe.profile) == (name, profile)
    assert quietly(Recipe.from_json, recipe.to_json()) == recipe
    assert quietly(Recipe.from_yaml, yaml.safe_dump(recipe.to_dict())) == recipe
    assert quietly(Recipe.from_dict, recipe.to_dict()).digest == recipe.digest
    assert list(recipe.to_dict()) == list(FIELDS)


@every_recipe
def test_small_profiles_train_the_embedded_models(name):
    smoke, cpu = (quietly(get_recipe, name, profile) for profile in ("smoke", "cpu"))
    assert (smoke.model, cpu.model) == (SMOLLM2, QWEN_CODER)
    assert smoke.max_steps == 2


@every_recipe
def test_recipes_say_what_they_reproduce(name):
    assert RECIPES[name].name == name
    said = RECIPES[name].reproduces
    assert any(word in said for word in ("Table", "Figure", "section", "ours: ", "the control"))


def test_problems_of_ones_own_come_with_none_of_the_recipes_about_its_own():
    embedded, own = get_recipe("intuitor", "cpu"), get_recipe("intuitor", "cpu", dataset="x.jsonl")
    assert (embedded.prompt_column, embedded.eval_problems) == ("question", 200)
    for key in ("prompt_column", "answer_column", "prompt_template", "answer_extraction"):
        assert getattr(own, key) == getattr(Recipe, key), key
    assert (own.eval_problems, own.eval_steps, own.dataset_kwargs) == (0, None, {})
    assert own.system_prompt is not None
    assert own.max_prompt_length == PROFILES["cpu"].settings["max_prompt_length"]
    assert own.max_steps == embedded.max_steps
    with_some = get_recipe("intuitor", "cpu", dataset="x.jsonl", eval_problems=9)
    assert with_some.eval_steps == embedded.eval_steps


def test_the_quickstart_on_other_problems_asks_as_a_recipe_does():
    own = get_recipe("quickstart", "cpu", dataset="x.jsonl")
    asked = own.prompt_template, own.answer_extraction, own.system_prompt, own.eval_problems
    plain = Recipe()
    assert asked == (plain.prompt_template, plain.answer_extraction, plain.system_prompt, 0)
    same = get_recipe("quickstart", "cpu", dataset="embedded:products")
    assert same == get_recipe("quickstart", "cpu")


@every_profile
def test_profiles_are_described(profile):
    assert PROFILES[profile].name == profile
    assert PROFILES[profile].description


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("intuitr", "cpu"), "unknown recipe 'intuitr': choose from quickstart, intuitor"),
        (("intuitor", "gpu"), "unknown profile 'gpu': choose from smoke, cpu, gpu-evening"),
    ],
)
def test_unknown_names_list_the_known(args, expected):
    with pytest.raises(RecipeError, match=expected):
        get_recipe(*args)


def test_changes_win_over_profile_and_recipe():
    assert get_recipe("quickstart", "cpu", max_steps=3).max_steps == 3
    assert get_recipe("quickstart", "cpu", model="x/y").model == "x/y"
    assert get_recipe("intuitor", "cpu").max_steps != get_recipe("intuitor", "paper").max_steps
    with pytest.raises(RecipeError, match="beta=-1"):
        get_recipe("quickstart", "cpu", beta=-1)


# Table 7 of the paper (arXiv 2505.19590): problems per update, G, beta, steps, prompt and
# completion tokens, learning rate. Beta of the first two is the text's and the public code's.
TABLE_7 = {
    "intuitor-1.5b": (128, 7, 0.005, 58, 512, 3072, 3e-6),
    "intuitor": (128, 7, 0.005, 58, 512, 3072, 3e-6),
    "qwen2.5-7b": (64, 14, 0.01, 117, 512, 3072, 1e-6),
    "qwen2.5-14b": (64, 14, 0.01, 117, 512, 3072, 1e-6),
    "intuitor-code": (64, 14, 0.01, 50, 1024, 2048, 1e-6),
}


@pytest.mark.parametrize("name", TABLE_7)
def test_paper_profile_is_table_7(name):
    recipe = get_recipe(name, "paper")
    assert TABLE_7[name] == (
        recipe.problems_per_step,
        recipe.num_generations,
        recipe.beta,
        recipe.max_steps,
        recipe.max_prompt_length,
        recipe.max_completion_length,
        recipe.learning_rate,
    )
    assert recipe.completions_per_step == TABLE_7[name][0] * TABLE_7[name][1]
    assert (recipe.quantization, recipe.use_lora) == ("none", False)
    assert (recipe.temperature, recipe.epsilon, recipe.warmup_ratio) == (0.9, 0.2, 0.1)
    assert (recipe.lr_scheduler_type, recipe.seed) == ("cosine", 7)
    assert (recipe.adam_beta1, recipe.adam_beta2, recipe.adam_epsilon) == (0.9, 0.999, 1e-8)
    assert recipe.rewards == ("self_certainty",)
    assert (recipe.annotator, recipe.num_iterations) == ("online", 1)


@pytest.mark.parametrize(
    ("name", "model", "prompt"),
    [
        ("intuitor-1.5b", "Qwen/Qwen2.5-1.5B", "math-1.5b"),
        ("intuitor", "Qwen/Qwen2.5-3B", "math-3b"),
        ("grpo", "Qwen/Qwen2.5-3B", "math-3b"),
        ("qwen2.5-7b", "Qwen/Qwen2.5-7B", "math-7b"),
        ("intuitor-code", "Qwen/Qwen2.5-3B", "code"),
    ],
)
def test_models_and_their_system_prompts(name, model, prompt):
    recipe = get_recipe(name, "paper")
    assert (recipe.model, recipe.system_prompt) == (model, SYSTEM_PROMPTS[prompt])


def test_variants_change_only_what_they_ask_about():
    base = get_recipe("intuitor", "paper").to_dict()

    def changes(name):
        other = quietly(get_recipe, name, "paper").to_dict()
        return {key: value for key, value in other.items() if value != base[key] and key != "name"}

    assert changes("grpo") == {"rewards": ["accuracy"]}
    assert changes("random") == {"rewards": ["random"]}
    for beta in (0.0, 0.0001, 0.01):
        assert changes(f"kl-{beta:g}") == {"beta": beta}
    assert changes("kl-0.005") == {}
    online, offline = changes("online"), changes("offline")
    assert offline == online | {"annotator": "offline"}
    assert changes("random-longer") == online | {"rewards": ["random"]}
    assert get_recipe("offline", "paper").completions_per_step == 224
    assert online["max_steps"] == 175


def test_a_system_prompt_may_be_named():
    assert Recipe(system_prompt="math-7b").system_prompt == SYSTEM_PROMPTS["math-7b"]
    assert Recipe(**PROFILES["gpu-12gb"].settings).system_prompt == SYSTEM_PROMPTS["math-1.5b"]


def test_system_prompts_are_the_papers():
    opening = "You are a helpful AI Assistant, designed to provided well-reasoned and detailed "
    assert SYSTEM_PROMPTS["math-1.5b"] == (
        opening + "responses. You FIRST think about the reasoning process step by step and then "
        "provide the user with the answer. Please enclose your final answer in the box: "
        r"\boxed{Your Answer}."
    )
    assert SYSTEM_PROMPTS["math-3b"] == (
        SYSTEM_PROMPTS["math-1.5b"] + " Please stop generation immediately after outputing the box."
    )
    assert SYSTEM_PROMPTS["math-7b"] == (
        opening + "responses. Please provide a step-by-step solution to the following problem."
    )
    assert SYSTEM_PROMPTS["code"] == (
        "You are an AI designed to help solve competitive programming problems by generating "
        "Python code."
    )


def test_model_context_of_embedded_local_and_hub_models(tmp_path):
    assert (model_context(SMOLLM2), model_context(QWEN_CODER)) == (8192, 32768)
    assert model_context("Qwen/Qwen2.5-3B") is None
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 64}')
    assert model_context(str(tmp_path)) == 64
    with pytest.raises(RecipeError, match="max_completion_length=64 leaves no room"):
        Recipe(model=str(tmp_path), max_prompt_length=8, max_completion_length=64)
    assert Recipe(model=str(tmp_path), max_prompt_length=8, max_completion_length=56)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dataset_kwargs": "min_terms"}, "dataset_kwargs='min_terms' is not of type"),
        ({"dataset_kwargs": {"terms": {1, 2}}}, "must hold JSON values under text keys"),
        ({"dataset_kwargs": {1: 2}}, "must hold JSON values under text keys"),
        ({"reward_weights": (NAN,)}, "must be finite numbers"),
        ({"reward_weights": (0.0,)}, "not all of them 0"),
        ({"model": ""}, "model is empty"),
        ({"answer_column": ""}, "answer_column is empty"),
        ({"lora_target_modules": ("",)}, "lora_target_modules is empty"),
        ({"lr_scheduler_type": "cosin"}, "choose one of cosine, linear"),
        ({"seed": 2**40}, "must be below 2**32"),
        ({"learning_rate": 10**400}, "is not of type float"),
        ({"rewards": ("accuracy",), "answer_column": None}, "name the answers' column"),
    ],
)
def test_what_could_never_train_is_refused(changes, expected):
    with pytest.raises(RecipeError) as caught:
        Recipe(**changes)
    assert expected in str(caught.value)


def test_a_list_is_no_recipe():
    with pytest.raises(RecipeError, match="not list"):
        Recipe.from_dict([1])


def test_one_and_one_point_zero_are_the_same_training():
    assert Recipe(beta=1).digest == Recipe(beta=1.0).digest
    for weights in ([1], [1.0], (1,)):
        weighed = Recipe(reward_weights=weights, rewards=["random"])
        assert weighed.digest == Recipe(reward_weights=(1.0,), rewards=["random"]).digest
    assert Recipe(weight_decay=-0.0).digest == Recipe(weight_decay=0).digest


def test_a_recipe_is_copied_pickled_and_hashed():
    recipe = get_recipe("quickstart", "cpu")
    assert pickle.loads(pickle.dumps(recipe)) == copy.deepcopy(recipe) == recipe
    assert len({recipe, copy.copy(recipe), recipe.replace(seed=9)}) == 2


def test_a_broken_model_folder_is_told(tmp_path):
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"config\.json is not readable as JSON.*fetch it again"):
        Recipe(model=str(tmp_path))
