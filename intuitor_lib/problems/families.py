"""Families of short problems, for asking where a method works: `dataset="family:differences"`.

Each draws a question and its answer. No answer is a number of its question. How to answer (the
number only, say) is left to the recipe's `prompt_template`.
"""

import datetime
from collections.abc import Callable, Mapping
from random import Random

from ..recipe.constants import read_yaml

Drawn = tuple[str, str]
"""A question and its answer."""

_LISTS = read_yaml(__file__, "families.yaml")
WORDS, MONTHS, _ONES, _TENS = (_LISTS[name] for name in ("words", "months", "ones", "tens"))


def in_words(n: int) -> str:
    """A number from 0 to 999 in words."""
    if n >= 100:
        rest = f" and {in_words(n % 100)}" if n % 100 else ""
        return f"{_ONES[n // 100]} hundred{rest}"
    if n < 20:
        return _ONES[n]
    return _TENS[n // 10 - 2] + (f"-{_ONES[n % 10]}" if n % 10 else "")


def _sums(draw: Random) -> Drawn:
    a, b = sorted(draw.sample(range(11, 100), 2), reverse=True)  # one order of each
    return f"What is {a} + {b}?", str(a + b)


def _differences(draw: Random) -> Drawn:
    while True:
        a, b = sorted(draw.sample(range(11, 100), 2))
        if b != 2 * a:
            return f"What is {b} - {a}?", str(b - a)


def _decimal_products(draw: Random) -> Drawn:
    a, b = draw.randint(11, 99), draw.randint(2, 9)
    return f"What is {a / 10} * {b}?", str(round(a * b / 10, 1))


def _products_and_sums(draw: Random) -> Drawn:
    a, b, c = draw.randint(2, 9), draw.randint(2, 9), draw.randint(11, 99)
    return f"What is {a} * {b} + {c}?", str(a * b + c)


def _percentages(draw: Random) -> Drawn:
    while True:
        a, b = draw.randrange(5, 100, 5), 20 * draw.randint(2, 49)
        if a != b * a // 100:
            return f"What is {a}% of {b}?", str(a * b // 100)


def _code_sums(draw: Random) -> Drawn:
    a, b = sorted(draw.sample(range(11, 100), 2), reverse=True)
    return f"a = {a}\nb = {b}\nprint(a + b)", str(a + b)


def _numerals(draw: Random) -> Drawn:
    n = draw.randint(101, 999)
    return f"What is {in_words(n)} in digits?", str(n)


def _first_letters(draw: Random) -> Drawn:
    words = draw.sample(WORDS, 4)
    letters = ", ".join(word[0] for word in words)
    return f"What are the first letters of the words {', '.join(words)}?", letters


def _reversed_words(draw: Random) -> Drawn:
    words = draw.sample(WORDS, 4)
    return f"Write the words {', '.join(words)} in reverse order.", ", ".join(reversed(words))


def _date(draw: Random) -> datetime.date:
    first = datetime.date(1950, 1, 1)
    return first + datetime.timedelta(days=draw.randrange(81 * 365))


def _dates(draw: Random) -> Drawn:
    day = _date(draw)
    written = f"{MONTHS[day.month - 1]} {day.day}, {day.year}"
    return f"Write the date {written} as DD.MM.YYYY.", day.strftime("%d.%m.%Y")


def _next_days(draw: Random) -> Drawn:
    day = _date(draw)
    return f"Which date is one day after {day}?", str(day + datetime.timedelta(days=1))


FAMILIES: Mapping[str, Callable[[Random], Drawn]] = {
    "sums": _sums,
    "differences": _differences,
    "decimal-products": _decimal_products,
    "products-and-sums": _products_and_sums,
    "percentages": _percentages,
    "code-sums": _code_sums,
    "numerals": _numerals,
    "first-letters": _first_letters,
    "reversed-words": _reversed_words,
    "dates": _dates,
    "next-days": _next_days,
}
"""What draws a problem of each family."""
