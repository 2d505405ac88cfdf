import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter

import pytest

from intuitor_lib.problems.stand_ins.instructions import (
    CHECKS,
    FILLER,
    FORBIDDEN,
    KEYWORDS,
    Check,
    Instruction,
    broken_example,
    instructions,
    violations,
)

CASES = [
    ("word_count", {"least": 3}, ["one two three", "a - b\nc d"], ["one two", "a - b"]),
    ("word_count", {"most": 2}, ["one two", "well-known"], ["one two three"]),
    ("word_count", {"least": 2, "most": 3}, ["a b", "a b c"], ["a", "a b c d"]),
    (
        "sentence_count",
        {"count": 2},
        ["It is 3.5 m. Good!", 'He said "Stop." Then he left', "What?! Yes...", "One.\n\nTwo."],
        ["One", "One. Two. Three.", "One. Two. three"],
    ),
    ("case", {"case": "lower"}, ["all small, 1st", "école"], ["One", "É", "123"]),
    ("case", {"case": "upper"}, ["ALL BIG 2"], ["ALL BiG", "123", "ß"]),
    (
        "keyword",
        {"word": "river", "count": 2},
        ["River, river.", "RIVER river rivers"],
        ["river", "rivers river", "riverriver"],
    ),
    ("forbidden_word", {"word": "very"}, ["every day"], ["Very good", "so very, very"]),
    ("starts_with", {"phrase": "Here we go"}, ["  here we go!", "HERE WE GO"], ["So here we go"]),
    ("ends_with", {"phrase": "The end."}, ["This is the end.\n", "THE END."], ["The end", "The"]),
    (
        "bullets",
        {"count": 2},
        ["* a\n* b", "Some:\n - a\n\n - b\nbye", "• a\n• b"],
        ["* a", "* a\n* b\n* c", "*a\n*b", "1. a\n2. b"],
    ),
    ("paragraphs", {"count": 2}, ["a\nb\n\nc", "\n\na\n \t\n\nb\n"], ["a", "a\nb", "a\n\nb\n\nc"]),
    (
        "json_keys",
        {"keys": ["time", "place"]},
        ['{"place": "x", "time": 1}', '```json\n{"time": [], "place": {}}\n```'],
        [
            '{"place": 1}',
            '{"place": 1, "time": 2, "x": 3}',
            '["place", "time"]',
            "place time",
            'It is {"place": "x", "time": 1}',
            '{"place": 1, "time": 2',
        ],
    ),
    ("quoted", {}, ['"a b"', ' "a"\n'], ['"a', 'a"', "'a'", "“a”"]),
    ("no_commas", {}, ["a; b"], ["a, b"]),
    (
        "numbered_list",
        {"count": 2},
        ["1. a\n2. b", "List:\n 1) a\n\n 2) b"],
        ["1. a", "1. a\n2. b\n3. c", "1. a\n1. b", "2. a\n1. b", "1.a\n2.b", "* a\n* b"],
    ),
    ("title", {}, ["<<A day>>\ntext", "text << x >>"], ["<A day>", "<<>> x", "<< >> x", "<<a\n>>"]),
    (
        "choice",
        {"options": ["yes", "no opinion"]},
        ["yes", " Yes.\n", '"No opinion"', "**yes**"],
        ["no", "yes no", "yes, because", "I say yes"],
    ),
]


@pytest.fixture(scope="module")
def many():
    return instructions(2500)


@pytest.mark.parametrize(("kind", "arguments", "right", "wrong"), CASES)
def test_checks_by_hand(kind, arguments, right, wrong):
    check = Check(kind, arguments)
    assert [text for text in right if violations([check], text)] == []
    assert [text for text in wrong if violations([check], text) != [kind]] == []


def test_every_kind_has_cases_and_is_drawn(many):
    counts = Counter(check.kind for instruction in many for check in instruction.checks)
    assert counts.keys() == {kind for kind, *_ in CASES} == CHECKS.keys()
    assert min(counts.values()) >= 100


def test_violations_names_the_broken_checks_in_order():
    checks = [Check("no_commas"), Check("quoted"), Check("case", {"case": "lower"})]
    assert violations(checks, "a, B") == ["no_commas", "quoted", "case"]
    assert violations(checks, '"a, b"') == ["no_commas"]
    assert violations([], "") == []


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="kind='haiku': expected one of word_count"):
        violations([Check("haiku")], "text")


def test_prompts_are_distinct_and_have_one_to_three_checks(many):
    assert len({i.prompt for i in many}) == len({i.id for i in many}) == 2500
    assert {len(i.checks) for i in many} == {1, 2, 3}
    for instruction in many:
        kinds = [check.kind for check in instruction.checks]
        assert len(set(kinds)) == len(kinds)
        assert instruction.prompt == " ".join(instruction.prompt.split())


def test_examples_follow_and_broken_examples_do_not(many):
    for instruction in many:
        assert violations(instruction.checks, instruction.example) == []
        assert instruction.checks[0].kind in violations(
            instruction.checks, broken_example(instruction)
        )


def test_prompts_state_every_argument(many):
    for instruction in many:
        for check in instruction.checks:
            values = dict(check.arguments)
            if check.kind == "keyword":
                values["count"] = ["once", "twice", "three times"][values["count"] - 1]
            if check.kind == "case":
                values["case"] = {"lower": "small", "upper": "capital"}[values["case"]]
            for value in values.values():
                for part in value if isinstance(value, list) else [value]:
                    assert str(part) in instruction.prompt


def test_empty_responses_break_every_check(many):
    for instruction in many[:500]:
        kinds = [check.kind for check in instruction.checks]
        for blank in ("", " \n\t", "...", '""', "<<>>", "* \n* "):
            assert violations(instruction.checks, blank) == kinds


def test_example_sentences_hold_no_demanded_or_forbidden_word():
    words = " ".join(FILLER).lower().replace(".", "").split()
    assert not {*KEYWORDS, *FORBIDDEN} & {*words}
    assert not {*KEYWORDS} & {*FORBIDDEN}
    assert "," not in "".join(FILLER)


SIZE = 1_000_000
HOSTILE = [
    "\x00" * SIZE,
    "\ud800a" * (SIZE // 2),
    "a" + "." * SIZE + "x",
    "a" + " " * SIZE + "x",
    "a" + "\n " * (SIZE // 2) + "x",
    "x" + "<<" * (SIZE // 2) + "a",
    "<<a" * (SIZE // 3),
    "[" * SIZE + "1",
    '{"a":' * (SIZE // 5) + "1",
    "1" * SIZE,
    "1. " * (SIZE // 3),
    "- " * (SIZE // 2) + "a",
    '"' * SIZE + "a",
    "river " * (SIZE // 6),
    "```" * (SIZE // 3) + "a\n```",
    "\u0130\u1e9e" * (SIZE // 2),
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_takes_little_time_and_raises_nothing(text):
    checks = [Check(kind, arguments) for kind, arguments, *_ in CASES]
    start = time.process_time()
    assert isinstance(violations(checks, text), list)
    # All 18 checks of a megabyte; a quadratic one would take hours.
    assert time.process_time() - start < 5


def test_json_round_trip(many):
    for instruction in many[:200]:
        row = json.loads(json.dumps(instruction.to_dict()))
        assert Instruction.from_dict(row) == instruction


def test_the_same_instructions_in_every_process(many):
    code = (
        "from intuitor_lib.problems.stand_ins.instructions import *; import hashlib; "
        "print(hashlib.sha256(repr(instructions(300)).encode()).hexdigest())"
    )
    for hash_seed in ("0", "4242"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        expected = hashlib.sha256(repr(many[:300]).encode()).hexdigest()
        assert done.stdout.strip() == expected


def test_seeds_differ(many):
    other = {i.prompt for i in instructions(300, seed=1)}
    assert len(other & {i.prompt for i in many}) < 150
    assert instructions(0) == []
    with pytest.raises(ValueError, match="n=-1"):
        instructions(-1)
