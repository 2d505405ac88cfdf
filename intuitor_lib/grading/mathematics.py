"""Mathematics by math-verify, as a worker runs it: it may take for ever, and any memory.

It reads and compares what it can; the rules around it are in `rules`.
"""

import dataclasses
import re
from functools import lru_cache
from typing import Any

import sympy
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from .extraction import last_number_of, whole_numeral
from .notation import as_latex, normalized
from .rules import is_plain

# Units are removed before; math-verify takes the variable t and \mathrm{e} for some.
_READING = dataclasses.replace(LatexExtractionConfig().normalization_config, units=False)
_PERCENT = re.compile(r"\s*\$?\s*(?:\\?%|[Pp]er\s?cent|[Pp]ct)")
# math-verify reads a whole number next to a number as a mixed number, that is as a sum: 2(3) as 5,
# "5 7" as 12.
_PRODUCT = re.compile(r"((?<![0-9._^])[0-9]+|\))\s*(?=(?:\\left\s*)?\()|(\))\s*(?=[0-9])")
_LISTED = re.compile(
    r"(?<![a-z^_][0-9])(?<![a-z] [0-9])(?<=[0-9])(?:\s|\\[;:, ]|\\q?quad)+(?=[0-9])"
)


def readable(answer: str) -> bool:
    """Whether math-verify reads and evaluates an answer."""
    parsed = _parsed(answer)
    # Comparing evaluates the answer, so one that takes for ever fails here, not at each comparison.
    verify(_parsed("0"), parsed, timeout_seconds=None)
    return _is_read(answer)


def _is_read(answer: str) -> bool:
    return any(not isinstance(expression, str) for expression in _parsed(answer))


def stated(text: str) -> str | None:
    r"""The answer that math-verify finds in a text, as lighteval calls it."""
    latex = LatexExtractionConfig(boxed_match_priority=0, normalization_config=_READING)
    configs = [latex, ExprExtractionConfig()]
    *read, answer = parse(text, configs, parsing_timeout=None) or [None]
    if not isinstance(answer, str):
        return last_number_of(text)
    # The text is that of the first try, also where a later one was read.
    if read and isinstance(read[0], sympy.Number) and not (is_plain(answer) or _is_read(answer)):
        answer = str(read[0])
    answer = whole_numeral(text, answer)
    answer = answer if answer.count("{") == answer.count("}") else answer.strip("{}")
    # Its text leaves out the percent sign that it has read.
    return rf"{answer}\%" if _PERCENT.match(text.rpartition(answer)[2]) else answer


def same(answer: str, reference: str) -> bool:
    """math-verify's verdict, without its own time limit, and its two faults mended.

    It compares to an absolute precision, and takes every variable for a possible negative or
    complex number, so that sqrt(1/n) is not 1/sqrt(n).
    """
    given, expected = _parsed(answer), _parsed(reference)
    # Where it cannot parse an answer, math-verify returns a text with parts left out.
    if any(not side or isinstance(side[0], str) for side in (given, expected)):
        return _latex(answer).replace(" ", "") == _latex(reference).replace(" ", "")
    same = verify(expected, given, timeout_seconds=None)
    try:
        check = _same_size if same else _same_where_real
        return check(given[0], expected[0])
    except Exception:  # sympy raises any of them for odd expressions
        return same


@lru_cache(maxsize=512)  # parsing takes most of the time, and references repeat
def _parsed(answer: str) -> list[Any]:
    """math-verify's expression, if it can parse the answer, and the answer's text."""
    # Only LaTeX, and only as a whole: other settings would pick a number out of unreadable text.
    config = LatexExtractionConfig(try_extract_without_anchor=False, normalization_config=_READING)
    return list(parse(f"\\boxed{{{_latex(answer)}}}", [config], parsing_timeout=None))


def _latex(answer: str) -> str:
    return _LISTED.sub(", ", _PRODUCT.sub(r"\1\2\\cdot ", as_latex(normalized(answer))))


def _same_size(given: Any, expected: Any) -> bool:
    """Whether values that math-verify takes for equal also agree relative to their size."""
    if isinstance(given, sympy.Rel) and isinstance(expected, sympy.Rel):
        return given.lhs != expected.lhs or _same_size(given.rhs, expected.rhs)
    items = (_elements(given), _elements(expected))
    if items[0] and items[1]:
        return len(items[0]) != len(items[1]) or all(map(_same_size, *items))
    values = (given, expected)
    if any(value.has(sympy.UnevaluatedExpr) or not value.is_number for value in values):
        return True  # a percentage may be written without its sign; variables have no size
    given, expected = (value.doit() for value in values)
    if given.is_Rational and expected.is_Rational:
        return bool(given == expected)
    digits = 6 if any(value.has(sympy.Float) for value in values) else 50
    given, expected = (sympy.N(value, 60) for value in (given, expected))
    size = max(abs(given), abs(expected))
    return bool(abs(given - expected) <= size * sympy.Integer(10) ** -digits)


def _elements(value: Any) -> list[Any]:
    """The elements of a tuple, matrix or set and the ends of an interval; of others none."""
    if isinstance(value, sympy.MatrixBase):
        return list(value.flat())
    if isinstance(value, sympy.Interval):  # (1, 2) is read as one
        return [value.start, value.end]
    if isinstance(value, sympy.FiniteSet):
        return sorted(value.args, key=sympy.default_sort_key)
    return list(value.args) if isinstance(value, sympy.Tuple) else []


def _same_where_real(given: Any, expected: Any) -> bool:
    """Whether two expressions with a root are equal wherever either of them is real."""
    values = (given, expected)
    if not all(isinstance(value, sympy.Expr) for value in values):
        return False
    symbols = sorted(given.free_symbols | expected.free_symbols, key=str)
    if not symbols or given.free_symbols != expected.free_symbols:
        return False
    exponents = [power.exp for value in values for power in value.atoms(sympy.Pow)]
    if not any(exponent.is_Rational and not exponent.is_Integer for exponent in exponents):
        return False
    positive = {symbol: sympy.Symbol(symbol.name, positive=True) for symbol in symbols}
    if sympy.simplify((given - expected).doit().subs(positive)) != 0:
        return False
    for shift in range(4):  # points with every sign of the first two variables
        point = {
            symbol: sympy.Rational(7 + 4 * i, 3) * (-1 if shift >> (i % 2) & 1 else 1)
            for i, symbol in enumerate(symbols)
        }
        here = [sympy.N(value.doit().subs(point), 30) for value in values]
        real = [abs(sympy.im(value)) < 1e-20 for value in here]
        if any(real) and not (all(real) and abs(here[0] - here[1]) < 1e-20):
            return False
    return True
