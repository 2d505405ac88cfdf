"""What comes from elsewhere runs no code and shows no markup; no secret is written down."""

import contextlib
import json
import pickle
import re
import shutil
from pathlib import Path

import pytest

import intuitor_lib
from intuitor_lib.policy.loading import load_policy
from intuitor_lib.recipe.constants import InputError, RecipeError
from intuitor_lib.report.tables import Table
from intuitor_lib.store.checkpoints import newest_checkpoint
from intuitor_lib.store.files import record_checksums, redact
from intuitor_lib.store.run_store import RunStore
from intuitor_lib.training.trainer import IntuitorTrainer
from intuitor_lib.training.training import train


class Trap:
    """Leaves a file when it is unpickled by something that runs code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_runs_no_code(name, tiny_recipe, tmp_path, monkeypatch):
    original = IntuitorTrainer.training_step

    def step(self, *args, **kwargs):
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(IntuitorTrainer, "training_step", step)
    recipe = tiny_recipe.replace(max_steps=3)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, runs=tmp_path)
    monkeypatch.undo()
    (run,) = RunStore(tmp_path)
    checkpoint = newest_checkpoint(run.path, pytest.fail)
    (checkpoint / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    record_checksums(checkpoint)  # as somebody would who knows of the checksums
    with pytest.raises(pickle.UnpicklingError):
        train(recipe, runs=tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_a_model_s_own_code_is_not_run_unless_asked_for(tiny_recipe, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "odd", "auto_map": {"AutoConfig": "odd.Odd"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "odd.py").write_text(
        "from pathlib import Path\nfrom transformers import PretrainedConfig\n"
        f"Path({str(tmp_path / 'sprung')!r}).touch()\n"
        "class Odd(PretrainedConfig):\n    model_type = 'odd'\n"
    )
    with pytest.raises(InputError, match="trust_remote_code=true if you trust it"):
        load_policy(tiny_recipe.replace(model=str(folder)))
    assert not (tmp_path / "sprung").exists()
    with pytest.raises((InputError, ValueError)):  # its code is run, and defines no model
        load_policy(tiny_recipe.replace(model=str(folder), trust_remote_code=True))
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("file", "added"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "odd.Odd"}}),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "Odd", "auto_map": {"AutoTokenizer": ["odd.Odd", None]}},
        ),
    ],
)
def test_nor_where_transformers_knows_the_architecture(
    file, added, tiny_recipe, tiny_model, tmp_path
):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    settings = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**settings, **added}))
    (folder / "odd.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'sprung')!r}).touch()\nclass Odd: pass\n"
    )
    recipe = tiny_recipe.replace(model=str(folder))
    with contextlib.suppress(InputError, ValueError):
        load_policy(recipe)
    assert not (tmp_path / "sprung").exists()
    with contextlib.suppress(Exception):  # its code is run, and defines nothing of use
        load_policy(recipe.replace(trust_remote_code=True))
    assert (tmp_path / "sprung").exists()


def test_nothing_of_ours_unpickles():
    """The one unpickler there is reads text alone (`livecodebench`)."""
    forbidden = re.compile(r"torch\.load\(|pickle\.loads?\(|joblib|allow_pickle=True|yaml\.load\(")
    for path in Path(intuitor_lib.__file__).parent.rglob("*.py"):
        found = forbidden.findall(path.read_text(encoding="utf-8"))
        assert not found, f"{path.name}: {found}"


def test_text_is_escaped_in_html():
    bad = "<script>alert(1)</script>"
    shown = Table([bad], [[bad]], bad)._repr_html_()
    assert "<script>" not in shown
    assert shown.count("&lt;script&gt;") == 3


def test_secrets_are_left_out(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    for name in ("KAGGLE_KEY", "DB_PASSWD", "AWS_ACCESS_KEY_ID", "GITHUB_PAT", "MYAPIKEY"):
        monkeypatch.setenv(name, f"the value of {name}")
        assert redact(f"asked with the value of {name}.") == f"asked with <{name}>."
    monkeypatch.setenv("MONKEYS", "the monkeys")
    monkeypatch.setenv("MY_PATHS", "some/paths")
    assert redact("the monkeys in some/paths") == "the monkeys in some/paths"
    monkeypatch.setenv("MAX_TOKENS", "32")  # no secret, and part of many a text
    text = "asked with hf_abcdefghijklmnop and sk-0123456789 for 32 tokens"
    assert redact(text) == "asked with <HF_TOKEN> and <OPENAI_API_KEY> for 32 tokens"


@pytest.mark.slow
def test_no_secret_lands_in_a_run(tiny_recipe, tmp_path, monkeypatch):
    secret = "hf_abcdefghijklmnop"
    monkeypatch.setenv("HF_TOKEN", secret)

    def fail(recipe):
        raise RuntimeError(f"401 for https://hub/?token={secret}")

    monkeypatch.setattr("intuitor_lib.training.training.load_policy", fail)
    with pytest.raises(RuntimeError):
        train(tiny_recipe, runs=tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"401 for" in path.read_bytes() for path in files)
    assert not any(secret.encode() in path.read_bytes() for path in files)


def test_a_server_s_password_is_not_taken(tiny_recipe):
    with pytest.raises(RecipeError, match="user or password"):
        tiny_recipe.replace(vllm_server_base_url="http://me:pass@host:8000")
