"""A tiny causal language model with a character tokenizer, and recipes that train it."""

import json
import os
import string
from pathlib import Path

import pytest
from benchmark_rows import ALPACA, CRUX, LCB, METHOD, MMLU, write

# Before any library reads them: tests use no network and few threads.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # several workers with several threads each are slower
    os.environ.setdefault("OMP_NUM_THREADS", "1")

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'][0] + '>' + m['content'] + '<e>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<a>' }}{% endif %}"
)


def character_tokenizer(*, chat_template: str | None = CHAT_TEMPLATE, pad: bool = True):
    """One token per printable character; `<e>` ends a turn, `<p>` pads."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<p>", "<e>", "<s>", "<u>", "<a>", "<?>"]
    vocabulary = {token: i for i, token in enumerate([*special, *string.printable])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<?>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<e>",
        unk_token="<?>",
        additional_special_tokens=["<s>", "<u>", "<a>"],
        **({"pad_token": "<p>"} if pad else {}),
    )
    fast.chat_template = chat_template
    return fast


def make_tiny_llama(folder: Path) -> Path:
    """A random 2-layer Llama of 0.1 M parameters with its tokenizer, written to a folder."""
    from intuitor_lib.policy.tiny import make_tiny_model

    settings = {"max_position_embeddings": 256, "initializer_range": 0.2}
    return make_tiny_model(
        "Llama", folder, tokenizer=character_tokenizer(), tie_word_embeddings=False, **settings
    )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model."""
    return make_tiny_llama(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def sums_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A jsonl file of 24 sums: columns problem and answer."""
    path = tmp_path_factory.mktemp("problems") / "sums.jsonl"
    rows = [{"problem": f"{a}+{b}=", "answer": str(a + b)} for a in range(6) for b in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_tiny_recipe(model: Path, problems: Path, **changes):
    """The quickest recipe that trains a 4-bit LoRA policy: 2 steps of 2 problems, G = 2."""
    from intuitor_lib import Recipe

    settings = {
        "name": "tiny",
        "model": str(model),
        "dataset": str(problems),
        "prompt_column": "problem",
        "answer_column": "answer",
        "system_prompt": None,
        "answer_extraction": "last_number",
        "dtype": "float32",
        "max_steps": 2,
        "num_generations": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "max_prompt_length": 64,
        "max_completion_length": 6,
        "learning_rate": 1e-3,
        "gradient_checkpointing": False,
        "save_steps": 1,
        "preflight_problems": 0,
    }
    return Recipe(**settings | changes)


@pytest.fixture
def tiny_recipe(tiny_model: Path, sums_file: Path):
    """The recipe of `make_tiny_recipe` on 24 sums."""
    return make_tiny_recipe(tiny_model, sums_file)


@pytest.fixture
def benchmark_files(tmp_path):
    """A folder of benchmark files, each in its hub's columns, with rows of our own."""
    write(tmp_path / "gsm8k_test.jsonl", [{"question": "1 + 1?", "answer": "Two.\n#### 2"}] * 3)
    problem = {"problem": "What is $1+2$?", "answer": "3", "unique_id": "test/1.json"}
    write(tmp_path / "math500.jsonl", [problem])
    write(tmp_path / "cruxeval.jsonl", [CRUX])
    write(tmp_path / "mmlu_pro_test.jsonl", [{**MMLU, "question": "Which is odd?", "answer": "A"}])
    write(tmp_path / "mmlu_pro_validation.jsonl", [MMLU] * 7)
    (tmp_path / "alpaca_eval.json").write_text(json.dumps(ALPACA), encoding="utf-8")
    write(tmp_path / "livecodebench" / "test.jsonl", [LCB, METHOD])
    for i in range(2, 7):
        rows = [{**LCB, "question_id": f"later_{i}"}]
        write(tmp_path / "livecodebench" / f"test{i}.jsonl", rows)
    return tmp_path


@pytest.fixture
def shown(monkeypatch):
    """What calls of the lab display from now on: HTML, and the widget it stands in for, if any."""
    from intuitor_lib.lab import display

    found = []
    monkeypatch.setattr(
        display, "show", lambda parts, widget=None: found.append((display.join(parts), widget))
    )
    return found
