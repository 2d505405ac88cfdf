"""Compare answers that are whole texts, such as labels: as texts, not as mathematics."""

import re
import unicodedata
from collections.abc import Hashable
from fractions import Fraction

# What may stand around all of a label: quotation marks, Markdown, LaTeX, brackets around a letter.
_AROUND = re.compile(
    r"\"(.*)\"|'(.*)'|“(.*)”|\u2018(.*)\u2019|«(.*)»|`{1,3}(.*?)`{1,3}|\*{1,2}(.*?)\*{1,2}|\$(.*)\$"
    r"|\\(?:text|mathrm|textbf)\{(.*)\}|\(([A-Za-z])\)",
    re.DOTALL,
)
_NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]*)(?:\.[0-9]+)?")


def label(answer: str | None) -> Hashable | None:
    """What an answer that is a whole text is compared by; None for one without any.

    Its value if it is a decimal number without leading zeros, else its words. Case, spaces, a final
    full stop, and what may stand around all of it (quotation marks, Markdown, ``\\text{}``) do not
    count. To mathematics "cab" is "abc", and 2024-05-01 is 2018.
    """
    text, before = unicodedata.normalize("NFC", answer or ""), None
    while text != before:
        before, text = text, text.strip()
        text = text if text.endswith("..") else text.removesuffix(".")
        around = _AROUND.fullmatch(text)
        text = next(part for part in around.groups() if part is not None) if around else text
    if _NUMBER.fullmatch(bare := text.replace("\N{MINUS SIGN}", "-")):
        return Fraction(bare.replace(",", ""))
    return " ".join(text.casefold().split()) or None
