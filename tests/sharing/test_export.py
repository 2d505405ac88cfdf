"""Exports: what a stranger loads is the trained policy, and nothing of this machine is in it."""

import errno
import json
import shutil
import socket
import types

import huggingface_hub
import pytest
import torch
from damage import flip
from toys import toy

from intuitor_lib.cli.script import main
from intuitor_lib.evaluation import evaluate
from intuitor_lib.policy.loading import load_run
from intuitor_lib.recipe import QWEN_CODER, SMOLLM2, InputError
from intuitor_lib.sharing import base, export, export_run, loading_lines, merging
from intuitor_lib.store import Run, RunStore
from intuitor_lib.store.files import read_json
from intuitor_lib.training.training import train

FULL = {"use_lora": False, "quantization": "none"}
QUESTIONS = ["1+2=", "5+3=", "0+0="]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`trained(recipe)`: a run of it, trained once."""
    folder, made = tmp_path_factory.mktemp("trained"), {}

    def make(recipe):
        if recipe.digest not in made:
            made[recipe.digest] = train(recipe, runs=folder)
        return made[recipe.digest]

    return make


@pytest.fixture
def run(trained, tiny_recipe):
    """One whose adapter has moved far."""
    return trained(tiny_recipe.replace(learning_rate=3e-2, max_steps=3))


def answers(model, tokenizer):
    """Greedy completions by plain transformers, computed in fp32."""
    texts, model = [], model.eval()
    if model.dtype != torch.float32:
        model = model.float()
    for question in QUESTIONS:
        chat = [{"role": "user", "content": question}]
        given = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        encoded = tokenizer.apply_chat_template(chat, **given)
        with torch.no_grad():
            made = model.generate(**encoded, max_new_tokens=6, do_sample=False)
        texts.append(made[0, encoded["input_ids"].shape[1] :].tolist())
    return texts


def loaded(lines):
    """The model and the tokenizer that lines of a card load."""
    space = {}
    exec(lines, space)
    return space["model"], space["tokenizer"]


def texts_of(folder):
    return {p.name: p.read_text() for p in folder.iterdir() if p.suffix != ".safetensors"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("merged", [False, True])
def test_the_printed_lines_load_the_trained_policy(merged, run, tmp_path, capsys):
    options = ["--runs", str(run.path.parent)] + ["--merged"] * merged
    assert main(["export", run.id, str(tmp_path / "new" / "mine"), *options]) == 0
    lines, folder = capsys.readouterr().out.strip().rsplit("\n\n", 1)
    assert len(lines.splitlines()) == 3
    assert folder == str(tmp_path / "new" / "mine")
    policy = load_run(run, frozen=True)
    with policy.model.disable_adapter():
        before = answers(policy.model, policy.tokenizer)
    expected = answers(policy.model, policy.tokenizer)
    assert expected != before
    model, tokenizer = loaded(lines)
    assert model.dtype == (torch.bfloat16 if merged else torch.float32)
    assert answers(model, tokenizer) == expected
    # Whole or not at all: nothing is left beside it, and its modes are the umask's.
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine"]
    assert len({path.stat().st_mode for path in (tmp_path / "new" / "mine").iterdir()}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("merged", [False, True])
def test_nothing_of_the_machine_is_in_it(merged, run, tiny_model, tmp_path):
    folder = export_run(run, tmp_path / "mine", merged=merged)
    secrets = (str(tiny_model.parent), str(run.path.parent), str(tmp_path), socket.gethostname())
    secrets = (*secrets, run.recipe.dataset, "local_files_only")
    for name, text in texts_of(folder).items():
        assert not [secret for secret in secrets if secret in text], name
    assert tiny_model.name in (folder / "README.md").read_text()


@pytest.mark.slow
def test_the_card_tells_what_was_trained_and_measured(run, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(run.path, runs / run.id)
    run = Run(runs / run.id)
    bare = (export_run(run, tmp_path / "bare") / "README.md").read_text()
    assert "Neither this policy nor its base has been evaluated" in bare
    assert "It was tested on nothing" in bare
    for policy in (run, run.recipe):
        evaluate(policy, toy(), n=7, runs=runs)
    evaluate(run.recipe.model, toy(n=5), runs=runs)  # not quantized: another policy
    card = (export_run(run, tmp_path / "mine") / "README.md").read_text()
    rows = [line for line in card.splitlines() if line.startswith("| toy sums |")]
    assert len(rows) == 2
    assert f"| {run.id} | 7 | greedy" in rows[1]
    assert all(" [" in row for row in rows)  # intervals
    for part in (
        "The\nreward was the policy's own self-certainty alone; no answer was checked",
        "| `learning_rate` | step size of AdamW | 0.03 | 3e-05 |",
        '| `dataset` | source of the problems | "sums.jsonl" |',
        f"`{run.problems['fingerprint']}`",
        "24 training problems, 0 held out",
        "| self-certainty | accuracy | length | KL |",
        "raised no alarm",
        f"torch {run.environment['packages']['torch']}",
        "CPU, computing in\nfloat32",
        "It was tested on what stands above and on nothing else",
        "one training with one seed (7)",
        "See the base model.",
        "eprint        = {2505.19590}",
    ):
        assert part in card, part
    assert "`save_steps`" in card
    assert "`beta`" not in card  # at its default


@pytest.mark.slow
def test_unusable_rows_are_told(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "problems", run.problems | {"unusable_dropped": 2})
    card = (export_run(run, tmp_path / "mine") / "README.md").read_text()
    assert "0 duplicates left out, 2 unusable rows left out.\n" in card


@pytest.mark.slow
def test_alarms_are_told(run, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(run.path, runs / run.id)
    run = Run(runs / run.id)
    rows = [row | {"collapse": ["kl"]} for row in run.metrics[1:]]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.finish(collapse=["kl: x"])
    card = (export_run(run, tmp_path / "mine") / "README.md").read_text()
    assert "with the step at which each began: kl (2). The training was stopped there." in card


def with_card(tiny_model, folder, licence):
    shutil.copytree(tiny_model, folder)
    (folder / "README.md").write_text(f"---\n{licence}\n---\n# Tiny\n")
    return folder


@pytest.mark.slow
def test_a_named_base_and_its_licence(tiny_recipe, tiny_model, tmp_path):
    model = with_card(tiny_model, tmp_path / "base", "license: cc-by-4.0")
    run = train(tiny_recipe.replace(model=str(model)), runs=tmp_path / "runs")
    folder = export_run(run, tmp_path / "mine", base_model="owner/tiny")
    assert read_json(folder / "adapter_config.json")["base_model_name_or_path"] == "owner/tiny"
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert (card.data.base_model, card.data.license) == ("owner/tiny", "cc-by-4.0")
    assert card.data.base_model_relation == "adapter"
    assert "from_pretrained('owner/tiny', dtype='float32'" in card.text
    assert "The base model's: cc-by-4.0." in card.text
    with pytest.raises(InputError, match="nobody could load its adapter: name the base"):
        export_run(run, tmp_path / "other", push_to="me/it")
    with pytest.raises(InputError, match="is no name on the hub"):
        export_run(run, tmp_path / "other", base_model=str(model))
    (model / "config.json").write_text((model / "config.json").read_text() + "\n")
    with pytest.raises(InputError, match="have been changed since"):
        export_run(run, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (SMOLLM2, "HuggingFaceTB/SmolLM2-135M-Instruct"),
        (QWEN_CODER, "Qwen/Qwen2.5-Coder-0.5B-Instruct"),
    ],
)
def test_an_embedded_model_is_the_one_on_the_hub_in_4_bits(model, name, tiny_recipe, tmp_path):
    recipe = tiny_recipe.replace(model=model)
    run = RunStore(tmp_path).open(recipe, {"fingerprint": "0"})
    found = base.find_base(run)
    assert (found.name, found.on_hub, found.licence) == (name, True, {"license": "apache-2.0"})
    assert len(found.sha256) == 64
    assert f"from_pretrained('{name}', dtype='float32', quant" in loading_lines(run, "mine")
    with pytest.raises(InputError, match="leave base_model out"):
        base.find_base(run, "owner/other")


def test_a_model_of_the_hub_has_the_licence_of_its_card(tiny_recipe, tmp_path, monkeypatch):
    recipe = tiny_recipe.replace(model="owner/model", model_revision="abc", quantization="none")
    run = RunStore(tmp_path).open(recipe, {"fingerprint": "0"})
    assert base.find_base(run).licence == {}  # out of reach
    named = {"license": "other", "license_name": "llama3", "license_link": "https://x.org"}
    card = huggingface_hub.ModelCardData(**named)
    info = types.SimpleNamespace(card_data=card)
    monkeypatch.setattr(huggingface_hub, "model_info", lambda name, **settings: info)
    assert base.find_base(run) == ("owner/model", True, "abc", None, named)
    line = loading_lines(run, "mine").splitlines()[1]
    assert line.endswith("from_pretrained('owner/model', dtype='float32', revision='abc')")


def test_the_base_is_the_commit_that_the_run_loaded(tiny_recipe, tmp_path):
    run = RunStore(tmp_path).open(tiny_recipe.replace(model="owner/model"), {"fingerprint": "0"})
    run.set_environment({"commit": "c0ffee"})
    assert base.find_base(run).revision == "c0ffee"
    assert "revision='c0ffee'" in loading_lines(run, "mine")


def test_the_printed_lines_name_a_folder_in_full(tiny_recipe, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_model.parent))
    recipe = tiny_recipe.replace(model=f"~/{tiny_model.name}")
    run = RunStore(tmp_path).open(recipe, {"fingerprint": "0"})
    assert f"from_pretrained('{tiny_model}', dtype" in loading_lines(run, "mine")


@pytest.mark.slow
@pytest.mark.parametrize("merged", [False, True])
def test_an_export_reads_its_base_at_that_commit(merged, run, tmp_path, monkeypatch):
    run = Run(shutil.copytree(run.path, tmp_path / "runs" / run.id))
    (run.path / "SHA256SUMS").unlink()
    run.set_environment({**run.environment, "commit": "c0ffee"})
    module, name = (merging, "load_config") if merged else (export, "load_tokenizer")
    read, original = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda source: read.append(source) or original(source))
    export_run(run, tmp_path / "mine", merged=merged)
    assert [source.revision for source in read] == ["c0ffee"]


@pytest.mark.slow
def test_weights_of_another_policy_are_not_kept(run, tiny_model, tmp_path, monkeypatch):
    """Merged into the base in full precision, the adapter is another policy."""
    original = merging.merged_weights

    def into_full_precision(model):
        plain = merging.load_model(str(tiny_model), adapter=str(run.adapter), dtype="float32")
        yield from original(plain.model)

    monkeypatch.setattr(merging, "merged_weights", into_full_precision)
    with pytest.raises(RuntimeError, match=r"another policy: .* differs by 0\.\d+ nats"):
        export_run(run, tmp_path / "mine", merged=True)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_change_that_rounding_hides_is_told(trained, tiny_recipe, tmp_path):
    run = trained(tiny_recipe.replace(learning_rate=1e-9, quantization="none"))
    card = (export_run(run, tmp_path / "mine", merged=True) / "README.md").read_text()
    assert "**rounding changes these weights as much as training did" in card


@pytest.mark.slow
def test_a_run_of_all_weights_is_exported_merged(trained, tiny_recipe, tmp_path):
    run = trained(tiny_recipe.replace(**FULL))
    with pytest.raises(InputError, match="trained all weights, so it has no adapter"):
        export_run(run, tmp_path / "mine")
    folder = export_run(run, tmp_path / "mine", merged=True)
    model, tokenizer = loaded(loading_lines(run, str(folder), merged=True))
    assert answers(model, tokenizer) == answers(*load_run(run, frozen=True))
    assert "The adapter is merged" not in (folder / "README.md").read_text()


@pytest.mark.slow
def test_what_cannot_be_exported_is_told_and_leaves_nothing(run, tmp_path, monkeypatch, capsys):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="is there and not empty"):
        export_run(run, full)
    with pytest.raises(InputError, match="is there and not empty"):
        export_run(run, full / "mine.txt")

    runs = tmp_path / "runs"
    copy = Run(shutil.copytree(run.path, runs / run.id))
    flip(copy.adapter / "adapter_model.safetensors")
    assert main(["export", run.id, str(tmp_path / "mine"), "--runs", str(runs)]) == 2
    assert "is damaged" in capsys.readouterr().err
    (copy.path / "SHA256SUMS").unlink()
    copy.set_status("interrupted")
    assert main(["export", run.id, str(tmp_path / "mine"), "--runs", str(runs)]) == 2
    assert "is interrupted, not finished" in capsys.readouterr().err

    with monkeypatch.context() as patched:
        little = types.SimpleNamespace(free=10)
        patched.setattr(export.shutil, "disk_usage", lambda folder: little)
        with pytest.raises(OSError, match="MiB are free") as caught:
            export_run(run, tmp_path / "mine")
        assert caught.value.errno == errno.ENOSPC

    def no_space(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "write_card", no_space)
    for merged in (False, True):
        with pytest.raises(OSError, match="No space left"):
            export_run(run, tmp_path / "mine", merged=merged)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "runs"]
