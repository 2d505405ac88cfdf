"""Answers in JSON, as Python values or as programs, and whether reasoning precedes them.

The last are the two classifiers of the paper's Figures 5 and 6. No text makes any of these raise,
and each takes near linear time.
"""

import ast
import contextlib
import json
import re
import textwrap
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

MAX_LITERAL_CHARS = 20_000
MAX_CODE_CHARS = 50_000
MAX_OBJECTS = 300  # opening braces that are tried, the last ones of the text
MAX_BLOCKS = 20  # fenced blocks that are compiled, the last ones
REASONING_WORDS = 10  # fewer words of prose are an introduction

# --- A field of a JSON object ---------------------------------------------------------------


class FieldAnswer(NamedTuple):
    """The value of a field, and the position in the text where its object begins.

    The value of an object that is not `well_formed` JSON was found by pattern.
    """

    value: Any
    start: int
    well_formed: bool


_OBJECT = re.compile(r'\{\s*"')
_STRING_VALUE = re.compile(r'"((?:[^"\\]|\\.)*)"(?=\s*(?:,\s*"|[}\]]|$))', re.DOTALL)
_LINE_VALUE = re.compile(r'"(.*)"[\s,}]*$', re.MULTILINE)
_DECODER = json.JSONDecoder(strict=False)  # models write line breaks into strings


def extract_field(text: str, field: str = "answer") -> FieldAnswer | None:
    """Return the value of `field` in the last JSON object of the text that has it, or None.

    Prose and code fences may surround the object, and its strings may have raw line breaks; of a
    repeated field the last counts. Only if no object can be parsed, the value is taken from a
    malformed or cut-off one, provided that the value is complete. A JSON null is a FieldAnswer of
    value None.
    """
    objects, failed = _json_objects(text, field)
    for start, _, value in reversed(objects):
        if field in value:
            return FieldAnswer(value[field], start, True)
    keys = deque(re.finditer(rf'"{re.escape(field)}"\s*:\s*', text), maxlen=20)
    for key in reversed(keys):
        window = text[key.end() : key.end() + MAX_LITERAL_CHARS]
        found, value = _loose_value(window)
        if found:
            start = max((at for at in failed if at <= key.start()), default=key.start())
            return FieldAnswer(value, start, False)
    return None


def _json_objects(text: str, field: str) -> tuple[list[tuple[int, int, dict[str, Any]]], list[int]]:
    """The objects of the text as (start, end, value), and the starts of unreadable ones.

    An object without the field is also searched for objects within it.
    """
    objects: list[tuple[int, int, dict[str, Any]]] = []
    failed: list[int] = []
    work = 4 * len(text) + MAX_LITERAL_CHARS  # limits the rereading of nested objects
    read = 0
    for match in deque(_OBJECT.finditer(text), maxlen=MAX_OBJECTS):
        start = match.start()
        if start < read or work < 0:
            continue
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            failed.append(start)
            # Of a number of thousands of digits and of deep nesting, the position is not told.
            work -= getattr(error, "pos", len(text)) - start
        else:
            objects.append((start, end, value))
            work -= end - start
            read = end if field in value else start
    return objects, failed


def _loose_value(window: str) -> tuple[bool, Any]:
    """Whether the text begins with a complete value, and the value."""
    if not window.startswith('"'):
        try:
            value, end = _DECODER.raw_decode(window)
        except (ValueError, RecursionError):
            return False, None
        return end < len(window), value  # at the end of the text, a number may be cut off
    found = _STRING_VALUE.match(window) or _LINE_VALUE.match(window)
    if not found:
        return False, None
    for string in (found[1], found[1].replace("\\'", "'")):
        try:
            return True, _DECODER.decode(f'"{string}"')
        except ValueError:
            continue
    return True, found[1]


# --- A Python value -------------------------------------------------------------------------


def same_value(answer: Any, reference: str) -> bool:
    """Whether the answer, a JSON value, equals the Python value that `reference` is a literal of.

    A string is right if it is a literal of an equal value or, for a reference that is a string,
    that string itself. Equality is Python's ``==``, as in CRUXEval's own check: a list is no tuple
    and a string no number, but 1 equals 1.0 and True. Literals of over 20,000 characters are wrong.

    Raises:
        ValueError: `reference` is no literal; no answer makes it raise.
    """
    readable, expected = _literal(reference)
    if not readable:
        raise ValueError(
            f"reference answer is {reference!r}; expected a Python literal, as repr() writes it"
        )
    if not isinstance(answer, str):
        return bool(answer == expected)
    return bool(_value(answer) == expected or answer == expected)


def value_text(answer: str) -> str:
    """The value of an answer in one spelling: of a literal its value's, of another text its own."""
    with contextlib.suppress(ValueError):  # of a hexadecimal integer of over 4,300 digits
        return repr(_value(answer))
    return answer


def _value(answer: str) -> Any:
    """The value that the answer is a literal of, else the answer itself."""
    readable, value = _literal(answer)
    if not readable:  # a literal in JSON whose \\n JSON read as a line break
        readable, value = _literal(answer.strip().replace("\n", "\\n"))
    return value if readable else answer


def _literal(text: str) -> tuple[bool, Any]:
    """Whether the text is a literal, and its value."""
    if len(text) > MAX_LITERAL_CHARS:
        return False, None
    try:
        with _PARSING, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes such as "\d"
            return True, ast.literal_eval(text.strip())
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return False, None


# --- A program ------------------------------------------------------------------------------

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})([^`\n]*)$", re.MULTILINE)
_PYTHON = {"", "python", "python3", "py"}


class _Block(NamedTuple):
    start: int  # of its opening fence
    end: int  # after its closing fence
    language: str
    code: str


def extract_code(text: str, defines: str | None = None) -> str | None:
    """Return the last Python block of the text, or None.

    A block is between fences (three or more backticks or tildes) that name Python or no language;
    the end of the text closes the last one. With `defines` it is the last block that defines that
    function, method or class, if any does. A block of values, assignments or asserts alone, of a
    session (``>>>``), or one that names no language and is no Python, is an example: another block
    goes before it. A text without fences is code if it parses as Python and has more than
    expressions.
    """
    blocks = list(_blocks(text))
    if not blocks:
        tree = _syntax_tree(text)
        is_program = tree and not all(isinstance(node, ast.Expr) for node in tree.body)
        return text if is_program else None
    blocks = [block for block in blocks if block.language in _PYTHON and block.code.strip()]
    blocks = blocks[-MAX_BLOCKS:]
    programs = [*filter(_is_program, blocks)] or [block for block in blocks if block.language]
    codes = [block.code for block in programs or blocks]
    if defines is not None:
        definition = rf"^[ \t]*(?:async +)?(?:def|class)[ \t]+{re.escape(defines)}\b"
        codes = [code for code in codes if re.search(definition, code, re.MULTILINE)] or codes
    return codes[-1] if codes else None


def _is_program(block: _Block) -> bool:
    """Whether a block does something; a named one that does not parse is a program cut off."""
    tree = _syntax_tree(block.code)
    if tree is None:
        return bool(block.language) and not block.code.startswith(">>>")
    return any(
        isinstance(node.value, ast.Call)
        if isinstance(node, ast.Expr)
        else not isinstance(node, ast.Assign | ast.AnnAssign | ast.Assert)
        for node in tree.body
    )


def _blocks(text: str) -> Iterator[_Block]:
    opening: re.Match[str] | None = None
    for fence in (*_FENCE.finditer(text), None):  # None is the end of the text
        if opening:
            if fence and (fence[1][0] != opening[1][0] or len(fence[1]) < len(opening[1])):
                continue
            code_end, end = fence.span() if fence else (len(text), len(text))
            language = (opening[2].split() or [""])[0].lower()
            code = textwrap.dedent(text[opening.end() : code_end]).strip("\n")
            yield _Block(opening.start(), end, language, code)
        # A fence that names a language opens a block even where one was left open.
        opening = fence if fence and (not opening or fence[2].strip()) else None


# Threads share the settings of warnings, and in Python 3.11 a counter of its parser.
_PARSING = threading.Lock()


def _syntax_tree(code: str) -> ast.Module | None:
    if len(code) > MAX_CODE_CHARS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Compiling fails for nesting that is too deep for the tree.
            compile(code, "<answer>", "exec", dont_inherit=True)
            return ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError):
        return None


# --- Reasoning before the answer ------------------------------------------------------------

_BOLD = re.compile(r"\*\*[^*]*\*\*")
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]{2,}")  # a Chinese character is a word


def reasons_before_json(text: str, field: str = "answer") -> bool:
    """Whether ten words of prose or more precede the JSON object with the answer (Figure 5).

    Prose excludes fenced blocks, other JSON objects, and headings: lines that begin with ``#``,
    are all bold, or have at most twelve words and end in a colon ("Here is the JSON:"). A word has
    two letters or more. False without such an object.
    """
    answer = extract_field(text, field)
    if answer is None:
        return False
    before = text[: answer.start]
    objects, _ = _json_objects(before, field)
    return _is_reasoning(_without(before, ((start, end) for start, end, _ in objects)))


def code_answer_type(text: str) -> str:
    """Return "no answer", "no reasoning" or "reasoning" for a coding completion (Figure 6).

    "No answer" has no Python that compiles, in a fenced block or as the whole text. Otherwise the
    last block that compiles is the answer, and ten words of prose before it, counted as in
    `reasons_before_json`, are reasoning; comments in code are not.
    """
    blocks = list(_blocks(text))
    if not blocks:
        return "no answer" if extract_code(text) is None else "no reasoning"
    candidates = [block for block in blocks if block.language in _PYTHON and block.code.strip()]
    for block in reversed(candidates[-MAX_BLOCKS:]):
        if _syntax_tree(block.code):
            return "reasoning" if _is_reasoning(text[: block.start]) else "no reasoning"
    return "no answer"


def _is_reasoning(text: str) -> bool:
    prose = _without(text, ((block.start, block.end) for block in _blocks(text)))
    lines = [line for line in prose.splitlines() if not _is_heading(line)]
    return sum(len(_WORD.findall(line)) for line in lines) >= REASONING_WORDS


def _without(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text without spans (start, end), of which one may lie in another before it."""
    pieces, read = [], 0
    for start, end in spans:
        if start >= read:
            pieces.append(text[read:start])
            read = end
    return "".join((*pieces, text[read:]))


def _is_heading(line: str) -> bool:
    line = line.strip()
    bare = line.strip("*_ ")
    introduces = bare.endswith((":", "\N{FULLWIDTH COLON}")) and len(bare.split(maxsplit=12)) <= 12
    return introduces or line.startswith("#") or _BOLD.fullmatch(line) is not None
