import ast
import re
from collections import Counter

import pytest

from intuitor_lib.problems.stand_ins import program_outputs
from intuitor_lib.problems.stand_ins.program_outputs import output_questions


@pytest.fixture(scope="module")
def questions():
    return output_questions(300)


def value_of(question):
    """What the function returns, run as it stands and apart from how it was made."""
    namespace = {}
    exec(question.code, namespace)
    return eval(f"f({question.input})", namespace)


def test_outputs_are_those_of_the_code(questions):
    for question in questions:
        value = value_of(question)
        assert ast.literal_eval(question.output) == value
        assert question.output == repr(value)


def test_questions_are_distinct_short_and_not_trivial(questions):
    assert len({q.code for q in questions}) == len({q.id for q in questions}) == 300
    for question in questions:
        arguments = ast.literal_eval(f"[{question.input}]")
        assert len(question.output) <= 120
        assert ast.literal_eval(question.output) not in arguments
        assert 3 <= question.code.count("\n") + 1 <= 12
        assert re.fullmatch(r"def f\([a-z, ]+\):\n(    .+\n?)+", question.code)


def test_no_output_can_be_guessed(questions):
    assert Counter(q.output for q in questions).most_common(1)[0][1] <= 0.02 * 300 + 2


def test_the_share_of_an_output_is_held(monkeypatch):
    monkeypatch.setattr(program_outputs, "OUTPUT_SHARE", 0)
    monkeypatch.setattr(program_outputs, "OUTPUT_HEADROOM", 1)
    assert len({q.output for q in output_questions(60)}) == 60


def test_questions_are_varied(questions):
    """Few functions are the same but for names and numbers, and every statement occurs."""
    shapes = {re.sub(r"\b[a-z]\w*\b|'.*?'|\d+", "_", q.code) for q in questions}
    assert len(shapes) > 270
    text = "\n".join(q.code for q in questions)
    for part in ("while ", "for ", "if ", "else:", "lambda", ".append(", "enumerate(", "[::"):
        assert text.count(part) >= 12, part
    kinds = Counter(type(ast.literal_eval(q.output)) for q in questions)
    assert all(kinds[kind] >= 6 for kind in (int, str, list, tuple, dict))


def test_seeds_differ_and_prefixes_agree(questions):
    assert output_questions(40) == questions[:40]
    assert not {q.code for q in output_questions(50, seed=1)} & {q.code for q in questions}
    assert output_questions(0) == []
    with pytest.raises(ValueError, match="n=-1"):
        output_questions(-1)
