"""One notation for an answer, and for what math-verify reads."""

import pytest

from intuitor_lib.grading.notation import as_latex, is_product, normalized


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (" $42$. ", "42"),
        (r"\$1,200", "1,200"),
        ("{7}", "7"),
        (r"7\quad", "7"),
        (r"\{1, 2\}", r"\{1, 2\}"),
        (r"\textcolor{red}{\mathbf{x+1}}", "x+1"),
        (r"\mathrm{no}", r"\text{no}"),
        (r"1 - \frac{1}{\mathrm{e}}", r"1 - \frac{1}{e}"),
        (r"\text{Final answer: } x", "x"),
        (r"\text{Answer: 8}", "8"),
        ("the answer is north", "north"),
        ("answer", "answer"),
        (r"\\frac{1}{2}", r"\frac{1}{2}"),
        ("8 apples", "8"),
        (r"8~\text{sq. ft}", "8"),
        (r"8\,\mathrm{m}/\mathrm{s}^2", "8"),
        ("8 cups of tea", "8"),
        ("3 million", "3e6"),
        ("3 millions", "3e6"),
        (r"3\text{ thousands}", "3e3"),
        ("3 fifths", "3 fifths"),
        (r"3 \text{ hundredths}", r"3 \text{ hundredths}"),
        ("3 dozens", "3 dozens"),
        ("3 lakh", "3 lakh"),
        ("8 percent", r"8\%"),
        ("8 or more", "8 or more"),
        ("8 km east", "8 km east"),
        ("8x", "8x"),
        ("8 xyz", "8 xyz"),
        (r"n \text{ is odd}", r"n \text{ is odd}"),
        ("⅔", r"\frac{2}{3}"),
        ("y⁻²", "y^{-2}"),
        ("√7 · ∛(a+b)", r"\sqrt{7} \cdot  \sqrt[3]{a+b}"),
        ("Ω", r"\Omega"),
        ("λ", r"\lambda"),
        ("\N{MATHEMATICAL BOLD DIGIT FOUR}", "4"),
        ("答案", "答案"),
    ],
)
def test_normalized(answer, plain):
    assert normalized(answer) == plain
    assert normalized(plain) == plain


@pytest.mark.parametrize(
    ("answer", "latex"),
    [
        ("2*pi", r"2*\pi "),
        ("exp(3) + tan(x)", r"\exp (3) + \tan (x)"),
        (r"\sin x \text{ or sin}", r"\sin x \text{ or sin}"),
        ("spin", "spin"),
        ("x**2 >= 3", r"x^2 \ge  3"),
        ("5 + -2i", "5 - 2 i"),
        ("abs(x - 1)", "|x - 1|"),
        ("Abs(y)", "|y|"),
        ("1 + 2*I", "1 + 2*i"),
        ("R*I", "R*I"),
        ("acos(0)", r"\arccos (0)"),
        ("sqrt12", r"\sqrt{12}"),
        ("7 > x >= 3", r"3 \le  x  < 7"),
        ("inf", r"\infty "),
    ],
)
def test_as_latex(answer, latex):
    assert as_latex(answer).split() == latex.split()


@pytest.mark.parametrize("letters", ["ab", "xyz", "mn", "kx"])
def test_products(letters):
    assert is_product(letters)


@pytest.mark.parametrize("letters", ["no", "on", "saw", "was", "act", "AB", "six", "my", "ba"])
def test_words(letters):
    assert not is_product(letters)


@pytest.mark.parametrize(
    "answer",
    ["{" * 2000, r"\text{" * 300, r"\textbf{a" * 200 + "}" * 200, "5 a" * 600, "5" + " km" * 600,
     "5" + r"\text{ a}" * 200, "√(" * 900, "<b>" * 600, "**" * 900, r"\ " * 900, "²" * 1900,
     "1 000" * 400, "1.000" * 400],
    ids=lambda answer: ascii(answer[:12]),
)  # fmt: skip
def test_hostile_answers_end_in_time(answer):
    as_latex(normalized(answer))
