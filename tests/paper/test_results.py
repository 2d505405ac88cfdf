"""Results on record: found again by name and key, stored small and without loss."""

import dataclasses

import pytest

from intuitor_lib.paper import results
from intuitor_lib.paper.plan import SUITES
from intuitor_lib.paper.results import read_result, result
from intuitor_lib.paper.trials import TrialStore
from intuitor_lib.recipe import InputError
from intuitor_lib.store import FORMAT


@pytest.fixture(autouse=True)
def _nothing_committed(monkeypatch):
    monkeypatch.setattr(results, "data_folder", lambda: None)


def test_a_result_of_another_question_does_not_count(tmp_path):
    ask = {"profile": "smoke", "runs": tmp_path}
    one, two, three = ({"x": x, "rows": [{"id": "a"}]} for x in (1, 2, 3))
    assert result("a/b", lambda: one, key={"n": 1}, **ask) == one
    assert result("a/b", lambda: two, key={"n": 1}, **ask) == one
    assert result("a/b", lambda: three, key={"n": 2}, **ask) == three
    with pytest.raises(ValueError, match="not JSON compliant"):
        result("c", lambda: {**one, "x": float("nan")}, **ask)
    assert not (tmp_path / "results" / "smoke" / "c.parquet").exists()


def test_rows_come_back_as_they_were(tmp_path):
    rows = [
        {"id": "a", "correct": True, "text": "β = 0\n", "tokens": [0.1, 0.2]},
        {"id": "b", "correct": None, "text": None, "tokens": None},
    ]
    made = {"n": [1, 2], "settings": {"x": None}, "rows": rows}
    ask = {"key": ["k"], "profile": "smoke", "runs": tmp_path}
    assert result("a/b", lambda: made, **ask) == made
    assert result("a/b", lambda: None, **ask) == made
    (file,) = tmp_path.rglob("*.parquet")
    assert file.name == "b.parquet"
    assert read_result(file) == made


def test_a_title_is_no_part_of_what_a_result_is_of(tmp_path):
    one, two = ({"rows": [{"x": x}]} for x in (1, 2))
    ask = {"profile": "smoke", "runs": tmp_path}
    result("a", lambda: one, key={"test": {"n": 1, "title": "as it was"}}, **ask)
    assert result("a", lambda: two, key={"test": {"n": 1}}, **ask) == one
    assert result("a", lambda: two, key={"test": {"n": 2}}, **ask) == two
    test = SUITES["smoke"]["in_domain"]
    renamed = dataclasses.replace(test, title="another", column="MATH500")
    store = TrialStore("base", "smoke", 7, False, tmp_path)
    assert store.key(renamed, None) == store.key(test, None)
    assert store.key(dataclasses.replace(test, n=3), None) != store.key(test, None)


def test_a_result_of_a_later_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FORMAT", FORMAT + 1)
    with pytest.raises(InputError, match=rf"later.parquet has format {FORMAT + 1}"):
        result("later", lambda: {"rows": [{"id": "a"}]}, profile="smoke", runs=tmp_path)


def test_completions_take_little_room(tmp_path):
    """Committed results must stay small: 1,600 completions of a test in under 60 kB."""
    rows = [
        {
            "id": f"{i}x7",
            "sample": s,
            "prompt": f"What is {i} * 7? Answer with the number only.",
            "completion": str(i * 7),
            "self_certainty": float(f"{10 + (i * 37 + s) % 101 / 17:.6g}"),
        }
        for i in range(200)
        for s in range(8)
    ]
    result("t", lambda: {"rows": rows}, profile="cpu", runs=tmp_path)
    (file,) = tmp_path.rglob("*.parquet")
    assert file.stat().st_size < 60_000
