r"""Verdicts by kind of notation: each pair as a model and a data set may write it."""

import pytest

from intuitor_lib.grading import equivalence, is_correct
from intuitor_lib.grading.rules import decide, is_plain

# A reference, an answer in a box, and whether it is right.
PAIRS = {
    "magnitudes": [
        ("10^{-20}", "10^{-21}", False),
        (r"2 \times 10^{-7}", r"3\times 10^{-7}", False),
        (r"6.02\times10^{23}", "6.02e23", True),
        ("(10^{-20}, 1)", "(10^{-21},1)", False),
        (r"x=\frac{1}{2^{70}}", r"x=\frac{1}{2^{71}}", False),
        ("e^{-50}", "e^{-51}", False),
        ("e^{-50}", r"\frac{1}{e^{50}}", True),
        (r"\{10^{-20}\}", r"\{2\cdot10^{-20}\}", False),
        (r"\frac{\sqrt{2}}{10^{20}}", r"\frac{1.41421356\cdot 1}{10^{20}}", True),
        (
            r"\begin{pmatrix}10^{-20}\\1\end{pmatrix}",
            r"\begin{pmatrix}10^{-19}\\1\end{pmatrix}",
            False,
        ),
        ("0.000000123", "0.000000124", False),
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        (r"\binom{5}{2}", "10", True),
        ("2^{100}", "2^{100}+1", False),
        (r"\frac{1}{3}\times 10^{-9}", r"\frac{1}{4}\times 10^{-9}", False),
    ],
    "words": [
        ("odd", r"\text{odd}", True),
        ("SAS", "SSA", False),
        ("yes", r"\text{sye}", False),
        ("cat", "act", False),
        ("was", "saw", False),
        ("AB", "BA", False),
        ("xy", "yx", True),
        ("abc", "bca", True),
        ("red, blue", "blue, red", True),
        ("red, blue", "der, lube", False),
        (r"\text{ASA}", r"\text{AAS}", False),
        ("mn", "nm", True),
        ("ten", "net", False),
        ("TRUE", "true", True),
    ],
    "powers of ten": [
        ("2e3", "2000", True),
        ("2E3", "2000", True),
        ("0.00001", "1e-05", True),
        ("1e-5", "10^{-5}", True),
        (r"3 \times 10^4", "30000", True),
        ("3 x 10^4", "30000", True),
        ("3*10^4", "30000", True),
        ("1.5 · 10^3", "1500", True),
        ("2e", r"2\cdot e", True),
        ("5.67 × 10⁻⁸", "5.67e-8", True),
    ],
    "units": [
        ("m", "5m", False),
        ("6", "5 dollars", False),
        ("5", r"\text{5 dollars}", True),
        ("5", r"5 \text{ square units}", True),
        ("5", r"5\,\text{cm}^{2}", True),
        ("5", "5 m/s", True),
        ("5", "5m/s^2", True),
        ("5", "5 feet per second", True),
        ("5", "\\text{€}5", True),
        ("5", "5€", True),
        ("5", "₹5", True),
        ("7", r"7 \mathrm{~cm}^{2}", True),
        ("7", r"7 \mathrm{~km} / \mathrm{h}", True),
        ("7", "7 C", True),
        ("7", "7C", False),
        ("7", "7 times", True),
        ("7 May", "7 June", False),
        ("7 May", "7 may", True),
        ("21", r"7 \text{ times } 3", False),
        ("5", "5 kg", True),
        ("5", "5 kg·m/s²", True),
        ("5", "5 °C", True),
        ("5", r"5\text{ }^\circ\text{C}", True),
        ("5000000", "5 million", True),
        ("5", "5 million", False),
        ("5 hours", "5", True),
        ("5x", "5", False),
        ("5ab", "5", False),
        (r"2\pi", r"2\pi \text{ cm}", True),
        ("12", r"12\text{ in.}", True),
        ("12", "12 inches", True),
        (r"\frac{1}{2}", r"\frac{1}{2} \text{ hour}", True),
        ("75", r"75\%", True),
        ("30", r"30^\circ", True),
        ("5", r"5 \frac{\text{m}}{\text{s}}", True),
        ("20", r"\pounds 20", True),
        ("20", r"US\$20", True),
        ("20", "20 USD", True),
        ("20", "$20.00", True),
        ("3", "3 or 4", False),
        ("4", "3 or 4", False),
        ("5", "5 or more", False),
        (r"10 \text{ cm}", "10 cm", True),
        (r"10 \text{ cm}^3", "10", True),
    ],
    "unicode": [
        (r"\frac{\pi}{2}", "π/2", True),
        (r"x \leq 3", "x ≤ 3", True),
        (r"\frac{1}{2}", "½", True),
        (r"\sqrt{x+1}", "√(x+1)", True),
        (r"x\neq 2", "x ≠ 2", True),
        (r"[0,\infty)", "[0, ∞)", True),
        (r"(-\infty,1)\cup(2,\infty)", "(-∞,1)\N{UNION}(2,∞)", True),
        (r"\theta", "θ", True),
        ("5", "\N{FULLWIDTH DIGIT FIVE}", True),
        ("a_1", "a₁", True),
        (r"\pm 2", "±2", True),
        ("2x^{10}", "2x¹⁰", True),
        ("6", "2×3", True),
        ("2", "6÷3", True),
        (r"2\sqrt[3]{2}", "2∛2", True),
        ("x^2", "x³", False),
        (r"10-2\sqrt{5}", "10 — 2√5", True),
        (r"\{1,2\}", "{1,2}", True),
        ("5", "\N{ARABIC-INDIC DIGIT FIVE}", True),
    ],
    "plain notation": [
        (r"\sin(x)", "sin(x)", True),
        (r"\cos^2 x", "cos^2 x", True),
        (r"\ln 2", "ln 2", True),
        (r"\sqrt{2}/2", "sqrt(2)/2", True),
        ("x^2+1", "x**2+1", True),
        (r"\pi r^2", "pi*r^2", True),
        (r"\infty", "inf", True),
        (r"\infty", "oo", True),
        ("|x|", "abs(x)", True),
        ("2+3i", "2 + 3*i", True),
        (r"\frac{n(n+1)}{2}", "n*(n+1)/2", True),
        ("e^{-x}", "exp(-x)", True),
        (r"\frac{3\pi}{4}", "3pi/4", True),
        (r"x \le 5", "x <= 5", True),
        (r"\alpha+\beta", "alpha + beta", True),
        (r"-\frac{1}{2}", "-(1/2)", True),
        (r"2\cos(3\pi/4)", "2*cos(3*pi/4)", True),
        ("14-i", "14 - 1i", True),
        ("1+2i", "1+2.0i", True),
    ],
    "digit groups": [
        ("1000000", "1 000 000", True),
        ("1234.5", "1 234.5", True),
        ("1000", "1'000", True),
        ("100000", "1,00,000", True),
        ("1234567.89", "1.234.567,89", True),
        ("3.14", "3,14", True),
        ("1, 22", "1,22", True),
        ("2", "1 000", False),
        ("0", "1 000", False),
        ("5", "2,5", False),
        ("1000", "1 00", False),
        ("12", "1 2", False),
        ("10000", r"10\,000", True),
        ("10000", "10~000", True),
        ("1000000", r"1\,000\,000", True),
        (r"\frac{1}{1000}", r"\frac{1}{1\,000}", True),
        ("7/2", "3 1/2", True),
        ("-7/2", r"-3\frac{1}{2}", True),
        ("7/2", "3 ½", True),
        ("3/2", "3 1/2", False),
    ],
    "typography": [
        ("5", r"\mathbf{5}", True),
        ("0.5", r"\mathbf{0.5}", True),
        ("5", r"\textcolor{blue}{5}", True),
        ("5", r"{\color{red}5}", True),
        ("5", r"\displaystyle 5", True),
        ("5", r"\quad 5 \quad", True),
        ("5", "*5*", True),
        ("5", "`5`", True),
        ("5", "<b>5</b>", True),
        ("5", r"\textbf{Answer: } 5", True),
        ("5", r"\text{The answer is } 5", True),
        (r"\frac{1}{2}", r"\Large\frac{1}{2}", True),
        ("5", r"\underline{5}", True),
        ("5", r"\textit{5}", True),
        ("5", r"5\,", True),
        ("5", "5.", True),
        ("5", "{5}", True),
        ("x+1", r"\bm{x+1}", True),
        (r"\text{Evelyn}", "**Evelyn**", True),
        ("5", r"\underline{\mathbf{5}}", True),
        ("5", r"5\!", True),
        ("5", r"\$5\$", True),
        (r"\frac{3}{4}", r"\mathrm{\frac{3}{4}}", True),
        ("5", "=5", True),
        ("5", '"5"', True),
        ("5", r"\left(5\right)", True),
    ],
    "equations": [
        ("x+y=3", "3", False),
        ("xy=6", "6", False),
        ("x^2+y^2=1", "1", False),
        ("x=1, y=2", "1, 2", True),
        ("x=1, y=2", "x=2, y=1", False),
        ("x=1,y=2", "(x,y)=(1,2)", True),
        ("(x,y)=(1,2)", r"x=1 \text{ and } y=2", True),
        ("(1,2)", "x=1, y=2", True),
        ("(2,1)", "x=1, y=2", False),
        (r"x=2 \text{ or } x=3", "2, 3", True),
        (r"x=2 \text{ or } x=3", "x=3, x=2", True),
        ("x=2 or x=3", "x=2", False),
        ("AB=5", "5", True),
        ("f(x)=2x+1", "2x+1", True),
        ("y=2x+1", "2x+1", True),
        ("5", "x=5", True),
        ("x=5", "5", True),
        ("x=5", "y=5", False),
        ("a=1, b=2, c=3", "(1,3,2)", False),
        ("a=1, b=2, c=3", "(1,2,3)", True),
        ("x = 1; y = 2", "y = 2; x = 1", True),
        ("y=x+1", "y-x=1", True),
        ("x+y=3, x-y=1", "(3,1)", False),
        ("a+b=5", "a+b=6", False),
        (r"x=\frac12, y=3", "x=0.5, y=3", True),
        (r"m\angle A = 30", "30", True),
        ("x_1=2, x_2=3", "x_1=2, x_2=3", True),
        ("P(x)=x^2", "x^2", True),
        ("g(4)=7", "7", True),
        ("7", "g(4)=7", True),
        ("g(4)=7", "g(6)=7", False),
        ("g(4)=7", "h(4)=7", False),
        ("h'(-1)=3", "h'(-2)=3", False),
        (r"y=\sqrt{\frac{1}{x}}", r"y=\frac{1}{\sqrt{x}}", True),
        ("y=on", "y=no", False),
    ],
    "times and ratios": [
        ("3:4", "6:8", True),
        ("3:4", "4:3", False),
        ("3:4", "3/4", True),
        ("3:4", "3 : 4", True),
        ("2:30", r"2:30 \text{ PM}", True),
        ("2:30 PM", "14:30", True),
        ("2:30 PM", "2:30 AM", False),
        ("2:30 PM", "2:30", True),
        ("10:30", "30", False),
        ("10:30", "10", False),
        ("30", "10:30", False),
        ("1:2:3", "2:4:6", True),
        ("1:2:3", "1:3:2", False),
        ("2 PM", "2:00 p.m.", True),
        ("12:00", "0:00", False),
        ("12:00 AM", "0:00", True),
        (r"8:34 \text{ p.m.}", r"8\!:\!34 \text{ p.m.}", True),
        ("5{:}30", "5:30", True),
        ("5:45 AM", r"5:45\,\text{AM}", True),
        ("3:4", r"3\text{ to }4", True),
        ("4 to 3", "3:4", False),
        ("3:4", r"3\colon 4", True),
    ],
    "percentages": [
        ("37.5", r"37.5\%", True),
        ("37.5", "0.375%", False),
        ("-4", r"-4\%", True),
        ("0.375", "37.5 %", True),
        (r"37.5\%", "3/8", True),
        (r"37.5\%", r"0.375\%", False),
        (r"16\frac{2}{3}\%", r"16\frac23", True),
        ("37.5", "0.375", False),
    ],
    "shorthand": [
        ("7", r"\approx 7", True),
        ("7", "7,", True),
        ("7", r"7\,", True),
        ("7.25", "7{,}25", True),
        ("4500.25", "4 500,25", True),
        ("7250", "7{,}250", True),
        (r"\frac{\pi}{6}", r"\frac\pi6", True),
        (r"\frac{\alpha}{\beta}", r"\frac\alpha\beta", True),
        (r"\sqrt{\frac{3}{\pi}}", r"\frac{\sqrt3}{\sqrt\pi}", True),
        (r"\mathbb{R}", "ℝ", True),  # noqa: RUF001
        (r"\lfloor y \rfloor", "⌊y⌋", True),
    ],
    "roots": [
        (r"\frac{1}{\sqrt{x}}", r"\sqrt{\frac{1}{x}}", True),
        ("x", r"\sqrt{x^2}", False),
        ("|x|", r"\sqrt{x^2}", True),
        ("x^{3/2}", r"x\sqrt{x}", True),
        (r"\sqrt{n}", r"\sqrt{n+1}", False),
    ],
    "collections": [
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", True),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}", False),
        ("2<x<3", "3>x>2", True),
        ("x>2", "2<x", True),
        (r"x\ge 2", "x > 2", False),
        ("x>=2", r"x\geq 2", True),
        ("1,2,3", "3,2,1", True),
        ("1,2,3", "1,2", False),
        ("(1,2),(3,4)", "(3,4),(1,2)", True),
        (r"\text{no solution}", "No solution", True),
        (r"\emptyset", "∅", True),
        (r"50\%", "0.5", True),
        ("50", "0.5", False),
        ("0.5", "50%", True),
        ("12 percent", r"12\%", True),
    ],
}


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [pytest.param(*pair, id=f"{kind}-{pair}") for kind, pairs in PAIRS.items() for pair in pairs],
)
def test_verdict(monkeypatch, reference, answer, right):
    monkeypatch.setattr(equivalence, "CPU_SECONDS", 5)  # on a busy machine
    assert is_correct(rf"So it is $\boxed{{{answer}}}$.", reference) is right


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("1.5e-7", "2.5e-7", False),
        ("no", "on", False),
        ("10:30", "10:30 a.m.", True),
        ("3:5", "6:10", True),
        ("3.5", "3 1/2", True),
        ("4, 6, 8", "8, 6, and 4", True),
        ("x=1, y=2", "(2, 1)", False),
        ("x=1, y=2", "y=2, x=1", True),
        ("u+v=4", "4", False),
        ("7", r"7 \text{ apples}", True),
    ],
)
def test_rules_alone_decide(reference, answer, right, monkeypatch):
    monkeypatch.setattr(equivalence, "_POOL", None)
    assert equivalence.equivalent([(answer, reference)]) == [right]


def test_the_judge_is_asked_for_the_parts_of_an_answer():
    asked = []

    def judge(answer, reference):
        asked.append((answer, reference))
        return answer == reference[::-1]

    assert decide("b = a+1, c=2", "c=2, b=1+a", judge)
    assert asked == [("a+1", "1+a")]
    assert decide("b = a+1, c=2", "c=2, b=1+a") is None
    assert decide("b = a+1, c=3", "c=2, b=1+a") is False  # whatever the judge would say


@pytest.mark.parametrize(
    "answer", ["5", "1 1/2", "10:30", "3:4", "north", r"\text{A and B}", "(C)"]
)
def test_plain_answers(answer):
    assert is_plain(answer)


@pytest.mark.parametrize("answer", ["", "x+1", r"\frac{x}{2}", "1, 2", "x = 5", "1 +"])
def test_other_answers(answer):
    assert not is_plain(answer)


@pytest.mark.parametrize(
    "answer", ["(" * 1990, "a=" * 990, "1," * 990, "x=1," * 490, r"\{" * 900, "5 and " * 300]
)
def test_rules_end_in_time(answer):
    assert decide(answer, "x=1, y=2", lambda *_: False) is False
