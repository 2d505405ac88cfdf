"""The benchmarks: items and prompts; references graded right, corrupted ones wrong."""

import json
import re
import shutil
from pathlib import Path

import pytest
from benchmark_rows import ALPACA, CRUX, LCB, METHOD, MMLU, write
from grading_check import check_grading

from intuitor_lib.evaluation.benchmarks import questions
from intuitor_lib.evaluation.benchmarks.benchmarks import (
    BENCHMARKS,
    EMBEDDED,
    fingerprint,
    get_benchmark,
    load_items,
)
from intuitor_lib.evaluation.benchmarks.graders import Item
from intuitor_lib.grading.sandbox.confine import protections
from intuitor_lib.paper.numbers import TABLES
from intuitor_lib.problems.humaneval import humaneval_rows
from intuitor_lib.problems.problems import load_problems
from intuitor_lib.problems.tables import DataError
from intuitor_lib.recipe.constants import SYSTEM_PROMPTS, InputError
from intuitor_lib.recipe.recipes import get_recipe

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def folder(benchmark_files):
    return benchmark_files


def test_the_paper_has_its_columns_and_stand_ins_have_their_own_names():
    columns = {b.column: b.name for b in BENCHMARKS.values() if b.column}
    assert set(columns) == set(TABLES["table-1"].columns)
    titles = {b.title for b in BENCHMARKS.values() if b.column}
    for benchmark in BENCHMARKS.values():
        assert benchmark.licence
        if benchmark.stands_in_for:
            assert benchmark.stands_in_for in titles
            assert benchmark.title not in titles
            assert benchmark.name in EMBEDDED
    # Nothing embedded is honest for the others.
    stood_in = {b.stands_in_for for b in BENCHMARKS.values()} - {None}
    assert stood_in == {"GSM8K", "MATH500"}


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in EMBEDDED])
def test_files_of_ones_own_are_read(name, folder):
    items = load_items(get_benchmark(name), folder=folder)
    wanted = {"gsm8k": 3, "livecodebench": 7, "alpaca_eval": 2}.get(name, 1)
    assert len({item.id for item in items}) == len(items) == wanted
    assert all(item.prompt and item.question in item.prompt for item in items)
    json.dumps([item.reference for item in items])


def test_prompts_are_the_papers(folder):
    def ask(name):
        return load_items(get_benchmark(name), folder=folder)[0]

    assert ask("gsm8k").prompt == "1 + 1?"
    assert ask("gsm8k").reference == "2"
    assert get_benchmark("gsm8k").system_prompt == SYSTEM_PROMPTS["math-3b"]
    crux = ask("cruxeval").prompt
    assert CRUX["code"] in crux
    assert "f([2])" in crux
    assert '{"reasoning": "...", "answer": "..."}' in crux
    mmlu = ask("mmlu_pro")
    assert not get_benchmark("mmlu_pro").chat
    assert mmlu.prompt.count("Question: Which number is even?\nOptions:\nA. 1\nB. 2\nC. 3\n") == 5
    assert mmlu.prompt.count("The answer is (B).") == 5
    assert mmlu.prompt.endswith("C. 3\nAnswer: Let's think step by step.")
    assert mmlu.reference == {"answer": "A", "letters": "ABC"}
    stdin, method = load_items(get_benchmark("livecodebench"), folder=folder)[:2]
    assert "reads standard input" in stdin.prompt
    assert METHOD["starter_code"] in method.prompt
    assert "reads standard input" not in method.prompt
    assert [ask("alpaca_eval").prompt, get_benchmark("alpaca_eval").system_prompt] == [
        "Name a colour.",
        None,
    ]


@pytest.mark.skipif(protections().mode == "none", reason="programs cannot be confined here")
def test_livecodebench_is_graded_by_all_its_tests(folder):
    benchmark = get_benchmark("livecodebench")
    stdin, method = load_items(benchmark, folder=folder)[:2]
    total = "```python\nprint(sum(map(int, input().split())))\n```"
    only_public = "```python\nprint(3)\n```"
    method_of = "```python\nclass Solution:\n    def addAll(self, n: List[int], k):\n{}\n```"
    add = method_of.format("        return [i + k for i in n]")
    crash = method_of.format("        return [n[0] + k]")
    verdicts = benchmark.grader.grade(
        [stdin, stdin, method, method, stdin], [total, only_public, add, crash, "I cannot."]
    )
    assert [verdict.correct for verdict in verdicts] == [True, False, True, False, False]
    assert verdicts[1].reason == "test 2 of 2: wrong output"
    assert verdicts[3].reason.startswith("test 2 of 2: error: IndexError")
    assert verdicts[4] == (False, None, "no code")


def test_livecodebench_is_known_by_its_tests_and_not_by_their_place(folder):
    benchmark, own = get_benchmark("livecodebench"), folder / "livecodebench"
    before = fingerprint(load_items(benchmark, folder=folder))
    elsewhere = folder.parent / "elsewhere"
    shutil.copytree(folder, elsewhere)
    moved = load_items(benchmark, folder=elsewhere)
    assert fingerprint(moved) == before
    assert str(elsewhere) in moved[0].place["file"]
    changed = {**METHOD, "private_test_cases": METHOD["private_test_cases"] + " "}
    write(own / "test.jsonl", [LCB, changed])
    assert fingerprint(load_items(benchmark, folder=folder)) != before


def test_rows_may_be_wrapped_in_an_object(folder):
    rows = [{"question": "1 + 1?", "answer": "#### 2"}]
    (folder / "gsm8k_test.jsonl").unlink()
    text = json.dumps({"version": 1, "rows": rows}, indent=1)
    (folder / "gsm8k_test.json").write_text(text)
    (item,) = load_items(get_benchmark("gsm8k"), folder=folder)
    assert (item.question, item.reference) == ("1 + 1?", "2")


def test_rows_that_cannot_be_read_are_told_and_not_left_out(folder):
    (folder / "alpaca_eval.json").write_text(json.dumps([*ALPACA, "no object"]))
    with pytest.raises(DataError, match=r"alpaca_eval.json: 1 faults\n  row 3: not a JSON object"):
        load_items(get_benchmark("alpaca_eval"), folder=folder)


@pytest.mark.parametrize(
    ("file", "row", "message"),
    [
        ("gsm8k_test.jsonl", {"question": "1 + 1?"}, r"gsm8k.*row.*\n.*line 1: no column 'answer'"),
        ("gsm8k_test.jsonl", {"question": "", "answer": "1"}, "'question' is ''"),
        ("cruxeval.jsonl", {**CRUX, "output": "f(1)"}, "malformed"),
        ("mmlu_pro_test.jsonl", {**MMLU, "category": "law"}, "no worked example of category 'law'"),
        ("mmlu_pro_test.jsonl", {**MMLU, "answer": "D"}, "answer 'D' is none of ABC"),
        ("mmlu_pro_test.jsonl", {**MMLU, "options": ["1"]}, "1 options"),
        ("livecodebench/test4.jsonl", {**METHOD, "starter_code": ""}, "has no starter_code"),
    ],
)
def test_rows_that_are_no_items_are_told(file, row, message, folder):
    write(folder / file, [row])
    name = {"g": "gsm8k", "c": "cruxeval", "m": "mmlu_pro", "l": "livecodebench"}[file[0]]
    with pytest.raises(DataError, match=message):
        load_items(get_benchmark(name), folder=folder)


def test_a_broken_line_and_a_missing_file_are_told(folder):
    (folder / "math500.jsonl").write_text('{"problem": \n', encoding="utf-8")
    with pytest.raises(DataError, match="line 1: invalid JSON"):
        load_items(get_benchmark("math500"), folder=folder)
    (folder / "livecodebench" / "test3.jsonl").unlink()
    with pytest.raises(DataError, match=r"lacks test3\.jsonl of livecodebench"):
        load_items(get_benchmark("livecodebench"), folder=folder)


def test_without_hub_and_files_the_way_out_is_named(monkeypatch):
    monkeypatch.delenv("INTUITOR_BENCHMARKS", raising=False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr("datasets.load_dataset", refuse)
    for name in ("alpaca_eval", "gsm8k"):
        with pytest.raises(DataError, match="--benchmarks DIR or INTUITOR_BENCHMARKS"):
            load_items(get_benchmark(name))


def refuse(*_, **__):
    raise ConnectionError("no route to the hub")


def test_the_folder_may_be_named_in_the_environment(folder, monkeypatch):
    monkeypatch.setenv("INTUITOR_BENCHMARKS", str(folder))
    assert load_items(get_benchmark("gsm8k"))[0].reference == "2"
    monkeypatch.setenv("INTUITOR_BENCHMARKS", str(folder / "nothing"))
    with pytest.raises(InputError, match="is no folder"):
        load_items(get_benchmark("gsm8k"))


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_items_are_drawn_by_their_seed(name):
    benchmark = get_benchmark(name)
    first = load_items(benchmark, 20, seed=3)
    assert fingerprint(first) == fingerprint(load_items(benchmark, 20, seed=3))
    assert fingerprint(first) != fingerprint(load_items(benchmark, 20, seed=4))
    assert len({item.id for item in first}) == len({item.prompt for item in first}) == 20


def test_a_changed_reference_changes_the_fingerprint():
    items = [Item("a", "q", "q", "1"), Item("b", "q", "q", "2")]
    prints = {
        fingerprint(items),
        fingerprint(items[::-1]),
        fingerprint(items[:1]),
        fingerprint([items[0], Item("b", "q", "q", "3")]),
    }
    assert len(prints) == 4


@pytest.mark.parametrize("name", ["chain_sum", "gsm_symbolic"])
def test_the_draw_of_a_family_is_not_that_of_a_recipe(name):
    items = load_items(get_benchmark(name), 50)
    recipe = get_recipe("quickstart", "cpu").replace(
        dataset=f"reasoning-gym:{name}", dataset_kwargs={}, max_problems=50, eval_problems=0
    )
    trained = {problem.prompt for problem in load_problems(recipe).train}
    assert len(trained & {item.question for item in items}) <= 2


def test_bad_names_and_numbers_are_refused():
    with pytest.raises(InputError, match="choose from gsm8k, math500"):
        get_benchmark("gsm8")
    for n in (0, -1):
        with pytest.raises(InputError, match="ask for at least 1"):
            load_items(get_benchmark("chain_sum"), n)
    with pytest.raises(DataError, match="humaneval has 164 items, not 165"):
        load_items(get_benchmark("humaneval"), 165)


def test_humaneval_is_asked_and_tested_as_in_training():
    problems = load_problems(get_recipe("grpo-code", "cpu"))
    items = {item.id: item for item in load_items(get_benchmark("humaneval"))}
    for problem in (*problems.train, *problems.held_out):
        item = items.pop(problem.id)
        # The question tells `trained_on` of an evaluation.
        assert problem.prompt == item.question == item.prompt
        assert json.loads(problem.tests) == item.reference["tests"]
    assert not items


# --- Grading by the references --------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in BENCHMARKS if n in EMBEDDED])
def test_references_of_embedded_benchmarks_are_right_and_corrupted_ones_wrong(name):
    benchmark = get_benchmark(name)
    if benchmark.grader.runs_code and protections().mode == "none":
        pytest.skip("programs cannot be confined on this machine")
    found = check_grading(benchmark, load_items(benchmark))
    assert found["odd"] == []
    assert found["right"] == found["n"] == (164 if name == "humaneval" else 200)
    assert found["wrong"] == 0


@pytest.mark.parametrize(("name", "n"), [("gsm8k", 1319), ("math500", 500), ("cruxeval", 800)])
def test_references_of_the_real_benchmarks_are_right_and_corrupted_ones_wrong(name, n):
    if not DATA.is_dir():
        pytest.skip(f"needs the benchmark files in {DATA}")
    benchmark = get_benchmark(name)
    found = check_grading(benchmark, load_items(benchmark, folder=DATA))
    assert found["odd"] == []
    assert (found["right"], found["wrong"], found["n"]) == (n, 0, n)


def test_check_sees_a_grader_that_is_wrong(monkeypatch):
    benchmark = get_benchmark("chain_sum")
    items = load_items(benchmark, 5)
    monkeypatch.setattr(
        "intuitor_lib.evaluation.benchmarks.graders.grade_labelled",
        lambda answers, *_, **__: [True] * len(answers),
    )
    found = check_grading(benchmark, items)
    assert (found["right"], found["wrong"]) == (5, 5)
    assert len(found["odd"]) == 5
    assert re.match(r".* \(wrong\): boxed", found["odd"][0])


def test_a_function_body_continues_its_prompt():
    """Base models go on with the code instead of writing the function anew."""
    if protections().mode == "none":
        pytest.skip("programs cannot be confined on this machine")
    rows = {row["task_id"]: row for row in humaneval_rows()}
    row = rows["HumanEval/2"]
    item = questions.humaneval_item(row)
    grade = get_benchmark("humaneval").grader.grade
    assert grade([item], [row["canonical_solution"]])[0].correct
    assert not grade([item], ["    return 'no'"])[0].correct
    # A chat model leaves out the import that stands before the function, and needs it.
    item = questions.humaneval_item(rows["HumanEval/0"])
    function = item.reference["solution"].removeprefix("from typing import List\n\n\n")
    assert function.startswith("def has_close_elements(numbers: List[float]")
    assert grade([item], [f"```python\n{function}\n```"])[0].correct
