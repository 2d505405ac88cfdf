r"""Numbers as people and models write them, in plain text and in LaTeX, with their exact values.

Digit groups (``1,234``, ``1 234``, ``1{,}234``, ``1.234.567``), decimals, fractions, mixed numbers
(``1 1/2``), powers of ten (``1.5e3``, ``1.5 \times 10^3``), times of day and ratios.
"""

import re
from fractions import Fraction
from typing import NamedTuple

MAX_CHARS = 40

_COMMA = r"(?:,\\!\s*|\{,\}|\\,|,|')"  # between thousands, as in 1,234 or LaTeX's 1{,}234
_SPACE = r"(?: |~|\\[;: ]|\\text\{ \})"
_GROUPED = (
    rf"(?:[1-9][0-9]{{0,2}}(?:{_COMMA}[0-9]{{3}})+|[1-9][0-9]{{0,2}}(?:{_SPACE}[0-9]{{3}})+"
    r"|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3})(?![0-9])"
)
# With points between thousands: unambiguous with two of them, or with a decimal comma.
_POINTED = r"[1-9][0-9]{0,2}(?:(?:\.[0-9]{3})+,[0-9]+|(?:\.[0-9]{3}){2,})(?![0-9.])"
_DECIMAL = rf"(?:{_POINTED}|(?:{_GROUPED}|[0-9]+)(?:\.[0-9]+)?|(?<![A-Za-z0-9_.])\.[0-9]+)"
_POWER_OF_TEN = (
    r"(?:[eE][+-]?[0-9]{1,4}(?![0-9A-Za-z])"
    r"|\s?(?:\\times|\\cdot|[*x×])\s{0,2}10\s?(?:\^|\*\*)\s?"
    r"(?:\{\s?[+-]?[0-9]{1,4}\s?\}|[+-]?[0-9]{1,4}(?![0-9])))"
)
_FRACTION = (
    r"(?:\\[dtc]?frac\s?(?:\{\s?[+-]?[0-9]+\s?\}\s?\{\s?0*[1-9][0-9]*\s?\}|[0-9][1-9])"
    r"|[0-9]+ ?/ ?0*[1-9][0-9]*(?!\.?[0-9]))"
)
_MIXED = rf"(?:(?:{_GROUPED}|[0-9]+)(?:{_SPACE}?(?=\\)|{_SPACE})(?={_FRACTION}))"  # its whole part
_CLOCK = r"[0-9]{1,2}(?:(?:\{:\}|:)[0-5][0-9]){1,2}"
_MERIDIEM = r"(?:\s|~|\\[ ,;:])*(?:[aApP]\.?\s?[mM]\b\.?)"
_COLON = r"(?:\{:\}|:| : )"
_ARGUMENT = r"(?:\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}|[0-9])"
_ROOT = rf"(?:\\sqrt\s?{_ARGUMENT}|√[0-9]+|sqrt\([^()]*\))"
_POWER_WORD = r"(?: (?:hundred|thousand|million|billion|trillion)(?![A-Za-z-]))"
_PI = r"(?:\\?pi\b|π)"
_DIVIDED = r"(?:\s?/\s?[0-9]+)"

NUMERAL = re.compile(
    rf"(?<![A-Za-z0-9_^])(?<!\^\{{)(?:{_MIXED}?{_FRACTION}|{_CLOCK}{_MERIDIEM}"
    # What makes a decimal another number: a power, a ratio, a decimal comma, pi, a root
    # or a million.
    rf"|{_DECIMAL}(?:{_POWER_OF_TEN}|(?:{_COLON}{_DECIMAL})+|(?:,[0-9]+)+"
    rf"|(?:\^|\*\*)(?:\{{[+-]?[0-9]+\}}|[+-]?[0-9]+)|\s?\*?\s?(?:{_PI}|{_ROOT}){_DIVIDED}?"
    rf"|{_POWER_WORD})?"
    rf"|{_ROOT}{_DIVIDED}?|{_PI}{_DIVIDED}|\\[dtc]?frac\s?{_ARGUMENT}\s?{_ARGUMENT})"
)
r"""A number in a text with all that belongs to it: of ``1 1/2``, ``10:30``, ``2\sqrt{5}`` all."""


class Number(NamedTuple):
    """An exact value, and whether it is written as a fraction: the other way is as a decimal."""

    value: Fraction
    is_fraction: bool


_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:(?P<whole>{_MIXED})?(?P<fraction>{_FRACTION})"
    rf"|(?P<decimal>{_DECIMAL}|[0-9]+\.)(?P<power>{_POWER_OF_TEN})?)"
)
_INTEGERS = re.compile(r"[+-]?[0-9]+")
_SEPARATOR = re.compile(f"{_COMMA}|{_SPACE}")
_TIME = re.compile(
    rf"(?:(?P<clock>{_CLOCK})(?P<half>{_MERIDIEM})?|(?P<hour>[0-9]{{1,2}})(?P<of>{_MERIDIEM}))"
)
_COLONS = r"(?:\s?(?:\{:\}|:|\\colon\b)\s?| to |\\text\{ ?to ?\})"
_RATIO = re.compile(rf"{_DECIMAL}(?:{_COLONS}{_DECIMAL})+")


def number(text: str) -> Number | None:
    r"""The number that the whole text is, or None: ``1 1/2``, ``-\frac{3}{4}``, ``1.5e3``.

    The fraction of a mixed number must be proper: ``11 7/6`` is none.
    """
    found = _NUMBER.fullmatch(text) if len(text) <= MAX_CHARS else None
    if found is None:
        return None
    sign = -1 if found["sign"] == "-" else 1
    if found["fraction"] is None:
        value = Fraction(_ungrouped(found["decimal"]))
        if found["power"]:
            value *= Fraction(10) ** int(_INTEGERS.findall(found["power"])[-1])
        return Number(sign * value, False)
    top, bottom = _top_and_bottom(found["fraction"])
    whole = int(_SEPARATOR.sub("", found["whole"])) if found["whole"] else None
    if whole is not None and not 0 <= top < bottom:
        return None
    return Number(sign * (Fraction(top, bottom) + (whole or 0)), True)


def _top_and_bottom(fraction: str) -> tuple[int, int]:
    parts = _INTEGERS.findall(fraction)
    top, bottom = parts if len(parts) == 2 else parts[0]  # \\frac12 is written without braces
    return int(top), int(bottom)


def _ungrouped(text: str) -> str:
    """A decimal without what stands between its thousands."""
    if re.fullmatch(_POINTED, text):
        return text.replace(".", "").replace(",", ".")
    return _SEPARATOR.sub("", text)


def ratio(text: str) -> list[Fraction] | None:
    """The terms of a ratio such as ``3:4`` or ``1 : 2 : 3``, or None."""
    if len(text) > MAX_CHARS or not _RATIO.fullmatch(text):
        return None
    return [Fraction(_ungrouped(term)) for term in re.split(_COLONS, text)]


def time_of_day(text: str) -> tuple[int, int, int, str] | None:
    """Hour, minute, second and "a", "p" or "" of a time such as ``2:30 p.m.``, or None."""
    found = _TIME.fullmatch(text) if len(text) <= MAX_CHARS else None
    if found is None:
        return None
    half = (found["half"] or found["of"] or "").lstrip("~\\ ,;:")[:1].lower()
    hour, minute, second, *_ = [*map(int, _INTEGERS.findall(found["clock"] or found["hour"])), 0, 0]
    return (hour, minute, second, half) if hour <= (12 if half else 24) else None


_IN_LATEX = re.compile(
    rf"(?<![A-Za-z0-9_.])(?:(?P<whole>{_MIXED})(?P<fraction>{_FRACTION})"
    rf"|(?P<mantissa>{_DECIMAL})(?:[eE](?P<exponent>[+-]?[0-9]{{1,4}})(?![0-9A-Za-z]))"
    # Commas alone are left to math-verify: (12,102) is a pair.
    rf"|(?P<grouped>{_POINTED}|[1-9][0-9]{{0,2}}(?:{_SPACE}[0-9]{{3}})+(?![0-9])(?:\.[0-9]+)?))"
)


def spelled_for_latex(text: str) -> str:
    r"""Write the numbers within an expression so that LaTeX reads each as one.

    ``1 1/2`` becomes ``1\frac{1}{2}``, ``2.5e3`` becomes ``2.5 \times 10^{3}``, ``1 000`` 1000.
    """

    def spell(found: re.Match[str]) -> str:
        if found["fraction"]:
            top, bottom = _top_and_bottom(found["fraction"])
            gap = "" if 0 <= top < bottom else ", "  # an improper fraction is another number
            return f"{int(_SEPARATOR.sub('', found['whole']))}{gap}\\frac{{{top}}}{{{bottom}}}"
        if found["mantissa"]:
            return rf"{found['mantissa']} \times 10^{{{int(found['exponent'])}}}"
        return _ungrouped(found["grouped"])

    return _IN_LATEX.sub(spell, text)
