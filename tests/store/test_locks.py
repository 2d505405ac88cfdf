"""One process holds a folder; the others see who, and a dead one keeps nothing."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import pytest

from intuitor_lib.store import locks
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


def at_the_look(monkeypatch, number, act):
    """Call `act` when one who waits looks for the owner for the `number`th time."""
    looks, original = [], locks.owner

    def look(folder):
        looks.append(1)
        if len(looks) == number:
            act()
        return original(folder)

    monkeypatch.setattr(locks, "owner", look)


def test_who_holds_it_is_told(held, capsys, monkeypatch):
    folder, process = held
    holder = owner(folder)
    assert (holder.pid, holder.host) == (process.pid, platform.node())
    at_the_look(monkeypatch, 2, process.kill)
    with hold(folder, "working"):
        assert owner(folder).pid == os.getpid()
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
        assert owner(folder).pid == os.getpid()
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
    assert owner(folder).pid == process.pid


def test_an_owner_without_a_sign_of_life_is_told_once(held, capsys, monkeypatch):
    folder, process = held
    process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(locks, "_SILENT", 0.05)
    monkeypatch.setattr(locks, "_POLL", 0.05)
    at_the_look(monkeypatch, 5, process.kill)
    time.sleep(0.05)
    with hold(folder, "working"):
        pass
    assert capsys.readouterr().err.count("no heartbeat") == 1


def test_heartbeats_come_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_BEAT", 0.02)
    with hold(tmp_path, "working"):
        first = owner(tmp_path).beat
        deadline = time.monotonic() + 20
        while owner(tmp_path).beat == first:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert not [t for t in threading.enumerate() if t.name == "heartbeats"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"unknown": 2}'])
def test_a_damaged_note_of_the_owner_is_none(tmp_path, text):
    (tmp_path / ".owner.json").write_text(text)
    assert owner(tmp_path) is None


def test_an_owner_elsewhere_is_alive_if_heard_of(tmp_path):
    note = {"pid": 1, "host": "elsewhere", "since": "2026-01-01T00:00:00+00:00"}
    (tmp_path / ".owner.json").write_text(json.dumps({**note, "beat": time.time()}))
    assert "on elsewhere" in str(owner(tmp_path))
    (tmp_path / ".owner.json").write_text(json.dumps({**note, "beat": time.time() - 1000}))
    assert owner(tmp_path) is None


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def none(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr("filelock.FileLock.acquire", none)
    with pytest.raises(OSError, match="INTUITOR_RUNS"), hold(tmp_path, "working"):
        pass
