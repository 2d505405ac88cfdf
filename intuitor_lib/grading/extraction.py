"""Find the answer in the text of a completion. Takes time linear in its length; no text raises."""

import re
from collections import deque

from .notation import in_ascii
from .numerals import NUMERAL
from .rules import decide

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BRACES = re.compile(r"\\.|\{+|\}+", re.DOTALL)
# A box without braces, as in `\boxed 5`: a number, a command with its arguments, or a letter.
# Anything else is prose about the box ("write it in \boxed format").
_BARE_BOX = re.compile(
    r"[-+]?(?:(?:\\?\$)?[0-9.][0-9.,/]*(?:\\?%)?|\\[A-Za-z]+(?:\{[^{}]*\}|[0-9])*"
    r"|[A-Za-z](?![A-Za-z]))"
)
_LINK_CHARS = 60
_MAX_BOXES = 50  # of one list
# Between boxes that are one list, without space and $: signs on one line, or a comma, "and", "y =".
_SIGNS = re.compile(r"[^A-Za-z0-9.=<>:?!\n]+|")
_LINK = re.compile(
    r"(?:,|;|&|and|or|\([b-h]\)|\(i+v?\)|\\(?:text|mbox)\{(?:and|or),?\}|\\q?quad|\\[,;:])+"
    r"(?:\\?[A-Za-z]{1,8}(?:_\{?\w\}?)?=)?"
)
_WORDS_AND = re.compile(r"[ $]*(?:\\text\s?\{)?[A-Za-z() ,]*(?<= )(?:and|or) ?\}?[ $]*")


def boxed_answer(text: str) -> str | None:
    r"""The content of the last complete ``\boxed{...}`` or ``\fbox{...}``, or None.

    Of nested boxes it is the inner one. Boxes side by side ("\boxed{3} and \boxed{5}") are a list.
    """
    answers: list[str] = []  # the last first
    limit = len(text)
    for box in reversed(list(BOX.finditer(text))):
        start = box.end()
        if text.startswith("{", start):
            close = _closing_brace(text, start, limit)
            if close is None:
                if answers:
                    break
                # An earlier box around this one cannot be closed either. Reading nothing from here
                # on twice keeps the search linear.
                limit = box.start()
                continue
            end = close + 1
            answer = text[start + 1 : close].strip()
        else:
            bare = _BARE_BOX.match(text, start)
            answer = bare.group().rstrip(".,/") if bare else ""
            end = start + len(answer)
        if answers and not (answer and _are_linked(text, end, limit)):
            break
        if answer:
            answers.append(answer)
            limit = box.start()
        if len(answers) == _MAX_BOXES:
            break
    # "15 3/4 or 63/4" is one answer.
    others = [answer for answer in reversed(answers[1:]) if not decide(answer, answers[0])]
    return ", ".join(dict.fromkeys((*others, *answers[:1]))) or None


def _are_linked(text: str, end: int, start: int) -> bool:
    between = text[end:start] if end <= start <= end + _LINK_CHARS else "?"
    if "\n\n" in between:
        return False
    bare = re.sub(r"[\s$]|\\[()]", "", between)
    links = (_SIGNS.fullmatch(between), _LINK.fullmatch(bare), _WORDS_AND.fullmatch(between))
    return any(links)


def _closing_brace(text: str, start: int, limit: int) -> int | None:
    """Position of the brace that closes the one at `start`, if it is before `limit`."""
    depth = 0
    for token in _BRACES.finditer(text, start, limit):
        run = len(token.group())
        if token.group()[0] == "{":
            depth += run
        elif token.group()[0] == "}":
            if run >= depth:
                return token.start() + depth - 1
            depth -= run
    return None


_NEXT_QUESTION = re.compile(
    r"\n[ \t]*(?:[#*]+[ \t]*)?"
    r"(?:(?:Question|Problem|Exercise|Q)\b[ \t]*(?:[0-9]+[ \t]*)?(?:[:.]|\*\*|\n)"
    r"|(?:Human|User|Instruction)[ \t]*:|user[ \t]*\n)"
    r"|<\|(?:im_start|im_end|endoftext|eot_id|end_of_text)\|>|</s>"
)
_MARK = re.compile(r"^[ \t]*(?:####(?!#)|A(?:nswer)?:)[ \t]*([^\n#]{1,80}?)[ \t.]*$", re.MULTILINE)
_UNIT_WORDS = re.compile(r"\s?\\?%?(?: ?[a-z²³/]+){0,3}")
_MATHEMATICS = re.compile(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]|\\[A-Za-z]+\s?(?:\{[^{}]*\})?", re.S)


def is_prose(reference: str) -> bool:
    """Whether a reference is sentences rather than an answer: it has over three words beside
    numbers or mathematics, over ten otherwise, those in `\\text{}` not counted.
    """
    words = re.findall(r"[A-Za-z]{2,}", _MATHEMATICS.sub(" ", reference))
    return len(words) > (3 if re.search(r"[0-9$\\]", reference) else 10)


def before_next_question(text: str) -> str:
    """The text up to where a base model starts another question after its answer."""
    text = text.lstrip()
    found = _NEXT_QUESTION.search(text, 1)
    return text[: found.start()] if found else text


def marked_answer(text: str) -> str | None:
    """The number behind the first ``####`` or "A:", which end a solution of GSM8K, or None.

    Nothing but a unit may follow it: headings such as "#### 1. Find the total" are no answers.
    """
    for mark in _MARK.finditer(text):
        line = in_ascii(mark[1])
        found = NUMERAL.search(line)
        before = line[: found.start()].strip("-+ \\$€£¥₹") if found else line
        if found and not before and _UNIT_WORDS.fullmatch(line, found.end()):
            return _signed(line, found)
    return None


STATED = re.compile(r"\banswer\b[^.\n]{0,40}?(?:\bis\b|:)", re.IGNORECASE)
"""What says "the answer is" or "answer:"."""
_FINAL = re.compile(r"final answer is.{1,300}?I hope", re.IGNORECASE)


def has_final_answer(text: str) -> bool:
    """Whether "The final answer is ... I hope it is correct." stands behind the last box."""
    last = deque(_FINAL.finditer(text), maxlen=1)
    return bool(last) and last[0].start() > text.rfind("\\boxed")


def last_number_of(text: str) -> str | None:
    """The last number of a text, as ``-3``, ``1,234``, ``1 1/2``, ``10:30``, or None."""
    text = text if text.isascii() else in_ascii(text)
    last = deque(NUMERAL.finditer(text), maxlen=1)
    return _signed(text, last[0]) if last else None


def numbers_of(text: str) -> list[str]:
    """Every number of a text, in its order, with its sign."""
    text = text if text.isascii() else in_ascii(text)
    return [_signed(text, found) for found in NUMERAL.finditer(text)]


def lone_number(text: str) -> str | None:
    """The number that is all of a text, but for a full stop and dollar signs, or None."""
    bare = in_ascii(text).strip().removesuffix(".").strip("$ ")
    sign = "-" if bare.startswith("-") else ""
    found = NUMERAL.fullmatch(bare.lstrip("+-"))
    return sign + found.group() if found and bare.lstrip("+-") in (bare, bare[1:]) else None


def whole_numeral(text: str, part: str) -> str:
    r"""The number that `part` was cut out of: ``2\pi`` for 2, ``10:30`` for 10."""
    text = text if text.isascii() else in_ascii(text)
    at = text.rfind(part)
    if at < 0:
        return part
    line_start, end = text.rfind("\n", 0, at) + 1, at + len(part)
    for numeral in NUMERAL.finditer(text, line_start):
        if numeral.start() > at:
            break
        if numeral.end() > end or (numeral.end() == end and numeral.start() < at):
            return _signed(text, numeral)
    return part


def _signed(text: str, found: re.Match[str]) -> str:
    line = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
    return ("-" if _ends_in_sign(line) else "") + found.group().strip()


def _ends_in_sign(line: str) -> bool:
    """Whether the minus that ends `line` is the next number's sign, not an operator or hyphen."""
    line = line.rstrip("\\$€£")  # the sign of -$3 is before the currency
    bare = line.rstrip(" ")
    if not bare.endswith("-"):
        return False
    left = bare[:-1]
    near, operand = left[-1:], left.rstrip(" ")[-1:]
    if bare != line:  # "= - 3" is negative, "x - 3" is a difference, "- 3" a list item
        return operand in {"=", ":", "(", "["}
    if near.isalnum() or near in {"_", "-"}:
        return False
    return not (operand.isdigit() or operand in {")", "]", "}"})
