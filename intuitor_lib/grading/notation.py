r"""Bring an answer into one notation before it is compared.

`normalized` removes what does not count (typography, dollar signs, labels, units) and writes
Unicode mathematics in LaTeX; `as_latex` writes plain notation (``2*pi*r``, ``exp(16)``, ``1e-5``)
so that math-verify reads it.
"""

import re
import unicodedata
from functools import lru_cache
from pathlib import Path

import yaml

from .numerals import spelled_for_latex

_TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_CONTENT = r"([^{}]*(?:\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}[^{}]*)*)"
_BRACED = re.compile(rf"\{{{_CONTENT}\}}")
_THOUSANDS = re.compile(r"(?<=[0-9])(?:,\\!\s*|\{,\}|\\,)(?=[0-9]{3}(?![0-9]))")
_ESCAPED_TWICE = re.compile(
    r"(?<!\\)\\\\(?=(?:left|right|[dt]?frac|sqrt|text|pi|cdot|times|infty|cup|in|le|ge)(?![a-z]))"
)
_PLAIN = re.compile(r"[-+0-9./]+")


@lru_cache(maxsize=4096)
def normalized(answer: str) -> str:
    """The answer without typography, currency, label and unit, in ASCII where LaTeX has a way."""
    if not _PLAIN.fullmatch(answer):
        answer = _ESCAPED_TWICE.sub(r"\\", _THOUSANDS.sub("", _CURRENCY.sub("", answer)))
        answer = _UNIT_FRACTION.sub("", answer)
        answer = _without_typography(answer if answer.isascii() else in_ascii(answer))
        answer = _without_unit(_without_label(answer))
    return _trimmed(answer)


def without_text(answer: str) -> str:
    r"""The answer with the content of every ``\text{...}`` in its place."""
    return _TEXT.sub(r"\1", answer).strip()


# --- Unicode --------------------------------------------------------------------------------

_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ]+")
_SUBSCRIPT = re.compile("[₀-₎ₐₑₒₓₔₕₖₗₘₙₚₛₜ]+")
_RADICAL = re.compile(r"([√∛])\s*(?:\(([^()]*)\)|([0-9.]+|[A-Za-z]))")
_SYMBOLS = {ord(char): latex for chars, latex in _TABLES["symbols"].items() for char in chars}


def in_ascii(text: str) -> str:
    """Write Unicode mathematics in LaTeX; letters of other languages stay."""
    text = _SUPERSCRIPT.sub(lambda run: f"^{{{unicodedata.normalize('NFKC', run[0])}}}", text)
    text = _SUBSCRIPT.sub(lambda run: f"_{{{unicodedata.normalize('NFKC', run[0])}}}", text)
    text = _RADICAL.sub(_root, text)
    return "".join(map(_character, text.translate(_SYMBOLS))).translate(_SYMBOLS)


def _root(found: re.Match[str]) -> str:
    degree = "" if found[1] == "√" else "[3]"
    return rf"\sqrt{degree}{{{found[2] or found[3]}}}"


def _character(char: str) -> str:
    if char.isascii():
        return char
    if unicodedata.decomposition(char).startswith("<fraction>"):
        top, _, bottom = unicodedata.normalize("NFKC", char).partition("\N{FRACTION SLASH}")
        return rf"\frac{{{top}}}{{{bottom}}}" if bottom else char
    plain = unicodedata.normalize("NFKC", char)  # full-width and bold forms, wide spaces
    if plain.isdecimal():
        return "".join(str(unicodedata.decimal(digit)) for digit in plain)
    words = unicodedata.name(plain, "").split() if len(plain) == 1 else []
    if words[:1] == ["GREEK"] and words[2:3] == ["LETTER"] and len(words) == 4:
        name = "lambda" if words[3] == "LAMDA" else words[3].lower()
        return rf"\{name if words[1] == 'SMALL' else name.capitalize()} "
    return plain


# --- Typography -----------------------------------------------------------------------------

_TEXT = re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}")
_FONT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|sc|md|up|normal)|math(?:bf|it|rm|sf|tt|normal)|boldsymbol|bm|pmb"
    r"|mathrm|mbox|hbox|emph|underline|text)(?![A-Za-z])\s*\{" + _CONTENT + r"\}"
)
_COLOR = re.compile(
    r"\\(?:textcolor|colorbox|color)\s*(?:\[[^\[\]]*\])?\{[^{}]*\}(?:\s*\{" + _CONTENT + r"\})?"
)
_LAYOUT = re.compile(
    r"\\(?:tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge|bf|it|rm"
    r"|bfseries|itshape|rmfamily|normalfont|displaystyle|textstyle|scriptstyle|limits|nolimits"
    r"|strut|centering)(?![A-Za-z])\s*|\\[hv]space\*?\s*\{[^{}]*\}|\\[hv]?phantom\s*\{[^{}]*\}"
    r"|\\!|&nbsp;"
)
_TAG = re.compile(r"<(b|i|u|em|strong|span|code)(?:\s[^<>]*)?>(.*?)</\1>", re.DOTALL)
_QUOTED = re.compile(r"(\*{1,3}|_{2,3}|`{1,3}|\")(?=\S)(.+)\1", re.DOTALL)
_AFTER_NUMBER = re.compile(r"[0-9)](?:\s|~|\\[ ,;:])*$")
_IN_MATH = re.compile(r"\A\\\(((?:(?!\\[()]).)+)\\\)\Z|\A\\\[((?:(?!\\[\[\]]).)+)\\\]\Z", re.DOTALL)
_EDGE = r"(?:\s|~|\\[ ,;:\\]|\\q?quad(?![A-Za-z]))+"
_FINAL_STOP = re.compile(r"[.,;]$")
_EDGES = re.compile(rf"^{_EDGE}|(?<!\\){_EDGE}$|\\$")
_LABEL = re.compile(
    r"(\\text\s*\{)?\s*(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|ans|result|solution)\b\.?"
    r"(?:\s*[:=]|\s+is\b:?)\s*(?=\}?\s*[^\s}])|(?:=|\\approx(?![A-Za-z]))\s*(?=[^=])",
    re.IGNORECASE,
)


def _without_typography(answer: str) -> str:
    if answer[-1:] == "}" or "\\" in answer:
        answer = without_fonts(_LAYOUT.sub("", answer))
    answer = _trimmed(_TAG.sub(r"\2", answer))
    quoted = _QUOTED.fullmatch(answer)
    return _trimmed(quoted[2]) if quoted else answer


def without_fonts(text: str) -> str:
    """The text without commands of fonts and colours, which may nest; words stay as text."""
    for _ in range(4):
        before, text = text, _FONT.sub(_unset, _COLOR.sub(r"\1", text))
        if text == before:
            break
    return text


def _unset(found: re.Match[str]) -> str:
    r"""The content of a font command: words and units stay marked as ``\text``."""
    content = found[1]
    if re.match(r"\s*[-+.]?[0-9]", content) or set(content) & {"\\", "$"}:
        return content
    words = len(re.findall(r"[^\W\d_]", content)) > 1 and not re.search(r"[-+*/^=]", content)
    is_unit = (
        content.isalpha()
        and content not in "eid"
        and _AFTER_NUMBER.search(found.string[: found.start()])
    )
    is_text = words or is_unit or content != content.strip()
    return rf"\text{{{content}}}" if is_text else content


def _without_label(answer: str) -> str:
    """Without "Answer:" before the answer, in text or not."""
    label = _LABEL.match(answer)
    if label is None:
        return answer
    rest = answer[label.end() :]
    return _trimmed(rest.replace("}", "", 1) if label[1] else rest)


def _trimmed(answer: str) -> str:
    """Without space, dollar signs, a final full stop, and braces around the whole."""
    before = None
    while answer != before:
        before = answer
        answer = _EDGES.sub("", answer).strip()
        answer = answer if answer.endswith(("..", "\\,", "\\;")) else _FINAL_STOP.sub("", answer)
        if _BRACED.fullmatch(answer):
            answer = answer[1:-1]
        answer = _IN_MATH.sub(lambda found: found[1] or found[2], answer)
    return answer


# --- Units ----------------------------------------------------------------------------------

_SPACING = r"(?:\s|~|\\[ ,;:]|\\q?quad(?![A-Za-z]))*"
_TO_A_POWER = r"(?:\s?\^\s?(?:\{-?[1-9]\}|-?[1-9]))?"
_CURRENCY = re.compile(
    r"\\?\$|[€£¥₹₽₩₪₫฿₺₴₦₱¢]|\\(?:pounds|euro|yen|cent)(?![A-Za-z])"
    r"|\b(?:US|CA?|AU?|HK|NZ)(?=\\?\$)|\b(?:USD|EUR|GBP|JPY|CNY|INR|Rs\.?)\s?(?=[0-9])"
)
_DEGREES = re.compile(
    r"(?<=[0-9.})])\s?(?:\^\s?(?:\\circ|\{\s?\\circ\s?\})|\\degree)\s?(?:\\text\s?\{\s?[CFK]\s?\}|[CFK])?$"
)
_UNIT_FRACTION = re.compile(
    rf"(?<=[0-9.}})]){_SPACING}\\[dt]?frac\s?(?:\{{\\(?:text|mathrm)\s?\{{[^{{}}0-9]*\}}\}}\s?){{2}}$"
)
_LAST_WORD = re.compile(
    r"(?P<before>\s?/\s?|[\s~-]|\\[ ,;:]|\\cdot|.?)"
    r"(?:\\text\s?\{(?P<words>[A-Za-z., /~-]*)\}|(?<![A-Za-z\\])(?P<word>[A-Za-z][A-Za-z.]*))"
    rf"{_TO_A_POWER}$",
    re.DOTALL,
)
_NUMBER_END = re.compile(r"(?:[0-9)}%]|[0-9]\.|\\pi)$")
_LETTER_UNIT = re.compile(
    rf"(?<=[0-9])(?:{_SPACING}[mgshlLVWNJ]|\s[ACFK]){_TO_A_POWER}(?:/[a-z]{{1,4}}{_TO_A_POWER})?$"
)
_UNITS = frozenset(_TABLES["units"].split())
_NO_UNITS = frozenset(_TABLES["not units"].split())
_POWERS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_NAMED_POWER = re.compile(
    rf"([0-9]){_SPACING}(\\text\s?\{{\s?)?({'|'.join(_POWERS)})s?(?![A-Za-z])", re.IGNORECASE
)
_WORDS_IN_ORDER = frozenset(_TABLES["words in order"].split())
_PERCENT = re.compile(rf"(?<=[0-9]){_SPACING}(?:\\text\s?\{{\s?)?per\s?cent(?![A-Za-z])\s?\}}?")


def is_product(letters: str) -> bool:
    """Whether letters are a product of variables, which is written in alphabetical order."""
    in_order = letters == "".join(sorted(letters)) and letters.islower()
    return in_order and not set(letters) & set("eilo") and letters not in _WORDS_IN_ORDER


def _without_unit(answer: str) -> str:
    """Without the unit behind a number or a closing bracket; percent and millions are none."""
    answer = _DEGREES.sub("", answer)
    answer = _PERCENT.sub(r"\\%", _NAMED_POWER.sub(_named_power, answer))
    rest, divided = answer, False
    while word := _LAST_WORD.search(rest):
        if not _is_unit(word, divided):
            return answer
        divided = word["before"].strip() == "/"
        rest = rest[: word.start()] + word["before"].strip("/~-\\ ,;:")
        rest = _trimmed(rest.rstrip().removesuffix(r"\cdot"))
    return rest if _NUMBER_END.search(rest) else answer


def _is_unit(word: re.Match[str], divided: bool) -> bool:
    if word["words"] is not None:
        names = re.findall("[a-z]+", word["words"].replace(".", "").lower())
        return not _NO_UNITS.intersection(names)
    name = word["word"].replace(".", "")
    if len(name) == 1:  # m/s
        return divided or word["before"].strip() == "/"
    spelled_out = len(name) > 2 and not word["before"].isalnum() and not is_product(name)
    return name in _UNITS or (spelled_out and name.lower() not in _NO_UNITS)


def _named_power(found: re.Match[str]) -> str:
    return f"{found[1]}e{_POWERS[found[3].lower()]}" + (r"\text{" if found[2] else "")


def without_letter_unit(answer: str) -> str:
    """Without a unit of one letter, as in "10 m^2": no variable where a number is asked for."""
    return _LETTER_UNIT.sub("", answer)


# --- Plain notation -------------------------------------------------------------------------

_GREEK = "|".join(_TABLES["greek"].split())
_FUNCTIONS = "(?:arc)?(?:sin|cos|tan|cot|sec|csc)|sinh|cosh|tanh|exp|log|ln|gcd|pi"
_NAME = re.compile(rf"(?<![A-Za-z\\])(?:{_FUNCTIONS}|{_GREEK})(?![A-Za-z])")
# math-verify cannot read \frac\pi4 and \sqrt\pi.
_BARE_ARGUMENT = re.compile(
    rf"(\\(?:[dtc]?frac\s?(?:\{{{_CONTENT}\}}|[0-9])?|sqrt))\s?(\\(?:pi|{_GREEK}))(?![A-Za-z])"
)
_PLAIN_LATEX = (
    (re.compile(r"(?<![A-Za-z\\])(?:oo|inf|infinity)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"(?<![A-Za-z\\])[aA]bs\(([^()]*)\)"), r"|\1|"),
    (re.compile(r"(?<![A-Za-z\\])a(?=(?:sin|cos|tan)\()"), "arc"),
    (re.compile(r"(?<![A-Za-z\\])sqrt\s?([0-9]+)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<=[0-9)]\*)I(?![A-Za-z0-9])"), "i"),  # as sympy prints it
    (_BARE_ARGUMENT, r"\1{\3}"),
    (_BARE_ARGUMENT, r"\1{\3}"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\^\s*(-\s*(?:[0-9.]+|\\?[A-Za-z]+))"), r"^{\1}"),
    (re.compile(r"(?<![\w.)}/^])([0-9]+)/([0-9]+)\s*(?=[A-Za-z])"), r"\\frac{\1}{\2}"),
    (re.compile(r"<=|=<"), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"!=|<>"), r"\\ne "),
    (re.compile(r"\+\s*-\s*"), "- "),
    (re.compile(r"-\s+-\s*|(?<=[0-9A-Za-z)}])--"), "+ "),
    (re.compile(r"(?<=[0-9])i\b"), " i"),
)
_DESCENDING = re.compile(r"([^<>=]+)(>=?|\\geq?\b)([^<>=]+)(>=?|\\geq?\b)([^<>=]+)")


def as_latex(answer: str) -> str:
    """Plain notation, of Python and calculators, in LaTeX; `answer` is normalized."""
    pieces = re.split(r"(\\text\s?\{[^{}]*\})", answer)  # words stay as they are
    for i in range(0, len(pieces), 2):
        piece = spelled_for_latex(pieces[i])
        for pattern, latex in _PLAIN_LATEX:
            piece = pattern.sub(latex, piece)
        pieces[i] = _NAME.sub(lambda name: rf"\{name[0]} ", piece)
    chain = _DESCENDING.fullmatch("".join(pieces))
    if chain is None:
        return "".join(pieces)
    high, first, middle, second, low = chain.groups()
    flipped = [r" \le " if "e" in sign or "=" in sign else " < " for sign in (second, first)]
    return low + flipped[0] + middle + flipped[1] + high
