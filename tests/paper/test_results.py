"""Results on record: found again by name and key, stored as readable JSON."""

import json
from dataclasses import asdict

import pytest

from intuitor_lib.paper import results
from intuitor_lib.paper.plan import SUITES
from intuitor_lib.paper.results import result


def test_a_result_of_another_question_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "data_folder", lambda: None)
    ask = {"profile": "smoke", "runs": tmp_path}
    assert result("a/b", lambda: {"x": 1}, key={"n": 1}, **ask) == {"x": 1}
    assert result("a/b", lambda: {"x": 2}, key={"n": 1}, **ask) == {"x": 1}
    assert result("a/b", lambda: {"x": 3}, key={"n": 2}, **ask) == {"x": 3}
    with pytest.raises(ValueError, match="not JSON compliant"):
        result("c", lambda: {"x": float("nan")}, **ask)
    assert not (tmp_path / "results" / "smoke" / "c.json").exists()


def test_the_text_of_a_result_is_its_json():
    rows = [{"id": "a", "sample": 0, "correct": True}, {"id": "b", "self_certainty": 1.23456789}]
    value = {"key": asdict(SUITES["cpu"]["plain"]), "result": {"rows": rows, "n": [1, 2], "x": {}}}
    assert json.loads(results._dump(value)) == value
