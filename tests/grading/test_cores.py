"""How many cores a process may use."""

import os

import pytest

from intuitor_lib.grading import cores as module
from intuitor_lib.grading.cores import cores


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 1),
        ("50000 100000\n", 1),
        ("900000 100000\n", 6),
        ("max 100000\n", 6),
        (None, 6),
    ],
)
def test_the_cores_are_those_of_the_process_and_of_its_container(
    quota, expected, tmp_path, monkeypatch
):
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    monkeypatch.setattr(module, "_QUOTA", file)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(6), raising=False)
    assert cores() == expected
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores() == expected
