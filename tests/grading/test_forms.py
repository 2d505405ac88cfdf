r"""JSON fields, Python values and programs as models write them, and hostile texts."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from intuitor_lib.grading.choices import extract_choice
from intuitor_lib.grading.forms import (
    code_answer_type,
    extract_code,
    extract_field,
    reasons_before_json,
    same_value,
)

ROOT = Path(__file__).parents[2]
CRUXEVAL = ROOT.parent / "shared" / "data" / "cruxeval.jsonl"
PROSE = "First we look at what the loop does with every element of the list. "


class TestField:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ('{"reasoning": "r", "answer": "[1, 2]"}', "[1, 2]"),
            ('Here:\n```json\n{"answer": 5}\n```\nDone.', 5),
            ('{"answer": [1, {"a": null}]}', [1, {"a": None}]),
            ('{"answer": {"answer": 1}}', {"answer": 1}),
            ('{"answer": null}', None),
            ('{"answer": "two\nlines"}', "two\nlines"),
            ('{"answer": 1, "answer": 2}', 2),
            ('{"answer": 1} and then {"answer": 2}', 2),
            ('{"answer": 1} and then {"other": 2}', 1),
            ('{"result": {"answer": 3}}', 3),
            ('{"reasoning": "the \\"answer\\": 7 of {x}", "answer": "8"}', "8"),
            ('f = {"a": 1}; uses {x}. {"answer": "b"}', "b"),
        ],
    )
    def test_well_formed(self, text, value):
        found = extract_field(text)
        assert (found.value, found.well_formed) == (value, True)

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ('{"answer": "5", }', "5"),
            ('{"reasoning": "he said "no"", "answer": "5"}', "5"),
            ('{"answer": "5", "reasoning": "he said "no""}', "5"),
            ('{"answer": "{"a": 1, "b": 2}"}', '{"a": 1, "b": 2}'),
            ('{"answer": "\\\'ab\\\'"}', "'ab'"),
            ('{"answer": "[1, 2]", "reasoning": "Because', "[1, 2]"),
            ('{"reasoning": "\\d", "answer": [1, 2]}', [1, 2]),
            ('"answer": "5"', "5"),
        ],
    )
    def test_malformed(self, text, value):
        found = extract_field(text)
        assert (found.value, found.well_formed) == (value, False)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "the answer is 5",
            '{"reasoning": "it is cut off before the answ',
            '{"reasoning": "r", "answer": "[1, 2',
            '{"reasoning": "r", "answer": [1, 2',
            '{"reasoning": "r", "answer": 12',  # and perhaps 123
            '{"reasoning": "no such field"}',
        ],
    )
    def test_none(self, text):
        assert extract_field(text) is None

    def test_start_is_where_the_object_begins(self):
        text = 'Prose {x}. {"other": 1} {"reasoning": "a {b}", "answer": 5'
        for end, well_formed in (("}", True), (", }", False)):
            assert extract_field(text + end) == (5, text.index('{"rea'), well_formed)

    def test_another_field(self):
        assert extract_field('{"output (x)": 4, "answer": 5}', "output (x)").value == 4


class TestSameValue:
    @pytest.mark.parametrize(
        ("answer", "gold"),
        [
            ("[1, 2]", "[1, 2]"),
            (" [1,2] ", "[1, 2]"),
            ("{'b': 2, 'a': 1}", "{'a': 1, 'b': 2}"),
            ("'ab'", "'ab'"),
            ('"ab"', "'ab'"),
            ("ab", "'ab'"),
            ("5", "'5'"),
            ("(1,)", "(1,)"),
            ("", "''"),
            ("'(((\\n'", "'(((\\n'"),
            ("1.0", "1"),
            ("True", "1"),
            ("-1e5+2j", "-1e5+2j"),
            ("set()", "set()"),
            ([1, "a", None, True], "[1, 'a', None, True]"),
            ({"a": [1]}, "{'a': [1]}"),
            (5, "5"),
            (None, "None"),
            ("'a\nb'", r"'a\nb'"),  # "'a\nb'" in JSON
        ],
    )
    def test_right(self, answer, gold):
        assert same_value(answer, gold)

    @pytest.mark.parametrize(
        ("answer", "gold"),
        [
            ("[1, 2]", "(1, 2)"),
            ("[1, 2]", "[2, 1]"),
            ("'5'", "5"),
            ("5", "'6'"),
            ("'ab", "'ab'"),
            ("'a\nb'", "'a b'"),
            ("AB", "'ab'"),
            ("null", "None"),
            ("None", "'none'"),
            ("[1] + [2]", "[1, 2]"),
            ("{}", "set()"),
            ([1, 2], "(1, 2)"),
            (["1"], "[1]"),
            ({"1": 2}, "{1: 2}"),
            (None, "'None'"),
            ("\0", "'a'"),
            ("\ud800", "'a'"),
        ],
    )
    def test_wrong(self, answer, gold):
        assert not same_value(answer, gold)

    @pytest.mark.parametrize("gold", ["", "f(x)", "[1", "x"])
    def test_rejects_a_gold_that_is_no_literal(self, gold):
        with pytest.raises(ValueError, match="expected a Python literal"):
            same_value("1", gold)

    def test_cruxeval(self):
        if not CRUXEVAL.exists():
            pytest.skip(f"needs {CRUXEVAL}")
        with CRUXEVAL.open(encoding="utf-8") as lines:
            golds = [json.loads(line)["output"] for line in lines]
        assert len(golds) == 800
        for gold in golds:
            assert same_value(gold, gold)
            answer = json.dumps({"reasoning": "r", "answer": gold})
            assert same_value(extract_field(answer).value, gold)
            for wrong in (f"[{gold}]", f"({gold}, 0)", repr(gold), f"{gold}x", "?", None, [gold]):
                assert not same_value(wrong, gold), (wrong, gold)


class TestCode:
    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("```python\nx = 1\n```", "x = 1"),
            ("Here:\n```py\nx = 1\n```\nDone.", "x = 1"),
            ("```\nx = 1\n```", "x = 1"),
            ("~~~ python title=a\nx = 1\n~~~", "x = 1"),
            ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''"),
            ("```python\nx = 1", "x = 1"),
            ("```python\nx = 1\n```python\nx = 2\n```", "x = 2"),
            ("```python\nx = 1\n```\n```python\nx = 2\n```", "x = 2"),
            ("```python\nx = 1\n```\n```\n```", "x = 1"),
            ("```python\nx = 1\n```\n```bash\nls\n```", "x = 1"),
            ("1. Code:\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y"),
            ("```Python\r\nx = 1\n```", "x = 1"),
            ("```python\nprint(input())\n```\nFor example\n```\n7\n8\n```", "print(input())"),
            ("```\nprint(input())\n```\nInput:\n```\n[1, 2]\n```", "print(input())"),
            ("```py\nx = 1\n```\nOutput:\n```\nall is well\n```", "x = 1"),
            ("```python\nx = 1\n```\nbetter\n```\nprint(x)\n```", "print(x)"),
            ("```python\nx = 1\n```\n```python\ny = (\n```", "y = ("),
            ("```py\nf(2)\n```\nInput:\n```\nn = 2\nm = 3\n```", "f(2)"),
            ("```py\nf(2)\n```\nFor example\n```\nIn: 3\nOut: 4\n```", "f(2)"),
            ("```py\nf(2)\n```\n```py\n>>> f(2)\n4\n```", "f(2)"),
            ("```py\nf(2)\n```\n```py\nassert f(2) == 4\n```", "f(2)"),
            ("```\n3\n```", "3"),
            ("```bash\nls\n```", None),
            ("x = 1\nprint(x)", "x = 1\nprint(x)"),
            ("Sorry", None),
            ("No\nidea", None),
            ("'x = 1'", None),
            ("The code is x = 1.", None),
            ("x = 1\0", None),
            ("", None),
        ],
    )
    def test_last_block(self, text, code):
        assert extract_code(text) == code

    def test_block_that_defines_a_name(self):
        blocks = ["def f(x):\n    return g(x)", "class S:\n    def g(self): ...", "f(1)\ng(2)"]
        text = "\n".join(f"```python\n{block}\n```" for block in blocks)
        found = {name: extract_code(text, name) for name in ("f", "g", "S", "h", "f.*")}
        assert found == {
            "f": blocks[0],
            "g": blocks[1],
            "S": blocks[1],
            "h": blocks[2],
            "f.*": blocks[2],
        }


OBJECT = (
    '{"reasoning": "the loop counts all the letters of the given word one by one", "answer": 3}'
)
CODE = "```python\n# We first read the numbers and then add them all up, one by one.\nx = 1\n```"


class TestReasoningBeforeJson:
    @pytest.mark.parametrize(
        "text",
        [
            PROSE + OBJECT,
            f"{PROSE}\n\nHere is the JSON:\n```json\n{OBJECT}\n```",
            f"## Step 1\n{PROSE}\n## Answer\n{OBJECT}",
            f"- the loop starts at zero\n- it then adds each number\n- it ends at three\n{OBJECT}",
            f"<think>\n{PROSE}\n</think>\n{OBJECT}",
            f"```python\nf(3)\n```\n{PROSE}\n{OBJECT}",
            PROSE + OBJECT.replace("3}", '"3"'),
            PROSE + OBJECT.replace("}", ", }"),
            f"{OBJECT}\n{PROSE}\n{OBJECT}",
            "循环依次检查列表中的每个元素。" + OBJECT,
            "one two three four five six seven eight nine ten " + OBJECT,
        ],
    )
    def test_yes(self, text):
        assert reasons_before_json(text)

    @pytest.mark.parametrize(
        "text",
        [
            OBJECT,
            f"```json\n{OBJECT}\n```",
            f"Here is the JSON:\n{OBJECT}",
            f"**Answer:**\n\n```json\n{OBJECT}\n```\n{PROSE}",
            f"# What the loop of this function does with each of its many elements\n{OBJECT}",
            f"**What the loop of this function does with each of its elements**\n{OBJECT}",
            f"Here is the answer.\n\nSo the output in the JSON format you asked for:\n{OBJECT}",
            f"```python\n# {PROSE}\n```\n{OBJECT}",
            f"```json\n{OBJECT}\n```\nAgain:\n```json\n{OBJECT}\n```",
            f"{OBJECT}\n{OBJECT}",
            "one two three four five six seven eight nine " + OBJECT,
            "1 + 2 = 3, 3 * 4 = 12, x = 7, y = 8, z = 1, 2, 3, 4, 5, 6, 7, 8 " + OBJECT,
            PROSE + "The answer is 3.",
            OBJECT.replace("}", ", }"),
            "",
        ],
    )
    def test_no(self, text):
        assert not reasons_before_json(text)


class TestCodeAnswerType:
    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            ("", "no answer"),
            (PROSE, "no answer"),
            ("```python\nx = (1\n```", "no answer"),
            (PROSE + "\n```python\nfor x in y\n    pass\n```", "no answer"),
            ("```bash\npip install numpy\n```", "no answer"),
            ("```python\n\n```", "no answer"),
            ("Read n. Then print n.\nn = int(input())", "no answer"),
            (CODE, "no reasoning"),
            ("x = int(input())\nprint(x)", "no reasoning"),
            ("# " + PROSE + "\nx = 1", "no reasoning"),
            ("```python\nprint(sum(map(int, input().split())))\n```", "no reasoning"),
            ("Here is the code:\n" + CODE, "no reasoning"),
            (
                "# Solution to the problem of adding all of the given numbers\n" + CODE,
                "no reasoning",
            ),
            (CODE + "\n" + PROSE, "no reasoning"),
            (CODE + "\n" + CODE, "no reasoning"),
            (PROSE + "\n" + CODE, "reasoning"),
            (PROSE + "\n```python\nx = 1", "reasoning"),
            (f"### Approach\n1. {PROSE}\n\n### Code\n{CODE}\nIt is linear.", "reasoning"),
            (f"{CODE}\n{PROSE}\n{CODE}", "reasoning"),
            (PROSE + "\n" + CODE + "\n```python\nx = (\n```", "reasoning"),
            (f"<think>{PROSE}</think>\n~~~\nx = 1\n~~~", "reasoning"),
        ],
    )
    def test_type(self, text, kind):
        assert code_answer_type(text) == kind


N = 10**5
HOSTILE = [
    *("x" * 10**6, " " * 10**6, "-" * 10**6, "*" * 10**6 + ":", "'" * 10**6, "`" * 10**6),
    *("{" * N, "[" * N, "(" * N, "{" * N + "}" * N, '{"' * N, '{"a":' * N, r"\frac{" * N),
    *('{"answer": ' * N, '{"answer": [' * N, '{"answer": 1, ' * N, '"answer": "' * N),
    *('{"answer": {"x": 1}}' * N, '{"answer": ' + "9" * 10**6 + "}", '"answer":' + " " * 10**6),
    *(("{" + '"a":[' + "1," * 1000 + '0], "b":') * 300, '"answer": "' + '\\"' * N),
    *("\0" * N, "\ud800" * N, "9**9**9", "```\n" * N, "```python\n" * N, "```\nx\n" * N),
    *("```python\n" + "-" * 10**6, "x=" + "~" * 40_000 + "1", "x=" + "lambda:" * 6_000 + "1"),
    *("x=1" + "+1" * 20_000, "x=a" + ".a" * 20_000, "x=a" + "()" * 20_000, "x=" + "[" * 40_000),
    *("x=" + "1 if 1 else " * 4_000 + "1", "if 1:\n pass\n" + "elif 1:\n pass\n" * 3_000),
    *("answer is " * N, "answer" + "*" * 10**6, "answer: (" * N, "**" * N, "\\boxed{\\text{" * N),
    *("The answer is A or " * N, "A\n" * N, "word " * N + '{"answer": 1}'),
    *("-" * 19_000 + "1", "(-" * 9_000, "[]" + "[0]" * 6_000, "1" + "+1" * 9_000, "'a' " * 4_000),
    *("'" * 19_999, "\\'" * 9_999, "0or " * 4_000 + "1", "not " * 4_000 + "1", "2**" * 6_000 + "2"),
    *("lambda:" * 2_500 + "1", "1 .real" + ".real" * 3_000, "[" * 101 + "]" * 101, "{[]: 1}"),
]


def slowest(texts):
    """Seconds of the slowest call on any of the texts."""
    most = 0.0
    for text in texts:
        for function in (
            extract_choice,
            extract_field,
            extract_code,
            reasons_before_json,
            code_answer_type,
            lambda text: same_value(text, "[1]"),
            lambda text: extract_code(text, "f"),
        ):
            start = time.perf_counter()
            function(text)
            most = max(most, time.perf_counter() - start)
    return most


def test_no_text_raises_takes_long_or_ends_the_process():
    # Python's parser recurses in C, so the texts go to a process of their own, in a thread, whose
    # stack may be smaller.
    source = """
import sys, threading
sys.path.insert(0, "tests/grading")
from test_forms import HOSTILE, slowest
thread = threading.Thread(target=lambda: print(slowest(HOSTILE)))
thread.start()
thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) < 10  # a quadratic search takes minutes


def test_programs_are_read_in_several_threads():
    text = "```python\ndef f(xs: list):\n    return [[x] for x in xs if x > 0 and (x, x)]\n```"
    with ThreadPoolExecutor(8) as executor:
        found = [*executor.map(extract_code, [text] * 2000)]
    assert {*found} == {extract_code(text)}
