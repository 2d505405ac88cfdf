"""LiveCodeBench's raw files: tests packed as its authors pack them, and what is refused."""

import base64
import json
import os
import pickle
import zlib

import pytest

from intuitor_lib.evaluation.benchmarks import livecodebench
from intuitor_lib.evaluation.benchmarks.livecodebench import read_problems, unpack_tests
from intuitor_lib.problems.tables import DataError

PUBLIC = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
PRIVATE = [{"input": "5 6\n", "output": "11\n", "testtype": "stdin"}]


def packed(value):
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def problem(name, private, **changes):
    return {
        "question_title": "Add",
        "question_content": "Read two numbers and print their sum.",
        "platform": "atcoder",
        "question_id": name,
        "starter_code": "",
        "public_test_cases": json.dumps(PUBLIC),
        "private_test_cases": private,
        "metadata": "{}",
        **changes,
    }


@pytest.fixture
def file(tmp_path):
    rows = [
        problem("plain", json.dumps(PRIVATE)),
        problem("packed", packed(json.dumps(PRIVATE)), question_content="É: add."),
        problem(
            "method",
            packed(json.dumps([{"input": "[1, 2]\n2", "output": "5", "testtype": "functional"}])),
            metadata=json.dumps({"func_name": "addAll"}),
            starter_code="class Solution:\n    def addAll(self, nums, k):\n        ",
        ),
    ]
    path = tmp_path / "test.jsonl"
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def test_tests_are_read_from_their_place_in_the_file(file):
    rows = list(read_problems(file))
    assert [row["question_id"] for row in rows] == ["plain", "packed", "method"]
    assert all("private_test_cases" not in row for row in rows)
    both = [["1 2\n", "3\n"], ["5 6\n", "11\n"]]
    assert livecodebench.unit_tests_of(rows[0]) == {"kind": "stdin", "tests": both}
    assert livecodebench.unit_tests_of(rows[1]) == {"kind": "stdin", "tests": both}
    method = livecodebench.unit_tests_of(rows[2])
    assert method["kind"] == "function"
    assert method["entry_point"] == "Solution.addAll"
    assert method["tests"][-1] == ["[1, 2]\n2", "5"]


class Planted:
    def __reduce__(self):
        return os.system, ("touch planted",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packed(Planted()), "it names posix.system"),
        (packed({"a": print}), "it names builtins.print"),
        (packed(json.dumps([1, 2])), "no list of"),
        (packed(["not", "text"]), "cannot be unpacked"),
        (packed(json.dumps({"input": "x"})), "no list of"),
        (base64.b64encode(zlib.compress(pickle.dumps("[]"))[:-4]).decode(), "cut off"),
        (base64.b64encode(b"no zlib").decode(), "cannot be unpacked"),
        (base64.b64encode(zlib.compress(b"no pickle")).decode(), "cannot be unpacked"),
        ("%%%", "cannot be unpacked"),
        ("[{", "cannot be unpacked"),
        ("", "cannot be unpacked"),
    ],
)
def test_what_is_no_packed_text_is_refused(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        unpack_tests(content)
    assert not (tmp_path / "planted").exists()


def test_a_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(livecodebench, "MAX_UNPACKED", 1000)
    with pytest.raises(DataError, match="over 1000 bytes"):
        unpack_tests(packed("x" * 5000))


@pytest.mark.parametrize("line", ["{", "[]", '{"question_id": "a"}', '{"question_id": 1}'])
def test_a_line_that_is_no_problem_is_told_by_its_number(line, file):
    file.write_text(file.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 4"):
        list(read_problems(file))
