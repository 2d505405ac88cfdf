"""Files are whole or not there, whatever happens while they are written."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from damage import DAMAGE, flip

from intuitor_lib.store.files import (
    SUMS,
    append_rows,
    digest,
    faults,
    read_rows,
    read_sums,
    record_checksums,
    write_text,
)
from intuitor_lib.store.runs import Run


def test_writing_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "status.json"
    write_text(path, "old")

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["status.json"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_mode_that_the_umask_asks_for(tmp_path, umask, mode):
    from safetensors.numpy import save_file

    before = os.umask(umask)
    try:
        write_text(tmp_path / "new" / "text.json", "{}")
        run = Run(tmp_path / "run")
        run.path.mkdir()
        tensors = {"w": np.zeros(2, np.float32)}
        run.save_folder("adapter", lambda folder: save_file(tensors, folder / "w.safetensors"))
    finally:
        os.umask(before)
    for path in (tmp_path / "new" / "text.json", run.adapter / "w.safetensors"):
        assert oct(path.stat().st_mode & 0o777) == oct(mode)


def test_a_torn_last_line_is_left_out_and_a_torn_middle_one_is_told(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2', encoding="utf-8")
    assert read_rows(path) == [{"a": 1}]
    path.write_text('{"a": 1\n{"a": 2}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1"):
        read_rows(path)


def test_a_line_torn_inside_a_letter_is_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    whole = '{"a": "é"}\n'.encode()
    path.write_bytes(whole + whole[:8])  # ends with the first byte of the letter
    assert read_rows(path) == [{"a": "é"}]


def test_a_whole_line_without_its_end_is_torn_too(tmp_path):
    """Of `{"a": 12}` cut to `{"a": 1}` nobody could tell."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}', encoding="utf-8")
    assert read_rows(path) == [{"a": 1}]


def test_appending_heals_a_torn_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2', encoding="utf-8")
    append_rows(path, [{"a": 3}, {"a": "é"}])
    assert path.read_text(encoding="utf-8") == '{"a": 1}\n{"a": 3}\n{"a": "é"}\n'
    path.write_text('{"a": 1', encoding="utf-8")
    append_rows(path, [{"a": 4}])
    assert read_rows(path) == [{"a": 4}]


def test_appending_finds_the_last_line_of_a_large_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": "' + "x" * 3_000_000, encoding="utf-8")
    append_rows(path, [{"b": 1}])
    assert read_rows(path) == [{"a": 1}, {"b": 1}]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the limit is POSIX's")
def test_a_disk_that_fills_while_appending_keeps_what_was_there(tmp_path):
    """A limit on the size of files fails in the middle of a write, as a full disk does."""
    path = tmp_path / "rows.jsonl"
    code = (
        "import resource, signal, sys; from pathlib import Path;"
        "from intuitor_lib.store.files import append_rows;"
        "path = Path(sys.argv[1]); append_rows(path, [{'a': 1}]);"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50));"
        "append_rows(path, [{'a': 'x' * 200}])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "File too large" in done.stderr
    assert path.read_text() == '{"a": 1}\n'


def test_what_json_does_not_have_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        append_rows(tmp_path / "rows.jsonl", [{"a": 1}, {"a": float("nan")}])
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.fixture
def recorded(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.json").write_text(json.dumps([1, 2, 3]))
    (tmp_path / "deep" / "b.bin").write_bytes(bytes(range(256)))
    (tmp_path / ".scratch").write_text("not counted")
    record_checksums(tmp_path)
    return tmp_path


def test_undamaged_files_have_no_faults(recorded):
    assert faults(recorded) == {}
    assert set(read_sums(recorded)) == {"a.json", "deep/b.bin"}
    # The format is coreutils'.
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=recorded, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["a.json", "deep/b.bin"])
def test_every_damage_is_found_and_named(recorded, damage, name):
    DAMAGE[damage](recorded / name)
    found = faults(recorded)
    assert list(found) == [name]
    assert found[name].startswith(damage if damage != "cut" else "changed")
    assert faults(recorded, ["a.json", "deep/b.bin"]) == found
    assert faults(recorded, [n for n in ("a.json", "deep/b.bin") if n != name]) == {}


@pytest.mark.parametrize("damage", ["empty", "cut"])
def test_damaged_checksums_are_named(recorded, damage):
    DAMAGE[damage](recorded / SUMS)
    assert list(faults(recorded)) == [SUMS]


def test_a_flipped_checksum_is_found(recorded):
    flip(recorded / SUMS)
    assert faults(recorded)


def test_recording_more_keeps_what_was_recorded(recorded):
    (recorded / "c.json").write_text("{}")
    before = read_sums(recorded)
    record_checksums(recorded, ["c.json"])
    assert read_sums(recorded) == {**before, "c.json": digest(recorded / "c.json")}
