"""Numbers in every spelling, and where one begins and ends in a text."""

from fractions import Fraction

import pytest

from intuitor_lib.grading.numerals import NUMERAL, number, ratio, spelled_for_latex, time_of_day


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("- 7", -7),
        ("8.", 8),
        (".25", Fraction(1, 4)),
        ("1,234.5", Fraction(2469, 2)),
        ("12 345", 12345),
        (r"12\;345", 12345),
        ("1'000", 1000),
        ("1,00,000", 100_000),
        ("1.234.567", 1_234_567),
        ("1.234,5", Fraction(2469, 2)),
        ("3/4", Fraction(3, 4)),
        (r"-\frac{-3}{4}", Fraction(3, 4)),
        (r"\tfrac34", Fraction(3, 4)),
        ("2 3/4", Fraction(11, 4)),
        (r"-2\frac{3}{4}", Fraction(-11, 4)),
        ("1 000 1/2", Fraction(2001, 2)),
        ("2.5e3", 2500),
        ("4E-2", Fraction(1, 25)),
        (r"2.5 \times 10^{-3}", Fraction(1, 400)),
        ("3 x 10^4", 30_000),
    ],
)
def test_value(text, value):
    assert number(text).value == value
    assert number(text).is_fraction == ("/" in text or "frac" in text)


@pytest.mark.parametrize(
    "text",
    ["", "x", "1/0", "2 7/4", "1 2", "0 500", "1e99999", "0,5", "1" * 41, "1.2.3", "e3", "+"],
)
def test_no_number(text):
    assert number(text) is None


@pytest.mark.parametrize(
    ("text", "numerals"),
    [
        ("It takes 2 1/2 hours.", ["2 1/2"]),
        (r"It takes $2\frac12$ hours.", [r"2\frac12"]),
        ("A town of 12 345 678 people in 2019.", ["12 345 678", "2019"]),
        ("from 9:45 to 10:15 p.m.", ["9:45", "10:15 p.m."]),
        ("mixed 2 : 5, in step 4: 6 cups", ["2 : 5", "4", "6"]),
        (r"$3 \times 10^{-5}$ or 3e-5", [r"3 \times 10^{-5}", "3e-5"]),
        (r"$4\sqrt{3}$, $2\pi$ and $2^{10}$", [r"4\sqrt{3}", r"2\pi", "2^{10}"]),
        (r"$\frac{\sqrt{3}}{2}$", [r"\frac{\sqrt{3}}{2}"]),
        ("(2,5)", ["2,5"]),
        ("x^2 and x^{3}, H2O", []),
        ("so...5", ["5"]),
    ],
)
def test_numerals_of_a_text(text, numerals):
    assert [found.group() for found in NUMERAL.finditer(text)] == numerals


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("9:45", (9, 45, 0, "")),
        ("9:45:30", (9, 45, 30, "")),
        ("9{:}45 p.m.", (9, 45, 0, "p")),
        ("3 AM", (3, 0, 0, "a")),
        ("21:30", (21, 30, 0, "")),
        ("21:30 pm", None),
        ("25:00", None),
        ("3:4", None),
        ("3", None),
    ],
)
def test_time_of_day(text, time):
    assert time_of_day(text) == time


@pytest.mark.parametrize(
    ("text", "terms"), [("3:4", [3, 4]), ("1 : 2.5 : 3", [1, Fraction(5, 2), 3]), ("3", None)]
)
def test_ratio(text, terms):
    assert ratio(text) == terms


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("x + 2 1/3", r"x + 2\frac{1}{3}"),
        ("x + 2 4/3", r"x + 2, \frac{4}{3}"),
        ("2.5e-3 + x", r"2.5 \times 10^{-3} + x"),
        ("x + 10 000", "x + 10000"),
        ("1.234.567x", "1234567x"),
        ("(12,345)", "(12,345)"),
        ("a_1 000", "a_1 000"),
        ("2e - 3", "2e - 3"),
    ],
)
def test_numbers_within_an_expression(text, latex):
    assert spelled_for_latex(text) == latex
