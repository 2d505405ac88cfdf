"""One process holds a folder; the others see who, and a dead one keeps nothing."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from intuitor_lib.store.locks import hold, owner

HOLDER = (
    "import sys, time; from pathlib import Path; from intuitor_lib.store.locks import hold\n"
    "with hold(Path(sys.argv[1]), 'working'):\n"
    "    print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def held(tmp_path):
    """A folder that another process holds, and that process."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield tmp_path, process
    process.kill()
    process.wait()
    process.stdout.close()


def test_who_holds_it_is_told(held, capsys):
    folder, process = held
    assert owner(folder).startswith(f"process {process.pid} (since 20")
    waits = []

    def waiting():
        waits.append(1)
        process.kill()

    with hold(folder, "working", waiting):
        assert owner(folder).startswith(f"process {os.getpid()} ")
    assert waits
    assert f"process {process.pid} (since " in capsys.readouterr().err
    assert owner(folder) is None


def test_a_dead_owner_keeps_nothing(held, capsys):
    folder, process = held
    process.kill()
    process.wait()
    assert owner(folder) is None
    began = time.monotonic()
    with hold(folder, "working"):
        assert time.monotonic() - began < 1
        assert owner(folder).startswith(f"process {os.getpid()} ")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("locked_before", [True, False])
def test_a_living_process_with_the_number_of_a_dead_one_holds_nothing(held, locked_before):
    """Numbers are used again: often after a restart of the machine, or in another container."""
    folder, process = held
    note = json.loads((folder / ".owner.json").read_text(encoding="utf-8"))
    process.kill()
    process.wait()
    for pid in (1, os.getpid()):
        (folder / ".owner.json").write_text(json.dumps({**note, "pid": pid}), encoding="utf-8")
        if not locked_before:
            (folder / ".lock").unlink(missing_ok=True)
        assert owner(folder) is None


def test_a_suspended_owner_still_holds_it(held):
    folder, process = held
    process.send_signal(signal.SIGSTOP)
    assert f"process {process.pid} " in owner(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"unknown": 2}'])
def test_an_owner_with_a_damaged_note_still_holds_it(held, text):
    folder, _ = held
    (folder / ".owner.json").write_text(text)
    assert owner(folder) == "another process"


def test_an_owner_on_another_machine_is_told(held):
    folder, _ = held
    note = {"pid": 1, "host": "elsewhere", "since": "2026-01-01T00:00:00+00:00"}
    (folder / ".owner.json").write_text(json.dumps(note))
    assert owner(folder) == "process 1 on elsewhere (since 2026-01-01T00:00:00+00:00)"


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.raises(OSError, match="INTUITOR_RUNS"), hold(tmp_path, "working"):
        pass
