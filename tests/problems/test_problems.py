import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from intuitor_lib.problems.problems import (
    DEFAULT_GENERATED,
    HASH_ORDERED,
    DataError,
    Problem,
    Problems,
    gold_answer,
    load_problems,
)
from intuitor_lib.problems.prompts import to_dataset
from intuitor_lib.recipe.recipe import Recipe

REAL = Path(__file__).parents[3] / "shared" / "data"
ONE_DIGIT = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}


def sums(**changes):
    """A recipe on two-term sums of single digits, of which there are 10 x 10 x 2."""
    settings = {"dataset": "reasoning-gym:chain_sum", "dataset_kwargs": ONE_DIGIT}
    return Recipe(**(settings | changes))


def from_file(path, **changes):
    return Recipe(**({"dataset": str(path), "prompt_column": "q", "answer_column": "a"} | changes))


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def message_of(recipe):
    with pytest.raises(DataError) as caught:
        load_problems(recipe)
    return str(caught.value)


@pytest.fixture
def many(tmp_path):
    return write_lines(tmp_path / "many.jsonl", *({"q": f"q{i}", "a": i} for i in range(50)))


@pytest.fixture
def real_file():
    def path_of(name):
        if not (REAL / name).is_file():
            pytest.skip(f"{name} is not beside this checkout")
        return REAL / name

    return path_of


# Procedural generators


def test_generator_problems_are_distinct_disjoint_and_right():
    problems = load_problems(sums(max_problems=128, eval_problems=64))
    rows = problems.train + problems.held_out
    assert (len(problems.train), len(problems.held_out)) == (128, 64)
    assert len({p.prompt for p in rows}) == 192
    assert problems.duplicates_dropped > 0
    assert {p.source for p in rows} == {"reasoning-gym:chain_sum"}
    for problem in rows:
        expression = problem.prompt.removesuffix(" =").rsplit(": ", 1)[1]
        assert problem.answer == str(eval(expression))


def test_generator_finds_every_distinct_problem():
    problems = load_problems(sums(eval_problems=64))
    asked = {p.prompt.rsplit(": ", 1)[1] for p in problems.train + problems.held_out}
    assert asked == {f"{a} {sign} {b} =" for a in range(10) for b in range(10) for sign in "+-"}
    assert len(problems.train) == 136


def test_generator_without_a_limit_makes_the_documented_number():
    problems = load_problems(sums(dataset_kwargs=ONE_DIGIT | {"max_digits": 6}))
    assert len(problems.train) == DEFAULT_GENERATED


def test_generator_with_too_few_problems_says_how_many():
    message = message_of(sums(max_problems=150, eval_problems=64))
    assert "only 200 distinct" in message
    assert "max_problems=150 + eval_problems=64 need 214" in message
    assert "widen dataset_kwargs" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dataset": "reasoning-gym:chain_sums"}, "did you mean chain_sum"),
        ({"dataset": "reasoning-gym:zzzzzzzz"}, "known: "),
        ({"dataset_kwargs": {"min_terms": 0}}, "min_terms must be positive"),
        ({"dataset_kwargs": {"min_termz": 1}}, "unexpected keyword argument 'min_termz'"),
        (
            {"dataset_kwargs": {"min_terms": "two"}},
            "Its settings are allow_negation, max_digits, max_terms, min_digits, min_terms",
        ),
        ({"dataset_kwargs": {"seed": 3}}, "dataset_kwargs['seed']=3: set dataset_seed instead"),
        ({"dataset_kwargs": {"size": 9}}, "dataset_kwargs['size']=9: set max_problems instead"),
    ],
)
def test_generator_faults(changes, expected):
    assert expected in message_of(sums(**changes))


def test_dataset_seeds_share_no_more_than_chance():
    kwargs = ONE_DIGIT | {"max_digits": 6}
    first, second = (
        {p.prompt for p in load_problems(sums(dataset_seed=seed, dataset_kwargs=kwargs)).train}
        for seed in (0, 1)
    )
    # One item in six is a single-digit sum, of which there are 200 in all.
    assert len(first & second) < 0.25 * len(first)


def test_families_in_hash_order_are_refused(monkeypatch):
    family = sorted(HASH_ORDERED)[-2]
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    assert "set PYTHONHASHSEED=0" in message_of(sums(dataset=f"reasoning-gym:{family}"))
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    recipe = sums(dataset=f"reasoning-gym:{family}", dataset_kwargs={}, max_problems=3)
    assert len(load_problems(recipe).train) == 3


def test_families_drawing_from_the_global_generators_repeat_and_leave_them_alone():
    recipe = sums(dataset="reasoning-gym:list_functions", dataset_kwargs={}, max_problems=200)
    random.seed(1)
    first, after = load_problems(recipe), random.random()
    random.seed(2)
    assert load_problems(recipe).fingerprint == first.fingerprint
    random.seed(1)
    assert random.random() == after


# The same recipe, the same problems


def test_another_process_loads_the_same_problems(many):
    recipes = [
        sums(max_problems=100, eval_problems=20),
        sums(max_problems=30, dataset="reasoning-gym:gsm_symbolic", dataset_kwargs={}),
        from_file(many, eval_problems=10, max_problems=20),
    ]
    program = (
        "import json, sys\n"
        "from intuitor_lib.problems.problems import load_problems\n"
        "from intuitor_lib.recipe.recipe import Recipe\n"
        "recipes = json.load(sys.stdin)\n"
        "print([load_problems(Recipe.from_dict(r)).fingerprint for r in recipes])\n"
        "assert 'torch' not in sys.modules\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([recipe.to_dict() for recipe in recipes]),
        env=os.environ | {"PYTHONHASHSEED": "12345"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    here = [load_problems(recipe).fingerprint for recipe in recipes]
    assert other.stdout.strip() == str(here)
    assert len(set(here)) == 3


def test_dataset_seed_chooses_the_held_out_problems(many):
    chosen = [load_problems(from_file(many, eval_problems=10, dataset_seed=s)) for s in (0, 1, 0)]
    assert chosen[0] == chosen[2]
    assert set(chosen[0].held_out) != set(chosen[1].held_out)
    for problems in chosen:
        assert len(problems.held_out) == 10
        assert not {p.prompt for p in problems.train} & {p.prompt for p in problems.held_out}
        assert len(problems.train) == 40


def test_max_problems_changes_the_training_problems_only(many):
    few, more = (load_problems(from_file(many, eval_problems=10, max_problems=n)) for n in (5, 99))
    assert (len(few.train), len(more.train)) == (5, 40)
    assert few.held_out == more.held_out
    assert set(few.train) < set(more.train)


def test_problems_keep_the_order_of_their_source(many):
    problems = load_problems(from_file(many, eval_problems=10))
    for rows in (problems.train, problems.held_out):
        assert [int(p.answer) for p in rows] == sorted(int(p.answer) for p in rows)


@pytest.mark.parametrize("eval_problems", [50, 51])
def test_holding_everything_out_is_refused(many, eval_problems):
    message = message_of(from_file(many, eval_problems=eval_problems))
    assert "many.jsonl has 50 distinct problems" in message
    assert "lower it" in message


def test_fingerprint_depends_on_content_order_and_part():
    a, b = Problem("a", "1", "x", "s"), Problem("b", None, "y", "s")
    prints = {
        Problems("s", (a, b)).fingerprint,
        Problems("s", (b, a)).fingerprint,
        Problems("s", (a,), (b,)).fingerprint,
        Problems("s", (a, Problem("b", "None", "y", "s"))).fingerprint,
    }
    assert len(prints) == 4
    assert all(len(p) == 16 and int(p, 16) >= 0 for p in prints)
    moved = Problem("a", "1", "elsewhere", "other")
    assert Problems("t", (moved, b)).fingerprint == Problems("s", (a, b)).fingerprint


def test_describe_is_json_and_counts(tmp_path):
    rows = ({"q": "a", "a": "1"}, {"q": "b"}, {"q": " a ", "a": "2"}, {"q": "c", "a": ""})
    path = write_lines(tmp_path / "few.jsonl", *rows)
    problems = load_problems(from_file(path))
    assert [(p.prompt, p.answer) for p in problems.train] == [("a", "1"), ("b", None), ("c", None)]
    described = json.loads(json.dumps(problems.describe()))
    assert described == {
        "source": "few.jsonl",
        "train": 3,
        "held_out": 0,
        "without_answer": 2,
        "duplicates_dropped": 1,
        "unusable_dropped": 0,
        "fingerprint": problems.fingerprint,
    }


# Local files

ROWS = [
    {"q": "1 + 1?", "a": "2", "id": "first"},
    {"q": 'quotes ", commas, {braces}\nand two lines ü', "a": "\\boxed{7}", "id": "second"},
    {"q": "no answer", "a": None, "id": "third"},
]


def as_csv(path, rows):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode())


def as_parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS = {
    ".jsonl": lambda path, rows: write_lines(path, *rows),
    ".json": lambda path, rows: path.write_text(json.dumps(rows, indent=1), encoding="utf-8"),
    ".csv": as_csv,
    ".parquet": as_parquet,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_problems(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](path, ROWS)
    problems = load_problems(from_file(path))
    assert problems.train == tuple(
        Problem(row["q"], row["a"], row["id"], f"rows{suffix}") for row in ROWS
    )


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_reports_all_bad_rows(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    prompts = ["good", "", "fine", "  ", "well"]
    WRITERS[suffix](path, [{"q": prompt, "a": "1"} for prompt in prompts])
    message = message_of(from_file(path))
    unit, first = {".jsonl": ("line", 2), ".csv": ("line", 3)}.get(suffix, ("row", 2))
    assert "2 of 5 rows" in message
    assert f"{unit} {first}: 'q' is empty" in message
    assert f"{unit} {first + 2}: 'q' is empty" in message
    assert message.count("\n") == 2


@pytest.mark.parametrize("suffix", WRITERS)
def test_missing_columns_name_those_there_are(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](path, ROWS)
    message = message_of(from_file(path, prompt_column="problem", answer_column="solution"))
    assert "no column 'problem', only q, a, id: set prompt_column" in message
    assert "no column 'solution', only q, a, id: set answer_column" in message
    assert "answer_column=null" in message
    unlabelled = load_problems(from_file(path, answer_column=None))
    assert [p.answer for p in unlabelled.train] == [None] * 3


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{not json", "invalid JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b'{"q": "\xff"}', "invalid UTF-8: invalid start byte at byte 7"),
        (b'{"a": "1"}', "'q' is missing"),
        (b'{"q": null}', "'q' is missing"),
        (b'{"q": ""}', "'q' is empty"),
        (b'{"q": " \\n"}', "'q' is empty"),
        (b'{"q": 5}', "'q' is a int, not text"),
        (b'{"q": ["a"]}', "'q' is a list, not text"),
        (b'{"q": "x", "a": ["1"]}', "'a' is a list, not text"),
        (b'{"q": "\\ud800"}', "holds a lone surrogate"),
        (b"[" * 100_000, "invalid JSON"),
    ],
)
def test_json_line_faults(tmp_path, line, expected):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"q": "one", "a": "1"}\n\n' + line + b'\n{"q": "two", "a": "2"}\n')
    message = message_of(from_file(path))
    assert message.startswith("bad.jsonl: ")
    assert f"line 3: {expected}" in message
    assert "1 of 3 rows" in message


def test_many_faults_are_counted_and_the_first_listed(tmp_path):
    path = write_lines(tmp_path / "bad.jsonl", {"q": "good", "a": 1}, *[{"q": ""}] * 33)
    message = message_of(from_file(path))
    assert "33 of 34 rows" in message
    assert "line 21: " in message
    assert "line 22: " not in message
    assert message.endswith("and 13 more")


def test_bad_lines_are_reported_beside_a_missing_column(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"question": "x", "a": "1"}\nbroken\n')
    message = message_of(from_file(path))
    assert "no column 'q', only question, a" in message
    assert "line 2: invalid JSON: Expecting value at character 0" in message
    assert "line 1" not in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'q,a\nx,1\n"open\nquote,2\n', "line 3: invalid CSV: unexpected end of data"),
        (b"q,a\nx,1\n\xff,2\n", "line 3: invalid UTF-8"),
        (b"q,a\nx,1,2\n", "line 2: 3 cells under 2 columns"),
        (b"q,a\nhe has 3\nin all?,4\n", "line 2: 1 cells under 2 columns"),
        (b'q,a\n"two\nlines",1\n,2\n', "line 4: 'q' is empty"),
        (b"q;a\nx;1\n", "no column 'q', only q;a (save the file with commas between its cells)"),
        (b"q\ta\nx\t1\n", "only 'q\\ta' (save the file with commas"),
        (b"q,a\n", "holds no problems"),
    ],
)
def test_csv_faults(tmp_path, content, expected):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    assert expected in message_of(from_file(path))


TWO = [{"q": "x", "a": "1"}, {"q": "y", "a": "2"}]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(TWO),
        json.dumps(TWO, indent=1),
        json.dumps({"version": "1", "rows": TWO}),
        json.dumps({"version": {"of": 1}, "id": "set", "notes": [], "rows": TWO}, indent=2),
        "\n".join(json.dumps(row, indent=2) for row in TWO),
        "".join(map(json.dumps, TWO)),
    ],
    ids=["array", "array, indented", "wrapped", "wrapped, indented", "objects, indented", "run on"],
)
def test_every_shape_of_json_is_read_by_its_content(tmp_path, suffix, text):
    path = tmp_path / f"rows{suffix}"
    path.write_text(text, encoding="utf-8")
    rows = load_problems(from_file(path)).train
    assert [(p.prompt, p.answer, p.id) for p in rows] == [
        ("x", "1", "rows:1"),
        ("y", "2", "rows:2"),
    ]


def test_an_only_row_that_holds_a_list_is_a_row(tmp_path):
    path = write_lines(tmp_path / "one.jsonl", {"q": "x", "a": "1", "tests": TWO})
    assert [p.prompt for p in load_problems(from_file(path)).train] == ["x"]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "value",
    [
        {"train": TWO, "test": TWO},
        {"questions": ["x", "y"], "answers": ["1", "2"]},
        {"questions": {"0": "x"}, "answers": {"0": "1"}},
        {"q": ["x", "y"], "a": ["1", "2"]},
        {"q": {"0": "x", "1": "y"}, "a": {"0": "1", "1": "2"}},
    ],
)
def test_an_object_that_holds_no_list_of_rows_is_told_once(tmp_path, value, indent):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(value, indent=indent), encoding="utf-8")
    message = message_of(from_file(path))
    assert f"rows.json is one object with the keys {', '.join(value)}" in message
    assert "an array of objects, or one object a line" in message
    assert "\n" not in message


def test_of_repeated_rows_one_with_an_answer_stays(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("q,a\nx,\nx,2\ny,1\ny,\n", encoding="utf-8")
    problems = load_problems(from_file(path))
    assert [(problem.prompt, problem.answer) for problem in problems.train] == [
        ("x", "2"),
        ("y", "1"),
    ]
    assert problems.duplicates_dropped == 2
    assert problems.left_out == ()


@pytest.mark.parametrize("text", ["null", "5", '"x"'])
def test_a_file_of_one_plain_value_is_refused(tmp_path, text):
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    assert "line 1: not a JSON object" in message_of(from_file(path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (r'{"q": "the angle \\beta", "a": "\\frac12"}', None),
        (r'{"q": "the angle \\beta", "a": "\frac12"}', r"line 1: holds '\x0crac'"),
        (r'{"q": "the angle \beta", "a": "2"}', r"line 1: holds '\x08eta'"),
        (r'{"q": "Is 4 even?", "a": "\text{even}"}', r"line 1: holds '\text{'"),
        (r'{"q": "3 \times 4 \neq 5?", "a": "2"}', r"line 1: holds '\times'"),
        (r'{"q": "(1 \right)", "a": "2"}', r"line 1: holds '\right'"),
        (r'{"q": "\theta_1", "a": "2"}', r"line 1: holds '\theta'"),
        (r'{"q": "3\times2", "a": "2"}', r"line 1: holds '\times'"),
        (r'{"q": "\tfrac12", "a": "2"}', r"line 1: holds '\tfrac1"),
        (r'{"q": "x \rightarrow 0", "a": "2"}', r"line 1: holds '\right'"),
        (r'{"q": "In \triangle ABC", "a": "2"}', r"line 1: holds '\triangle'"),
        (r'{"q": "\therefore x", "a": "2"}', r"line 1: holds '\therefore'"),
        (r'{"q": "Is 4 even?", "a": "\textrm{even}"}', r"line 1: holds '\textrm{'"),
        (r'{"q": "\textbf{(A)} 92", "a": "2"}', None),
        (r'{"q": "\nabla_x", "a": "2"}', r"line 1: holds '\nabla'"),
        (r'{"q": "$|0\rangle$", "a": "2"}', r"line 1: holds '\rangle'"),
        (r'{"q": "\rho_0", "a": "2"}', r"line 1: holds '\rho'"),
        (r'{"q": "one page\fand another", "a": "2"}', None),
        (r'{"q": "a\tright\there\tfraction\tfrac_1\textra {x}", "a": "2"}', None),
        (r'{"q": "an\tan\tau\rangle ABC\rright", "a": "2"}', None),
        (r'{"q": "a line\neq1 = 2\nabout it\rhour", "a": "2"}', None),
        (r'{"q": "a text\tin a column\nnext times\r\nright", "a": "2"}', None),
    ],
)
def test_latex_with_a_single_backslash_in_json_is_told(tmp_path, text, says):
    path = tmp_path / "rows.jsonl"
    path.write_text(text, encoding="utf-8")
    if says is None:
        assert load_problems(from_file(path)).train
    else:
        assert says in message_of(from_file(path))


def test_broken_json_over_many_lines_is_one_fault(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"data": TWO}, indent=1)[:-9], encoding="utf-8")
    message = message_of(from_file(path))
    assert message.count("\n") == 1
    assert "give one object a line, or an array of objects" in message


@pytest.mark.parametrize(
    ("suffix", "content"),
    [(".jsonl", '{"q": "x", "q": "y", "a": "1"}\n'), (".json", '[{"q": "x", "a": "1", "q": "y"}]')],
)
def test_a_key_twice_in_an_object_is_told(tmp_path, suffix, content):
    path = tmp_path / f"rows{suffix}"
    path.write_text(content, encoding="utf-8")
    assert "'q' occurs twice" in message_of(from_file(path))


def test_a_column_twice_is_told_if_it_is_used(tmp_path):
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "rows.csv").write_text("q,a,a,b,b\nx,1,2,3,3\n", encoding="utf-8")
    cells = [pyarrow.array([text]) for text in ("x", "1", "2")]
    table = pyarrow.Table.from_arrays(cells, names=["q", "a", "a"])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    for suffix in ("csv", "parquet"):
        path = tmp_path / f"rows.{suffix}"
        assert "2 columns 'a': rename all but one" in message_of(from_file(path))
        if suffix == "csv":
            assert len(load_problems(from_file(path, answer_column=None)).train) == 1


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n", "git lfs pull"),
        (b"/annex/objects/MD5E-s9--4d.csv\n", "git annex get"),
        (b"\n<!DOCTYPE html>\n<html></html>", "is a web page"),
        (gzip.compress(b'{"q": "x"}\n', mtime=0), "is compressed (gzip)"),
        (b"PK\x03\x04\x14\x00xl/workbook.xml", "an Excel workbook"),
    ],
    ids=["lfs", "annex", "page", "gzip", "workbook"],
)
def test_files_without_the_content_of_their_name_are_told(tmp_path, suffix, content, says):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    message = message_of(from_file(path))
    assert message.startswith(f"rows{suffix} is ")
    assert says in message
    assert message.isprintable()


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_files_may_begin_with_a_byte_order_mark(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](path, ROWS)
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert [p.prompt for p in load_problems(from_file(path)).train] == [row["q"] for row in ROWS]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_text_of_several_bytes_a_character_is_told(tmp_path, suffix, encoding):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes("q,a\nx,1\n".encode(encoding))
    message = message_of(from_file(path))
    assert "is in UTF-16 or UTF-32, or is no text: save it as UTF-8" in message
    assert message.isprintable()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize(
    ("text", "encoding", "likely"),
    [
        ("It’s 5 € more than 3 €?", "cp1252", "probably Windows-1252"),
        ("naïve café", "latin-1", "probably Windows-1252"),
        ("小明有三个苹果", "gb18030", "in another encoding"),
        ("みかんが三つ", "euc-jp", "in another encoding"),
    ],
)
def test_other_encodings_are_told_by_line_with_the_remedy(tmp_path, suffix, text, encoding, likely):
    path = tmp_path / f"rows{suffix}"
    if suffix == ".csv":
        content = f"q,a\nplain,2\n{text},8\n"
    else:
        content = f'{{"q": "plain"}}\n\n{{"q": "{text}"}}\n'
    path.write_bytes(content.encode(encoding))
    message = message_of(from_file(path, answer_column=None))
    assert "1 of 2 rows" in message
    assert "line 3: invalid UTF-8" in message
    assert f"({likely}: save the file as UTF-8)" in message


def test_cells_may_be_long(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text(f"q,a,tests\nx,1,{'9' * 200_000}\n{'y' * 150_000},2,z\n", encoding="utf-8")
    limit = csv.field_size_limit()
    problems = load_problems(from_file(path)).train
    assert [(len(p.prompt), p.answer) for p in problems] == [(1, "1"), (150_000, "2")]
    assert csv.field_size_limit() == limit


# Conversations and fields of columns

USER = {"role": "user", "content": "1+1?"}
NESTED = {"q": [USER], "a": {"ground_truth": "2", "style": "rule"}, "more": [{"text": "1+1?"}]}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("column", ["q", "q.0.content", "more.0.text"])
def test_fields_of_columns_are_named_with_dots(tmp_path, suffix, column):
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](path, [NESTED, {"q": [{**USER, "content": "x"}], "a": None, "more": []}][:1])
    recipe = from_file(path, prompt_column=column, answer_column="a.ground_truth")
    (problem,) = load_problems(recipe).train
    assert (problem.prompt, problem.answer) == ("1+1?", "2")


def test_a_column_with_dots_in_its_name_comes_first(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", {"q.x": "1", "q": {"x": "2"}, "a": {"b": 1}})
    recipe = from_file(path, prompt_column="q.x", answer_column="a.b")
    assert [p.prompt for p in load_problems(recipe).train] == ["1"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([USER], "1+1?"),
        (USER, "1+1?"),
        ([{"role": "user", "content": [{"type": "text", "text": "1+1?"}]}], "1+1?"),
        ([{"role": "system", "content": "be brief"}, USER], "1+1?"),
    ],
)
def test_the_only_message_of_a_user_is_the_problem(tmp_path, given, expected):
    path = write_lines(tmp_path / "rows.jsonl", {"q": given, "a": "2"})
    (problem,) = load_problems(from_file(path, system_prompt="be brief")).train
    assert problem.prompt == expected


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([{"role": "system", "content": "be long"}, USER], "is a conversation of system, user"),
        ([USER, {"role": "assistant", "content": "2"}], "is a conversation of user, assistant"),
        ([USER, {"role": "assistant", "content": "2"}, USER], "of user, assistant, user"),
        ([{"role": "assistant", "content": "2"}], "is a conversation of assistant"),
        ([{"from": "human", "value": "1+1?"}], "one of its fields, q.0.from or q.0.value"),
        ({"text": "1+1?"}, "one of its fields, q.text"),
        (["1+1?"], "one of its fields, q.0"),
        ([], "is a list, not text"),
    ],
)
def test_other_conversations_are_told(tmp_path, given, says):
    path = write_lines(tmp_path / "rows.jsonl", {"q": given, "a": "2"})
    assert says in message_of(from_file(path, system_prompt="be brief"))


def test_fields_that_could_be_meant_are_named(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", NESTED)
    assert "one of its fields, a.ground_truth or a.style" in message_of(from_file(path))
    assert "no column 'a.truth'" in message_of(from_file(path, answer_column="a.truth"))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_empty_files_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"empty{suffix}"
    path.write_bytes(content)
    assert "holds no problems" in message_of(from_file(path))


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"text")
    assert "not a readable parquet file" in message_of(from_file(path))


def test_a_parquet_file_with_cells_that_are_no_text_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.array([b"good", b"\xff", b"fine"]).cast(pyarrow.string(), safe=False)
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"q": text, "a": [1.5, 2.0, float("nan")]}), path)
    assert "rows.parquet is not a readable parquet file: 'utf-8'" in message_of(from_file(path))


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".jsonl", '{"q": "a\u2028b", "a": "1"}\r\n\r\n{"q": "c", "a": "2"}'),
        (".csv", 'q,a\r\n"a\u2028b",1\r\n\r\nc,2'),
    ],
)
def test_byte_order_mark_crlf_and_separators_are_read(tmp_path, suffix, content):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    problems = load_problems(from_file(path))
    assert [(p.prompt, p.answer) for p in problems.train] == [("a\u2028b", "1"), ("c", "2")]


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (5, "5"),
        (2.5, "2.5"),
        (5.0, "5.0"),
        (0.00001, "0.00001"),
        (-1.5e-7, "-0.00000015"),
        (1e22, "10000000000000000000000"),
        (123456789012345678901, "123456789012345678901"),
        (True, "True"),
        ("1e-05", "1e-05"),
        ("", None),
        ("  ", None),
        (None, None),
        (float("nan"), None),
    ],
)
@pytest.mark.parametrize("field", ["a", "a.b"])
def test_answers_become_text_or_none(tmp_path, given, answer, field):
    value = {"b": given} if field == "a.b" else given
    rows = ({"q": "x", "a": value}, {"q": "y", "a": {"b": "z"} if field == "a.b" else "z"})
    path = write_lines(tmp_path / "rows.jsonl", *rows)
    assert load_problems(from_file(path, answer_column=field)).train[0].answer == answer


def test_numbers_of_parquet_files_become_the_digits_that_were_written(tmp_path):
    import pyarrow
    import pyarrow.parquet

    values = [0.1, 0.00001, 1e16, 5.0]
    columns = {
        "float64": pyarrow.array(values, pyarrow.float64()),
        "float32": pyarrow.array(values, pyarrow.float32()),
        "float16": pyarrow.array(np.array([0.1, 0.5, 2048, 5], np.float16)),
        "decimal": pyarrow.array([Decimal("0.1"), Decimal("1E-9"), Decimal("1E+9"), Decimal(5)]),
    }
    questions = pyarrow.array([f"q{i}" for i in range(4)])
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"q": questions} | columns), path)
    found = {
        name: [p.answer for p in load_problems(from_file(path, answer_column=name)).train]
        for name in columns
    }
    digits = ["0.1", "0.00001", "10000000000000000", "5.0"]
    assert found["float64"] == found["float32"] == digits
    assert found["float16"] == ["0.1", "0.5", "2048.0", "5.0"]
    assert [Decimal(text) for text in found["decimal"]] == columns["decimal"].to_pylist()
    assert "E" not in "".join(found["decimal"])


@pytest.mark.parametrize("field", ["a.value", "b.0", "b.0.0"])
def test_numbers_in_fields_of_parquet_files_do_too(tmp_path, field):
    import pyarrow
    import pyarrow.parquet

    nested = pyarrow.list_(pyarrow.float32())
    columns = {
        "q": ["x"],
        "a": pyarrow.array([{"value": 0.1}], pyarrow.struct({"value": pyarrow.float32()})),
        "b": pyarrow.array([[0.1]], nested)
        if field == "b.0"
        else pyarrow.array([[[0.1]]], pyarrow.list_(nested)),
    }
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    assert load_problems(from_file(path, answer_column=field)).train[0].answer == "0.1"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": 7}, "7"),
        ({"unique_id": "u"}, "u"),
        ({"task_id": "t"}, "t"),
        ({"id": None, "task_id": "t"}, "t"),
        ({"id": ""}, "rows:2"),
        ({}, "rows:2"),
    ],
)
def test_ids_come_from_the_row_or_its_line(tmp_path, row, expected):
    path = write_lines(tmp_path / "rows.jsonl", {"q": "x", "a": "1"}, {"q": "y"} | row)
    assert [p.id for p in load_problems(from_file(path)).train] == ["rows:1", expected]


def test_an_id_of_several_rows_is_made_one_of_each(tmp_path):
    """A column `id` may hold the kind of the problem; results are grouped by id."""
    rows = [{"q": text, "id": id} for text, id in (("x", "sum"), ("y", "sum"), ("z", "other"))]
    path = write_lines(tmp_path / "rows.jsonl", *rows)
    problems = load_problems(from_file(path, answer_column=None)).train
    assert [p.id for p in problems] == ["sum:1", "sum:2", "other"]


def test_missing_and_unsupported_files_are_named(tmp_path):
    absent = tmp_path / "absent.jsonl"
    assert str(absent) in message_of(from_file(absent))
    assert "No such file" in message_of(from_file(absent))
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    assert "Is a directory" in message_of(from_file(folder))
    notes = tmp_path / "notes.txt"
    notes.write_text("x")
    assert ".jsonl, .json, .csv, .parquet" in message_of(from_file(notes))


def test_a_folder_is_no_data_set_of_the_hub(hub, tmp_path):
    hub({"q": ["1+1="], "a": ["2"]})  # load_dataset reads folders too
    assert "is a folder: name a file that ends in" in message_of(from_file(tmp_path))
    (tmp_path / "b.csv").touch()
    (tmp_path / "a.txt").touch()
    assert f"such as '{tmp_path / 'b.csv'}'" in message_of(from_file(tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 + 2 = <<2+2=4>>4\n#### 4", "4"),
        ("a\n#### 3\nb\n#### 1,234 \n", "1,234"),
        ("#### -7", "-7"),
        ("the answer is \\boxed{18}", "the answer is \\boxed{18}"),
        ("#### Step\nthen \\boxed{1}", "#### Step\nthen \\boxed{1}"),
        ("ends with ####", "ends with ####"),
        ("number #### 5 inline", "number #### 5 inline"),
    ],
)
def test_gold_answer(text, expected):
    assert gold_answer(text) == expected


# The hub, without the network


@pytest.fixture
def hub(monkeypatch):
    import datasets

    calls = []

    def install(result):
        def load_dataset(*args, **kwargs):
            calls.append((args, kwargs))
            if isinstance(result, Exception):
                raise result
            if isinstance(result, datasets.Dataset):
                return result
            return datasets.Dataset.from_dict(result)

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return calls

    return install


def test_hub_rows(hub, monkeypatch):
    import datasets

    calls = hub({"q": ["a", "", None, "b", "a"], "a": ["1", "2", "3", None, "4"], "big": [[0]] * 5})
    recipe = from_file(
        "owner/data", dataset_name="main", dataset_split="test", dataset_revision="v1"
    )
    selected = []
    select_columns = datasets.Dataset.select_columns
    monkeypatch.setattr(
        datasets.Dataset,
        "select_columns",
        lambda table, names: selected.extend(names) or select_columns(table, names),
    )
    problems = load_problems(recipe)
    # The large column is never decoded.
    assert selected == ["q", "a"]
    assert calls == [(("owner/data", "main"), {"split": "test", "revision": "v1"})]
    assert problems.train == (
        Problem("a", "1", "owner/data:1", "owner/data"),
        Problem("b", None, "owner/data:4", "owner/data"),
    )
    assert problems.describe()["unusable_dropped"] == 2
    assert problems.describe()["duplicates_dropped"] == 1
    assert problems.left_out == (
        "2 of 5 rows are unusable; the first: row 2: 'q' is empty",
        "1 of 2 prompts have several answers, of which one counts; the first: "
        "'1' in owner/data:1, '4' in owner/data:5",
    )


def test_class_labels_are_their_names(hub):
    import datasets

    features = {"q": datasets.Value("string"), "a": datasets.ClassLabel(names=["A", "B"])}
    rows = {"q": ["w", "x", "y", "z"], "a": [1, 0, -1, None]}
    hub(datasets.Dataset.from_dict(rows, features=datasets.Features(features)))
    problems = load_problems(from_file("owner/data")).train
    assert [problem.answer for problem in problems] == ["B", "A", None, None]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"q": ["", None], "a": ["1", "2"]}, "row 2: 'q' is missing"),
        ({"x": ["p"], "a": ["1"]}, "no column 'q', only x, a"),
        (ConnectionError("Couldn't reach it"), "Couldn't reach it"),
        (ConnectionError(), "--data FILE"),
        (ValueError("Unknown split"), "'dataset_split': 'train'"),
    ],
)
def test_hub_faults(hub, result, expected):
    hub(result)
    assert expected in message_of(from_file("owner/data"))


# Unit tests of programming problems


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"input": ["1\n"], "output": ["2\n"]}, {"kind": "stdin", "tests": [["1\n", "2\n"]]}),
        ('{"input": ["1"], "output": ["2"]}', {"kind": "stdin", "tests": [["1", "2"]]}),
        ({"kind": "stdin", "tests": []}, {"kind": "stdin", "tests": []}),
        ({"input": [], "output": []}, None),
        (None, None),
        ("", None),
    ],
)
def test_unit_tests_of_a_file(given, kept, tmp_path):
    path = tmp_path / "code.jsonl"
    path.write_text(json.dumps({"problem": "add", "tests": given}) + "\n", encoding="utf-8")
    recipe = from_file(path, prompt_column="problem", answer_column=None, tests_column="tests")
    (problem,) = load_problems(recipe).train
    assert (problem.tests and json.loads(problem.tests)) == kept
    if kept is not None:
        assert "tests" in to_dataset([problem], recipe).column_names


@pytest.mark.parametrize(
    "given", ["not json", ["1"], {"output": []}, {"input": ["1"], "output": []}]
)
def test_what_is_no_unit_test_is_told_by_line(given, tmp_path):
    path = tmp_path / "code.jsonl"
    path.write_text(json.dumps({"problem": "add", "tests": given}) + "\n", encoding="utf-8")
    recipe = from_file(path, prompt_column="problem", answer_column=None, tests_column="tests")
    with pytest.raises(DataError, match=r"line 1: 'tests' holds no unit tests"):
        load_problems(recipe)


# Real files


def test_math_train(real_file):
    path = real_file("math_train.jsonl")
    recipe = from_file(
        path, prompt_column="problem", answer_column="answer", eval_problems=100, dataset_seed=3
    )
    problems = load_problems(recipe)
    raw = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    distinct = {row["problem"].strip() for row in raw}
    assert problems.describe()["train"] == len(distinct) - 100
    assert problems.duplicates_dropped == len(raw) - len(distinct)
    expected = {row["problem"]: row.get("answer") or None for row in reversed(raw)}
    rows = problems.train + problems.held_out
    assert all(p.answer == expected[p.prompt] for p in rows)
    assert problems.describe()["without_answer"] == sum(a is None for a in expected.values()) == 2


def test_gsm8k_answers_are_the_final_numbers(real_file):
    path = real_file("gsm8k_test.jsonl")
    recipe = from_file(path, prompt_column="question", answer_column="answer")
    lines = path.read_text(encoding="utf-8").split("\n")
    answers = [json.loads(line)["answer"].rpartition("#### ")[2] for line in lines if line]
    assert [p.answer for p in load_problems(recipe).train] == answers
    assert len(answers) == 1319
    assert answers[0] == "18"


def test_math500_ids_and_solutions_stay_as_given(real_file):
    recipe = from_file(
        real_file("math500.jsonl"), prompt_column="problem", answer_column="solution"
    )
    problems = load_problems(recipe)
    assert len(problems.train) == 500
    assert all("\\boxed" in p.answer for p in problems.train)
    assert problems.train[0].id.startswith("test/")


def products(**settings):
    return Recipe(dataset="embedded:products", **settings)


def test_products_are_all_there_and_none_can_be_read_off_its_question():
    recipe = products(dataset_kwargs={"digits": [2, 1]}, eval_problems=200)
    problems = load_problems(recipe)
    both = [*problems.train, *problems.held_out]
    assert (len(problems.train), len(problems.held_out)) == (512, 200)
    factors = {tuple(map(int, problem.id.split("x"))) for problem in both}
    assert factors == {(a, b) for a in range(11, 100) for b in range(2, 10)}
    for problem in both:
        a, b = map(int, problem.id.split("x"))
        assert problem.prompt == f"What is {a} * {b}?"
        assert problem.answer == str(a * b)
        assert problem.answer not in {str(a), str(b)}
    assert load_problems(recipe).fingerprint == problems.fingerprint


def test_of_two_products_in_the_other_order_one_is_there():
    problems = load_problems(products(dataset_kwargs={"digits": [2, 2]})).train
    pairs = [frozenset(problem.id.split("x")) for problem in problems]
    assert len(pairs) == len(set(pairs)) == 89 * 90 // 2


@pytest.mark.parametrize(
    "kwargs", [{}, {"digits": 2}, {"digits": [2]}, {"digits": [0, 1]}, {"digits": [2, 1], "n": 3}]
)
def test_products_with_other_settings_are_refused(kwargs):
    with pytest.raises(DataError, match=r"give the digits of both numbers.*\[2, 1\]"):
        load_problems(products(dataset_kwargs=kwargs))
