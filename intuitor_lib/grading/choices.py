"""The letter that answers a multiple-choice question. No text makes it raise."""

import re
from collections import deque
from functools import cache

_TAIL_CHARS = 300  # of the last line


def extract_choice(text: str, letters: str = "ABCDEFGHIJ") -> str | None:
    r"""Return the letter that a multiple-choice answer states last, or None if it states none.

    A statement is "the answer is (C)", "Answer: C", "(C) is the correct answer" or ``\boxed{C}``,
    the letter also in quotes or square brackets, or small at the end of a line;
    without any, a bold ``**C**``; without that, a last line that is a letter, "C. Nucleus", or
    ends in one, as in "so it must be (C)". Two letters ("A or B"), the article A and the pronoun I
    are no statements, and nothing is guessed.

    Raises:
        ValueError: `letters` other than A to Z.
    """
    if not re.fullmatch("[A-Z]+", letters):
        raise ValueError(f"letters is {letters!r}; pass capital letters such as 'ABCD'")
    stated, bold, last_line, listed = _choice_patterns(letters)
    for pattern in (stated, bold):
        last = deque(pattern.finditer(text), maxlen=1)
        if last:
            return next(letter for letter in last[0].groups() if letter).upper()
    lines = [line.strip() for line in text[-10 * _TAIL_CHARS :].splitlines() if line.strip()]
    if not lines:
        return None
    line = lines[-1].strip("*_$` ")[-_TAIL_CHARS:]
    # A letter with its text is an answer, unless it ends a copy of the list of options.
    alone = len(lines) == 1 or not listed.match(lines[-2].strip("*_$` "))
    found = last_line.fullmatch(line) or (alone and listed.match(line))
    return found[1] if found else None


@cache
def _choice_patterns(letters: str) -> tuple[re.Pattern[str], ...]:
    either = rf"[{letters}{letters.lower()}]"
    # Few words may follow a bare letter: not "the answer is A vector", nor "I think".
    go_on = r"(?:is|because|since|as|which|due|given|for|with|by|rather|instead|not)\b"
    bare = rf"([{letters}])(?![\w'’+=^/\\?-])(?!\*{{0,2}}[ \t]{{1,4}}(?!{go_on})[a-z])"
    gap = r"\s{0,4}\*{0,2}"
    one = (
        rf"(?!\)?{gap}(?:or\b|and\b|,|/|&){gap}\s{{0,4}}\(?[{letters}]\b(?!\s[a-z]))"  # no "A or B"
    )
    says = (
        r"(?i:\b(?:answer|(?:correct|right|best) (?:option|choice|letter))\**(?: choice| option)?"
        r"(?:\s{1,4}(?:is|would be|should be|must be)"
        r"(?: (?:therefore|thus|clearly|indeed|likely|probably))?\b"
        r"|\s{0,4}[:=])(?:\s{1,4}(?:the )?(?:option|choice|letter)\b)?)"
    )
    enclosed = rf"\\?\(({either})\\?\)|\[({either})\]|[\"'“‘`<]({either})[\"'”’`>]"  # noqa: RUF001
    ends_line = rf"([{letters.lower()}])(?=[.)*]{{0,3}}[ \t]{{0,4}}(?:\n|$))"  # no article
    either_way = rf"(?:{enclosed}|{bare}|{ends_line})"
    stated = rf"{says}[\s*_$:{{]{{0,8}}(?:\\\(\s?)?(?:\\text\w*\{{\s{{0,4}})?{either_way}{one}"
    boxed = (
        r"\\(?:boxed|fbox)\s{0,4}\{\s{0,4}(?:\\(?:text|math)\w*\s{0,4}\{\s{0,4})?"
        rf"(?:\(({either})\)|([{letters}])\s{{0,4}}[}}.:)]){one}"
    )
    right = (
        r"(?:is the (?:(?:correct|right|best) )?(?:answer|option|choice)\b"
        r"|is (?:correct|right)(?=[.!*]*\s*(?:\n|$)))"
    )
    reverse = rf"(?:\(({either})\)|\b([{letters}]))\*{{0,2}} {right}"
    bold = rf"\*\*\s?(?:[Oo]ption |[Cc]hoice )?\(?([{letters}])\)?\.?\*\*(?!\s?[:)\w-])"
    ending = (
        r"(?:.*\b(?:is|be|choose|select|pick|say|[Oo]ption|choice|answer|[Tt]hus|[Tt]herefore"
        rf"|[Ss]o|[Hh]ence)[,:]?\s\**)?\(?([{letters}])\)?[.*]{{0,4}}"
    )
    listed = rf"\(?([{letters}])[).:]\s"
    return tuple(map(re.compile, (f"{stated}|{boxed}|{reverse}", bold, ending, listed)))
