"""How much memory a process can still use."""

import types

from intuitor_lib.policy import free_memory
from intuitor_lib.policy.linear import has_room_unpacked


def test_memory_that_is_available(tmp_path):
    assert 0 < free_memory.free_ram_bytes() < 2**50
    groups = tmp_path / "cgroup"
    groups.write_text("1:cpu:/x\n0::/a/b\n")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for folder, size in ((inner, "max"), (inner.parent, str(3 * 2**20))):
        (folder / "memory.max").write_text(size)
        (folder / "memory.current").write_text(str(2**20))
        (folder / "memory.stat").write_text("anon 5\ninactive_file 1024\n")
    assert min(free_memory._cgroup_room(groups, tmp_path)) == 2 * 2**20 + 1024
    assert [*free_memory._cgroup_room(tmp_path / "none", tmp_path)] == []


def test_in_a_container_the_limit_is_at_the_top(tmp_path):
    groups = tmp_path / "cgroup"
    groups.write_text("0::/of/the/host\n")
    for name, text in {"max": "5000", "current": "1000", "stat": "inactive_file 10\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert [*free_memory._cgroup_room(groups, tmp_path)] == [4010]


def test_weights_are_unpacked_within_the_limits_of_cgroups(monkeypatch):
    ram = types.SimpleNamespace(available=2**30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: ram)
    monkeypatch.setattr(free_memory, "_cgroup_room", lambda: [4000])
    assert has_room_unpacked(1000)
    assert not has_room_unpacked(1001)
