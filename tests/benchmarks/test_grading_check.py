import pytest
from grading_check import main

from intuitor_lib.recipe import InputError


def test_grading_is_checked_on_reference_answers_and_corrupted_ones(capsys, monkeypatch):
    assert main(["chain_sum", "gsm_symbolic"]) == 0
    out = capsys.readouterr().out
    assert out.count(" 200/200 ") == out.count(" 0/200 ") == 2
    graded = "intuitor_lib.evaluation.benchmarks.graders.grade_labelled"
    monkeypatch.setattr(graded, lambda answers, *_: [True] * len(answers))
    assert main(["chain_sum"]) == 1
    assert capsys.readouterr().err.count("(wrong): boxed") == 200


def test_unknown_names_and_folders_are_told():
    with pytest.raises(InputError, match="unknown benchmark 'gsm9k'"):
        main(["gsm9k"])
    with pytest.raises(InputError, match="'/nowhere' is no folder"):
        main(["--benchmarks", "/nowhere"])
