r"""Compare two answers by rules, and ask a judge of mathematics for the rest.

Numbers are compared by their exact values, times and ratios as such, words as words (never as
products of letters), several assignments by their names, and lists of these element by element.
"""

import re
from collections.abc import Callable

from .notation import is_product, normalized, without_letter_unit, without_text
from .numerals import Number, number, ratio, time_of_day

MAX_ANSWER_CHARS = 2_000  # longer ones are no answer to a problem with a short reference answer
MAX_ITEMS = 50  # of a list that is compared without mathematics

Judge = Callable[[str, str], bool]
Parts = list[tuple[str, str]]


def decide(answer: str | None, reference: str, mathematics: Judge | None = None) -> bool | None:
    """Whether an answer is equivalent to its reference; None if that takes a judge not given.

    `mathematics` is asked for normalized answers, at most once for each part of the answer.
    """
    if answer is None or answer == reference:
        return answer == reference
    if max(len(answer), len(reference)) > MAX_ANSWER_CHARS:
        return False
    verdict = _same_amounts(answer, reference)
    if verdict is not None:
        return verdict
    return _decide(normalized(answer), normalized(reference), mathematics)


def is_plain(answer: str) -> bool:
    """Whether an answer is a number, a time, a ratio or words, which need no mathematics."""
    answer = normalized(answer)
    return _is_item(answer) or re.fullmatch(r"\(?[A-Za-z]\)?", answer) is not None


def _decide(answer: str, reference: str, mathematics: Judge | None) -> bool | None:
    if answer == reference:
        return True
    of_one = (_same_words, _same_date, _same_time, _same_number, _same_percentage)
    for rule in (*of_one, _same_assignments, _same_items, _same_base):
        verdict = rule(answer, reference)
        if isinstance(verdict, list):
            found = {_decide(*pair, mathematics) for pair in verdict}
            return False if False in found else None if None in found else True
        if verdict is not None:
            return verdict
    return None if mathematics is None else mathematics(answer, reference)


# --- Words ----------------------------------------------------------------------------------

_LETTERS = re.compile(r"[^\W\d_]+(?:(?: |' ?|(?<=[^\W\d_]{3})-(?=[^\W\d_]{3}))[^\W\d_]+)*")


def _same_words(answer: str, reference: str) -> bool | None:
    given, expected = without_text(answer), without_text(reference)
    if given.casefold() == expected.casefold() and expected != reference:
        return True
    if not _is_words(expected) or not _LETTERS.fullmatch(given):
        return None
    if given.islower() and (is_product(given) or is_product(expected)):
        return None
    return given.casefold() == expected.casefold()


def _is_words(text: str) -> bool:
    return bool(_LETTERS.fullmatch(text)) and min(map(len, text.split())) > 1


# --- Numbers --------------------------------------------------------------------------------

_DATE = re.compile(r"[0-9]{1,4}([-/.])[0-9]{1,2}\1[0-9]{1,4}")
_DECIMAL_COMMA = re.compile(r"([+-]?[0-9 ]*[0-9])(?:,|\{,\})([0-9]+)")
_PERCENT = re.compile(r"(?:\s|\\[ ,])*\\?%$")
_BASED = re.compile(r"[0-9A-Fa-f]+_\{?([0-9]+)\}?")


def _same_date(answer: str, reference: str) -> bool | None:
    """Compare by its parts what is written like a date, which to mathematics is a difference."""
    given, expected = without_text(answer).strip(), without_text(reference).strip()
    if (found := _DATE.fullmatch(expected)) is None:
        return None
    parts = [side.split(found[1]) for side in (given, expected)]
    return all(p.isdigit() for p in parts[0]) and [*map(int, parts[0])] == [*map(int, parts[1])]


def _same_time(answer: str, reference: str) -> bool | None:
    given, expected = (time_of_day(without_text(side)) for side in (answer, reference))
    if given and expected:
        halves = {given[3], expected[3]} - {""}
        at_once = {_in_24_hours(*given), _in_24_hours(*expected)}
        # Where one side leaves out the half of the day, either reading of it counts.
        return len(at_once) == 1 or (
            len(halves) == 1 and given[:3] == expected[:3] and "" in (given[3], expected[3])
        )
    shares, wanted = ratio(answer), ratio(reference)
    if not shares or not wanted:
        return None
    return len(shares) == len(wanted) and all(
        a * wanted[0] == b * shares[0] for a, b in zip(shares, wanted, strict=True)
    )


def _in_24_hours(hour: int, minute: int, second: int, half: str) -> tuple[int, int, int]:
    return (hour % 12 + 12 * (half == "p") if half else hour, minute, second)


def _same_number(answer: str, reference: str) -> bool | None:
    given, expected = number(answer), number(reference)
    if given is None and expected is not None:
        given = number(without_letter_unit(answer)) or _with_comma(answer, expected)
    if expected is None and given is not None:
        expected = _with_comma(reference, given)
    return None if given is None or expected is None else _equal(given, expected)


def _with_comma(text: str, other: Number) -> Number | None:
    """Read a decimal comma where the other side is a decimal; elsewhere "1,5" is a list."""
    is_decimal = not other.is_fraction and other.value.denominator > 1
    found = _DECIMAL_COMMA.fullmatch(text) if is_decimal else None
    return number(f"{found[1]}.{found[2]}") if found else None


def _same_percentage(answer: str, reference: str) -> bool | None:
    """Compare percentages; where one side has no sign, 50% is 50 and 0.5."""
    bare = [_PERCENT.sub("", side) for side in (answer, reference)]
    given, expected = map(number, bare)
    if given is None or expected is None or bare == [answer, reference]:
        return None
    if _equal(given, expected) or (bare[0] != answer and bare[1] != reference):
        return _equal(given, expected)
    if bare[0] != answer:
        given = given._replace(value=given.value / 100)
    else:
        expected = expected._replace(value=expected.value / 100)
    return _equal(given, expected)


def _equal(given: Number, expected: Number) -> bool:
    if expected.value.denominator == 1 or given.is_fraction == expected.is_fraction:
        return given.value == expected.value
    most = max(abs(given.value), abs(expected.value))
    return abs(given.value - expected.value) * 10**6 <= most


def _same_base(answer: str, reference: str) -> bool | None:
    bases = {base[1] for base in map(_BASED.fullmatch, (answer, reference)) if base}
    return False if len(bases) == 2 else None


# --- Lists and assignments ------------------------------------------------------------------

_CONJUNCTION = re.compile(r"(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_BETWEEN = re.compile(r"\\text\s?\{\s*(?:and|or),?\s*\}|;|\\q?quad(?![A-Za-z])|\\(?:land|lor)\b")
_GROUP_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_AMOUNT = re.compile(r"([0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)\s*([A-Za-z]+)")
_AMOUNTS = re.compile(rf"{_AMOUNT.pattern}(?:\s*(?:[,;&]|,?\s*and\b)?\s*{_AMOUNT.pattern})+")
_BRACKET = re.compile(r"\\?[()\[\]{}]|,")
# Brackets around the whole of a text.
_ROUND = re.compile(r"\A(?:\\left)?\((.*?)(?:\\right)?\)\Z", re.DOTALL)
_BRACED = re.compile(r"\A(?:\\left)?\\\{(.*?)(?:\\right)?\\\}\Z", re.DOTALL)
_NAME = r"\\?[A-Za-z]+'*(?:_(?:\{\w+\}|\w))?(?:\(-?[A-Za-z0-9]+\))?"
_ASSIGNMENT = re.compile(rf"({_NAME}|\({_NAME}(?:,\s*{_NAME})+\))\s*=\s*([^=<>]+)", re.DOTALL)
_VALUE_AT = re.compile(r"\(-?[0-9]+\)$")  # math-verify takes f(2)=5 and f(3)=5 for the same
_RELATION = re.compile(r"[=<>]|\\(?:[lg]e?q?|neq?|in|approx)(?![A-Za-z])")


def _items(text: str) -> list[str]:
    """The elements of a list, split at commas, semicolons, "and" and "or" outside of brackets."""
    text = _BETWEEN.sub(",", text)
    text = _CONJUNCTION.sub(",", text) if " " in text else text
    text = _GROUP_COMMA.sub("", text) if ", " in text else text
    items, start, depth = [], 0, 0
    for sign in _BRACKET.finditer(text):
        if sign[0][-1] in "([{":
            depth += 1
        elif sign[0] != ",":
            depth -= 1
        elif depth == 0 and text[sign.end() : sign.end() + 1] != "\\!":
            items.append(text[start : sign.start()])
            start = sign.end()
    return [normalized(item) for item in [*items, text[start:]] if item.strip()]


def _is_item(text: str) -> bool:
    plain = without_text(text)
    read = number(text), ratio(text), time_of_day(plain)
    return any(read) or _is_words(plain) or plain not in ("", text)


def _same_items(answer: str, reference: str) -> bool | Parts | None:
    """Compare lists of plain items: tuples in order, others as sets."""
    in_order = _ROUND.match(reference) is not None
    if in_order != (_ROUND.match(answer) is not None):
        return None
    brackets = _ROUND if in_order else _BRACED
    items, wanted = (_items(brackets.sub(r"\1", side)) for side in (answer, reference))
    several = 1 < len(wanted) <= MAX_ITEMS and 1 < len(items) <= MAX_ITEMS
    if not several or not all(map(_is_item, (*items, *wanted))):
        return None
    if in_order:
        return [*zip(items, wanted, strict=True)] if len(items) == len(wanted) else False
    same = [[_decide(item, want, None) for want in wanted] for item in items]
    if any(None in row for row in same):
        return None
    return all(map(any, same)) and all(map(any, zip(*same, strict=True)))


def _same_amounts(answer: str, reference: str) -> bool | None:
    """Compare `12 red and 8 blue` by its words, if both sides have the same ones."""
    given, wanted = (_amounts(without_text(side)) for side in (answer, reference))
    return given == wanted if given and given.keys() == wanted.keys() else None


def _amounts(text: str) -> dict[str, float]:
    """The numbers of several amounts by their words; empty for anything else."""
    if not _AMOUNTS.fullmatch(text.strip().removesuffix(".")):
        return {}
    pairs = [(word.casefold().removesuffix("s"), n) for n, word in _AMOUNT.findall(text)]
    found = {word: float(n.replace(",", "")) for word, n in pairs}
    return found if len(found) == len(pairs) else {}


def _same_assignments(answer: str, reference: str) -> bool | Parts | None:
    """Compare several values by name, and refuse the right-hand side alone of other equations."""
    if "=" not in answer + reference:
        return None
    wanted, given = _assignments(reference), _assignments(answer)
    names = [name for name, _ in wanted]
    if len(wanted) > 1 and len(set(names)) == len(wanted):
        if given:
            values = dict(given)
            if len(given) != len(wanted) or set(values) != set(names):
                return False
            return [(values[name], value) for name, value in wanted]
        if not _RELATION.search(answer):
            items = _items(_ROUND.sub(r"\1", answer))
            in_order = zip(items, (value for _, value in wanted), strict=False)
            return [*in_order] if len(items) == len(wanted) else False
    elif len(wanted) > 1 and len(set(names)) == 1:
        sides = [item.partition("=") for item in _items(answer)]
        if all(_bare(name) == names[0] or not value for name, _, value in sides):
            values_given = ", ".join(value or name for name, _, value in sides)
            return [(values_given, ", ".join(value for _, value in wanted))]
    elif len(wanted) == len(given) == 1:
        (name, value), (name_given, value_given) = wanted[0], given[0]
        if name == name_given:
            return [(value_given, value)]
        return False if _VALUE_AT.search(name) and _VALUE_AT.search(name_given) else None
    elif len(wanted) == 1 and _VALUE_AT.search(names[0]) and not _RELATION.search(answer):
        return [(answer, wanted[0][1])]
    elif not wanted and len(dict(given)) > 1 and (inside := _ROUND.match(reference)):
        by_name = [value for _, value in sorted(given)]
        expected = _items(inside[1])
        return [*zip(by_name, expected, strict=True)] if len(by_name) == len(expected) else False
    elif "=" in reference and not _RELATION.search(answer):
        left = [item.partition("=")[0] for item in _items(reference) if "=" in item]
        return False if any(map(_has_several_unknowns, left)) else None
    return None


def _assignments(text: str) -> list[tuple[str, str]]:
    """Name and value of each assignment in a text that is nothing else; a tuple is several."""
    found: list[tuple[str, str]] = []
    for item in _items(text):
        assignment = _ASSIGNMENT.fullmatch(item)
        if assignment is None:
            return []
        name, value = assignment[1], assignment[2].strip()
        if not name.startswith("("):
            found.append((_bare(name), value))
            continue
        names, inside = _items(name[1:-1]), _ROUND.match(value)
        values = _items(inside[1]) if inside else []
        if len(names) != len(values):
            return []
        found += zip(map(_bare, names), values, strict=True)
    return found


def _bare(name: str) -> str:
    return re.sub(r"[\\{}\s]", "", name)


def _has_several_unknowns(side: str) -> bool:
    """Whether a left-hand side is like ``x+z`` or ``xy``, not a name: ``f(x)``, ``AB``, ``x_1``."""
    side = re.sub(r"[A-Za-z]\w*'*\([^()]*\)|\\text\s?\{[^{}]*\}|_(?:\{[^{}]*\}|\w)", "F", side)
    unknowns = re.findall(r"(?<![A-Za-z\\])[a-z]+(?![A-Za-z])", side)
    letters = "".join(word for word in unknowns if len(word) < 4)
    operators = re.search(r"[-+*/^]|\\(?:cdot|times|frac)", side)
    return len(set(letters)) > 1 and (
        bool(operators) or any(len(word) in (2, 3) for word in unknowns)
    )
