"""Questions about what a small Python function returns: an embedded stand-in for CRUXEval-O.

Functions are drawn from a typed grammar and executed here, so every output is the real one.
"""

from __future__ import annotations

import ast
import functools
import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

__all__ = ["OutputQuestion", "output_questions"]

MAX_OUTPUT = 120
MAX_LINES = 11
MAX_STEPS = 300
# One output may make up 2 % of the questions, and a few more among the first ones.
OUTPUT_SHARE, OUTPUT_HEADROOM = 0.02, 2
PROBES = 4
EMPTY = ("[]", "''", "{}")
MAX_DEPTH = 2
MAX_WIDTH = 84
SIMPLE_SHARE, LITERAL_SHARE = 0.65, 0.15
RETURNS_TRIED = 12

NAMES = {
    "ints": ["nums", "values", "array", "numbers", "data", "scores"],
    "int": ["n", "m", "total", "count", "limit", "start"],
    "text": ["text", "s", "string", "line", "phrase", "label"],
    "words": ["words", "names", "items", "parts", "tokens"],
    "table": ["d", "counts", "table", "mapping", "stock"],
}
LOCAL_NAMES = {
    "x": ["x", "num", "value", "e"],
    "c": ["c", "ch", "char", "letter"],
    "w": ["w", "word", "item"],
    "k": ["k", "key", "name"],
    "v": ["v", "val", "amount"],
    "i": ["i", "idx", "pos"],
    "j": ["j", "other", "y"],
}
SYLLABLES = re.findall(r"\w+", "ba ko mi ra te lu so ne pi da gu fa vo xi za bri sto ple cran und")

LITERALS = {
    "num": "2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 12 | 15",
    "small": "2 | 2 | 3 | 3 | 4",
    "mod": "2 | 2 | 3 | 3 | 4 | 5 | 7",
    "bit": "0 | 0 | 0 | 1",
    "one": "1 | 1 | 2",
    "big": "20 | 25 | 30 | 40 | 50",
    "width": "6 | 8 | 9 | 10 | 12",
    "length": "2 | 3 | 4 | 5",
    "step": "2 | 2 | 3 | -1 | -2",
    "at": "0 | 0 | 1 | 1 | 2 | -1 | -1 | -2",
    "side": "0 | 2",
    "ch": "'a' | 'e' | 'i' | 'o' | 'u' | 's' | 't' | 'r' | 'm' | 'n' | 'p' | 'd' | 'b' | 'k' | 'a'",
    "pad": "'*' | '-' | '_' | '.' | '#' | '0' | 'x'",
    "sep": "'-' | '_' | ',' | '' | '+' | ' ' | '/'",
    "chars": "'aeiou' | 'aeiou' | 'abcdefgh' | 'mnopqrst' | 'xyz019' | 'aiu' | 'kst'",
    "cmp": "< | > | == | <= | !=",
    "op": "+= | -= | *=",
    "isin": "in | not in",
}

# Rules are split at " | ". `{ints}` is an expression of that type, `{!ints}` a variable in scope
# (the same one throughout its rule), `{=ints}` the variable that a statement makes and `{.}` that
# variable again; `{ix:v}` is an expression on the local `@v`, which its own rules write as `$`.
# A draw that raises or is trivial is rejected when it is executed.
EXPRESSIONS = {
    "int": """len({ints}) | sum({ints}) | max({ints}) | min({ints}) | {ints}.count({num})
        | {text}.count({ch}) | {text}.find({ch}) | {ints}[{at}] | len(set({text})) | len({text})
        | {int} + {num} | {int} * {small} | {int} - {int} | {int} % {mod} | {int} // {small}
        | sum({table}.values()) | {table}.get({ch}, {num}) | max({table}.values()) | len({words})
        | sum({ix:x} for @x in {ints}) | sum({iw:w} for @w in {words}) | max({int}, {int})
        | sum(1 for @c in {text} if {bc:c}) | {!ints}.index(max({!ints})) | abs({int} - {num})""",
    "ints": """{ints}[{at}:] | {ints}[:{at}] | {ints}[::{step}] | {ints}[::-1] | sorted({ints})
        | sorted({ints}, reverse=True) | sorted({ints}, key=lambda @x: ({ix:x}, @x))
        | [{ix:x} for @x in {ints}] | [@x for @x in {ints} if {bx:x}] | {ints} + {ints}
        | [{ix:x} for @x in {ints} if {bx:x}] | {ints} + [{int}] | sorted(set({ints}))
        | [@i for @i, @c in enumerate({text}) if {bc:c}] | list({table}.values()) | {ints} * 2
        | [@x - @j for @x, @j in zip({!ints}, {!ints}[1:])] | [int(@c) for @c in str({int})]
        | list(range({int}, {int}, {step})) | [@i for @i, @x in enumerate({ints}) if {bx:x}]
        | [{iw:w} for @w in {words}] | [{ix:v} for @k, @v in {table}.items() if {bw:k}]""",
    "text": """{text}.upper() | {text}.lower() | {text}.title() | {text}.swapcase() | {text}[::-1]
        | {text}[{at}:] | {text}[:{at}] | {text}[::{step}] | {text}.replace({ch}, {ch})
        | {text}.replace({ch}, '') | {text}.strip({ch}) | {sep}.join({words}) | {words}[{at}]
        | ''.join({sc:c} for @c in {text}) | ''.join(@c for @c in {text} if {bc:c}) | str({int})
        | ''.join(sorted({text})) | {text}.partition({ch})[{side}] | {text} + {ch}
        | {text}.center({width}, {pad}) | {text}.ljust({width}, {pad}) | max({words}, key=len)
        | min({words}) | {text}.split({ch})[{at}] | {text}.rjust({width}, {pad})""",
    "words": """{text}.split() | {text}.split({ch}) | {words}[::-1] | {words}[{at}:]
        | sorted({words}) | sorted({words}, key=len) | sorted({words}, key=lambda @w: {iw:w})
        | [{sw:w} for @w in {words}] | [@w for @w in {words} if {bw:w}] | {words} + [{text}]
        | sorted({table}) | [@k for @k, @v in {table}.items() if {bx:v}] | {words}[:{at}]
        | sorted({!table}, key=lambda @k: ({!table}[@k], @k)) | [str({ix:x}) for @x in {ints}]""",
    "table": """{@w: {iw:w} for @w in {words}} | {@k: {ix:v} for @k, @v in {table}.items()}
        | {@k: @v for @k, @v in {table}.items() if {bx:v}} | dict(zip({words}, {ints}))
        | {@c: {!text}.count(@c) for @c in {!text}} | {{sw:k}: {ix:v} for @k, @v in {table}.items()}
        | {@k: {ix:v} for @k, @v in sorted({table}.items()) if {bw:k}}""",
    "bool": """{int} > {int} | {int} % {mod} == {bit} | {text}.startswith({ch}) | {ch} in {text}
        | {num} in {ints} | {int} < {num} | {ints}[0] {cmp} {ints}[-1] | {ch} in {table}
        | any({bx:x} for @x in {ints}) | all({bx:x} for @x in {ints}) | {text}.isalpha()""",
    "ix": """$ * {small} | $ + {num} | $ - {num} | $ // {small} | $ % {mod} | $ ** 2 | abs($) | -$
        | $ + {int} | {num} - $ | min($, {num}) | max($, {num}) | {small} * $ + {num}
        | ($ if {bx} else {num}) | (-$ if {bx} else $)""",
    "bx": """$ % {mod} == {bit} | $ > {num} | $ < {num} | $ != {num} | $ % 2 | $ >= {int}
        | $ in {ints} | {num} < $ < {big} | $ > {num} or $ % {mod} == 0 | not $ % {mod}""",
    "sc": """$.upper() | $.lower() | $ * {small} | $ + {pad} | $.swapcase() | chr(ord($) + {one})
        | ($ if {bc} else {pad}) | ($.upper() if {bc} else $) | ({pad} if {bc} else $ + $)""",
    "bc": """$ in {chars} | $ not in {chars} | $.isupper() | $.islower() | $.isdigit() | $.isalpha()
        | $ > {ch} | $ <= {ch} | ord($) % {mod} == {bit} | $ != {ch} | {text}.count($) > {one}""",
    "sw": """$.upper() | $[::-1] | $[0] | $[-1] | $[1:] | $[:{small}] | $ + {pad} | $.capitalize()
        | $.replace({ch}, {pad}) | $ * {small} | {pad} + $ | ($ if {bw} else $[::-1])""",
    "bw": """len($) > {length} | len($) % 2 == {bit} | {ch} in $ | $[0] in {chars} | $ > {ch}
        | $[-1] not in {chars} | len($) < {length} or {ch} in $""",
    "iw": "len($) | len($) * {small} | $.count({ch}) | {num} - len($) | ord($[0]) % {big}",
    "out": """{int} | {ints} | {ints} | {text} | {text} | {words} | {table} | ({int}, {text})
        | ({text}, {int}) | sorted({table}.items()) | list(zip({words}, {ints})) | ({ints}, {int})
        | {!ints} | {!words} | {!table} | {!text} | {!int} | [{int}, {int}] | {bool}""",
}
# In statements one space of indentation is one level, and `\n` ends a line.
STATEMENTS = {
    "do": """{=ints} = {ints} | {=ints} = {ints} | {=text} = {text} | {=words} = {words}
        | {=text} = {text} | {=table} = {table} | {=int} = {int} | {change} | {change}
        | {change} | if {bool}:\n {change}\nelse:\n {change} | if {bool}:\n {change}
        | if {bool}:\n return {out} | {=text} = {text} if {bool} else {text}
        | {=int} = {int} if {bool} else {int} | {=ints} = {ints} if {bool} else {ints}""",
    "change": """{!ints} = {ints} | {!text} = {text} | {!words} = {words} | {!int} += {int}
        | {!text} += {text} | {!int} = {int} | {!table} = {table} | {!ints}.append({int})
        | {!ints}.insert({at}, {int}) | {!ints}.extend({ints}) | {!ints}.sort()
        | {!ints}.reverse() | {!ints}.pop({at}) | {!ints}[{at}] = {int}
        | {!words}.append({text}) | {!words}.sort(key=lambda @w: ({iw:w}, @w))
        | {!table}[{ch}] = {int} | {!table}[{text}] = {int} | {!table}.update({table})
        | {!ints}[{at}], {!ints}[{at}] = {!ints}[{at}], {!ints}[{at}]""",
    "loop": """{=int} = {bit}\nfor @x in {ints}:\n {add} | {=int} = {num}\nfor @x in {ints}:\n {add}
        | {=ints} = []\nfor @x in {ints}:\n {grow}
        | {=ints} = []\nfor @i, @x in enumerate({ints}):\n if @i % {mod} == {bit}:\n  {grow}
        | {=text} = ''\nfor @c in {text}:\n {spell}
        | {=text} = {ch}\nfor @c in {text}:\n {spell}
        | {=words} = []\nfor @w in {words}:\n {gather}
        | {=table} = {}\nfor @c in {text}:\n {tally}
        | {=table} = {}\nfor @w in {words}:\n @k = {sw:w}\n {.}[@k] = {.}.get(@k, {bit}) + {iw:w}
        | {=table} = {}\nfor @x in {ints}:\n {.}.setdefault({ix:x}, []).append({ix:x})
        | {=table} = {}\nfor @i, @w in enumerate({words}):\n if {bw:w}:\n  {.}[@w] = {ix:i}
        | {=words} = []\nfor @k, @v in {table}.items():\n if {bx:v}:\n  {.}.append({sw:k})
        | {=int} = {bit}\nfor @k, @v in {table}.items():\n if {bw:k}:\n  {.} += {ix:v}
        | {=ints} = []\nwhile {!int} > {bit}:\n {.}.append({!int} % {mod})\n {!int} //= {small}
        | {=int} = {bit}\nwhile {!int} > {num}:\n {!int} -= {mod}\n {.} += {!int} % {mod}
        | {=ints} = []\nwhile len({!ints}) > 1:\n {.}.append({!ints}.pop({at}) + {!ints}[{at}])
        | {=int} = {bit}\nwhile {!words} and {.} < {num}:\n @w = {!words}.pop({at})
        \n {.} += {iw:w}
        | while len({!text}) > {length}:\n {!text} = {!text}[{one}:] + {ch}
        \n {!text} = {!text}[1:]
        | while len({!text}) < {width}:\n {!text} += {!text}[{at}] + {pad}
        | {=int} = {bit}\nfor @i in range(len({!ints})):\n for @j in range(@i):
        \n  if {!ints}[@j] {cmp} {!ints}[@i]:\n   {.} += {one}
        | {=ints} = []\nfor @x in {ints}:\n for @j in range({one}, {small}):
        \n  if (@x + @j) % {mod} == {bit}:\n   {.}.append(@x * @j)
        | {=words} = []\nfor @c in {text}[:{small}]:\n for @w in {words}:\n  if @c {isin} @w:
        \n   {.}.append({sw:w} + @c)
        | for @i in range({one}, len({!ints})):\n {!ints}[@i] {op} {!ints}[@i - 1]
        | for @i in range(0, len({!ints}) - 1, 2):\n {!ints}[@i] {op} {!ints}[@i + 1]
        | for @k in sorted({!table}):\n if {!table}[@k] > {num}:\n  {!table}[@k] {op} {num}
        \n else:\n  del {!table}[@k]""",
    "add": """{.} += {ix:x} | {.} -= {ix:x} | {.} += 1 | {.} = {.} * {small} + @x
        | {.} = max({.}, {ix:x}) | {.} = abs({.} - {ix:x}) | if {bx:x}:\n {add}
        | if {bx:x}:\n {add}\nelse:\n {add} | if {bx:x}:\n continue\n{add}
        | if {.} > {big}:\n break\n{add}""",
    "grow": """{.}.append({ix:x}) | {.}.append(@x) | {.}.insert(0, {ix:x}) | {.} += [@x, {ix:x}]
        | if {bx:x}:\n {grow} | if {bx:x}:\n {grow}\nelse:\n {grow} | if @x not in {.}:\n {grow}
        | if len({.}) >= {length}:\n break\n{grow}
        | if {.} and {.}[-1] {cmp} @x:\n {.}[-1] += {num}\nelse:\n {grow}""",
    "spell": """{.} += {sc:c} | {.} = @c + {.} | {.} = {sc:c} + {.} | if {bc:c}:\n {spell}
        | if {bc:c}:\n {spell}\nelse:\n {spell} | if @c not in {.}:\n {spell}
        | if {bc:c}:\n continue\n{spell} | if len({.}) > {length}:\n {.} = {.}[1:]\n{spell}""",
    "gather": """{.}.append({sw:w}) | if {bw:w}:\n {gather} | {.}.insert(0, {sw:w})
        | if {bw:w}:\n {gather}\nelse:\n {gather} | {.}.extend([{sw:w}, @w])
        | if {.} and {.}[-1] < @w:\n {.}[-1] = {sw:w}\nelse:\n {gather}""",
    "tally": """{.}[@c] = {.}.get(@c, {bit}) + {one} | {.}[{sc:c}] = {!text}.index(@c)
        | if {bc:c}:\n {tally} | if @c in {.}:\n {.}[@c] *= {small}\nelse:\n {.}[@c] = {num}""",
}
SLOT = re.compile(r"\{(?:([!=]?)([a-z]+)(?::([a-z]))?|\.)\}")
RULES = {
    # A line break within a rule only wraps this file.
    symbol: [rule.replace("\n        ", "") for rule in re.split(r"\s+\|\s", text)]
    for symbol, text in (LITERALS | EXPRESSIONS | STATEMENTS).items()
}
ELEMENTWISE = ("ix", "bx", "sc", "bc", "sw", "bw", "iw")
# Rules with literals only, for expressions at the greatest depth.
PLAIN = {
    symbol: [r for r in RULES[symbol] if all(slot[1] in LITERALS for slot in SLOT.findall(r))]
    for symbol in ELEMENTWISE
}
# Kinds of variables that a rule needs in scope; numbers can be literals.
NEEDS = {
    rule: [
        s[1] for s in SLOT.findall(rule) if s[1] in NAMES and s[0] != "=" and s[:2] != ("", "int")
    ]
    for rules in RULES.values()
    for rule in rules
}
BODIES = (["loop"], ["loop"], ["loop", "do"], ["do", "loop"], ["do", "do"], ["loop", "loop"])

# Assignments of bare names, combined literals, and operands paired with themselves.
TRIVIAL = re.compile(
    r"(?m)^ *\w+ = [a-z]\w*$|(?<![-+*/%] )\b\d+ [-+*/%<>=]+ \d+\b|\b(\w+) [-<>=%]+ \1\b"
    r"|[(\[](\w+), (\2|\d+)[)\]]$|\(\d+, \d+\)|\((\w+), \4\)|(\w+\[-?\d\]), \5 |\(('.'), \6\)"
)


class _Rejected(Exception):
    """A draw that cannot become a question."""


class _TooLong(_Rejected):
    """Code with more than `MAX_STEPS` loop iterations."""


FAULTS = (ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError)


@dataclass(frozen=True)
class OutputQuestion:
    """Source of a function `f`, its arguments as text, and repr of its result."""

    id: str
    code: str
    input: str
    output: str


def output_questions(n: int, seed: int = 0) -> list[OutputQuestion]:
    """`n` questions with distinct code; a larger `n` begins with the same ones.

    Outputs are literals of at most `MAX_OUTPUT` characters, differ from every argument and depend
    on the arguments; none makes up more than a few percent of the questions.
    """
    if n < 0:
        raise ValueError(f"n={n}: a number of questions is 0 or more")
    # With the text, no seed gives the draws of another seed, shifted.
    rng = random.Random(f"program outputs {seed}")
    questions: list[OutputQuestion] = []
    seen: set[str] = set()
    outputs: Counter[str] = Counter()
    while len(questions) < n:
        try:
            code, arguments, output = _draw(rng)
        except _Rejected:
            continue
        room = OUTPUT_SHARE * len(questions) + OUTPUT_HEADROOM
        if code in seen or outputs[output] >= room:
            continue
        seen.add(code)
        outputs[output] += 1
        questions.append(OutputQuestion(f"{seed}-{len(questions)}", code, arguments, output))
    return questions


def _draw(rng: random.Random) -> tuple[str, str, str]:
    """Code, input and output of a sound question, or `_Rejected`."""
    kinds = rng.sample(sorted(NAMES), rng.choice((1, 1, 2, 2, 2, 3)))
    if kinds == ["int"]:
        raise _Rejected
    code = _Writer(rng).function(kinds)
    tree = ast.fix_missing_locations(_Bounded().visit(ast.parse(code)))
    arguments = [[_argument(rng, kind) for kind in kinds] for _ in range(1 + PROBES)]
    given = arguments[0]
    output, *others = _outputs(tree, arguments, output_needed=True)
    if len(output) > MAX_OUTPUT or output in EMPTY or output in [repr(a) for a in given]:
        raise _Rejected
    value = ast.literal_eval(output)
    if isinstance(value, tuple) and any(repr(part) == repr(a) for part in value for a in given):
        raise _Rejected
    # A function that ignores its input is a question about constants.
    if all(other == output for other in others):
        raise _Rejected
    # Removing any one statement must change the results.
    body = tree.body[0].body
    for statement in body[:-1]:
        index = body.index(statement)
        del body[index]
        if _outputs(tree, arguments) == [output, *others]:
            raise _Rejected
        body.insert(index, statement)
    return code, ", ".join(map(repr, given)), output


class _Writer:
    """Writes one function, with its variables in scope and the names of its locals."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.scope: dict[str, list[str]] = {kind: [] for kind in NAMES}
        self.made: list[tuple[str, str]] = []
        self.locals: dict[str, str] = {}

    def function(self, kinds: list[str]) -> str:
        """Source of `f` with one parameter of each kind, or `_Rejected`."""
        parameters = [self._new_name(kind) for kind in kinds]
        self._declare()
        lines: list[str] = []
        for symbol in self.rng.choice(BODIES):
            lines += self._expand(symbol, 0).split("\n")
            self._declare()
        body = self._name_locals("\n".join(lines))
        body += "\n" + self._return(body, parameters)
        code = re.sub(r"(?m)^( *)", lambda m: " " * (4 * len(m[1]) + 4), body)
        if code.count("\n") + 2 > MAX_LINES or max(map(len, code.split("\n"))) > MAX_WIDTH:
            raise _Rejected
        if TRIVIAL.search(body):
            raise _Rejected
        return f"def f({', '.join(parameters)}):\n{code}"

    def _return(self, body: str, parameters: list[str]) -> str:
        """A last line that reads the variables that no line before it has read."""
        counts = Counter(re.findall(r"\w+", body))
        missing = []
        for name in (name for names in self.scope.values() for name in names):
            # A variable made here must be read in a later line.
            if counts[name] < (1 if name in parameters else 2):
                missing.append(name)
        for _ in range(RETURNS_TRIED):
            last = "return " + self._expand("out", 1)
            read = re.findall(r"\w+", last)
            if all(name in read for name in missing):
                return self._name_locals(last)
        raise _Rejected

    def _new_name(self, kind: str) -> str:
        taken = [n for names in self.scope.values() for n in names] + [n for _, n in self.made]
        name = self.rng.choice([name for name in NAMES[kind] if name not in taken] or ["z"])
        self.made.append((kind, name))
        return name

    def _declare(self) -> None:
        for kind, name in self.made:
            self.scope[kind].append(name)
        self.made = []

    def _name_locals(self, body: str) -> str:
        taken = [name for names in self.scope.values() for name in names]
        for local, names in LOCAL_NAMES.items():
            if local not in self.locals:
                free = [name for name in names if name not in (*taken, *self.locals.values())]
                self.locals[local] = self.rng.choice(free)
        return re.sub(r"@([a-z])\b", lambda m: self.locals[m[1]], body)

    def _variable(self, kind: str) -> str:
        names = self.scope[kind]
        if not names:
            raise _Rejected
        # Later variables are likelier, so that statements build on each other.
        return self.rng.choices(names, [2**i for i in range(len(names))])[0]

    def _expand(self, symbol: str, depth: int, local: str = "") -> str:
        """Text of a symbol; `depth` counts the expressions around it."""
        if symbol in NAMES:
            if depth >= MAX_DEPTH or (depth and self.rng.random() < SIMPLE_SHARE):
                if symbol == "int" and self.rng.random() < LITERAL_SHARE:
                    return self._expand("num", depth)
                if symbol == "int" and not self.scope["int"]:
                    held = [kind for kind in NAMES if self.scope[kind]]
                    return f"len({self._variable(self.rng.choice(held))})"
                return self._variable(symbol)
            depth += 1
        plain = symbol in ELEMENTWISE and depth > MAX_DEPTH
        rules = _rules(symbol, plain, tuple(kind for kind in NAMES if self.scope[kind]))
        if not rules:
            raise _Rejected
        rule = self.rng.choice(rules)
        chosen: dict[str, str] = {}

        def fill(slot: re.Match[str]) -> str:
            mark, inner, own = slot.groups()
            if inner is None:
                return self.made[-1][1] if self.made else "z"
            if mark == "=":
                return self._new_name(inner)
            if mark == "!":
                if inner not in chosen:
                    chosen[inner] = self._variable(inner)
                return chosen[inner]
            nested = depth + (inner in ELEMENTWISE)
            text = self._expand(inner, nested, own or local)
            before, after = rule[: slot.start()], rule[slot.end() :]
            if re.match(r"[.\[]| [-+*/%]+ ", after) or re.search(r" [-+*/%]+ $", before):
                text = _bracketed(text)
            column = before[before.rfind("\n") + 1 :]
            return text.replace("\n", "\n" + column) if not column.strip() else text

        text = SLOT.sub(fill, rule)
        return text.replace("$", f"@{local}") if local else text


@functools.cache
def _rules(symbol: str, plain: bool, kinds: tuple[str, ...]) -> list[str]:
    """The rules of a symbol that can be written with variables of these kinds."""
    rules = PLAIN[symbol] if plain else RULES[symbol]
    return [rule for rule in rules if all(kind in kinds for kind in NEEDS[rule])]


@functools.cache
def _bracketed(text: str) -> str:
    """An operand, in brackets if an operator around it would otherwise split it."""
    node = ast.parse(text.replace("@", "_").replace("$", "_"), mode="eval").body
    return f"({text})" if isinstance(node, ast.BinOp | ast.UnaryOp | ast.IfExp) else text


class _Bounded(ast.NodeTransformer):
    """Puts a call of `_tick` at the start of every loop."""

    def visit_loop(self, node: Any) -> Any:
        self.generic_visit(node)
        node.body.insert(0, ast.parse("_tick()").body[0])
        return node

    visit_For = visit_While = visit_loop


def _outputs(
    tree: ast.Module, arguments: list[list[Any]], *, output_needed: bool = False
) -> list[str]:
    """repr of the result of `f` for each list of arguments, or the name of its error.

    With `output_needed`, an error on the first of them is `_Rejected`.
    """
    turns = 0

    def tick() -> None:
        nonlocal turns
        turns += 1
        if turns > MAX_STEPS:
            raise _TooLong

    namespace: dict[str, Any] = {"_tick": tick}
    exec(compile(tree, "<question>", "exec"), namespace)
    outputs = []
    for values in arguments:
        turns = 0
        # Functions may change their arguments, which are shown unchanged.
        copies = [v.copy() if isinstance(v, list | dict) else v for v in values]
        try:
            outputs.append(repr(namespace["f"](*copies)))
        except FAULTS as error:
            if output_needed and not outputs:
                raise _Rejected from None
            outputs.append(type(error).__name__)
    return outputs


def _argument(rng: random.Random, kind: str) -> Any:
    """A random argument of a kind, varied as if written by hand."""
    if kind == "int":
        return rng.choice((rng.randint(1, 9), rng.randint(10, 99), rng.randint(100, 5000)))
    if kind == "ints":
        low, high = rng.choice(((0, 9), (1, 20), (-9, 15), (1, 6), (10, 60)))
        return [rng.randint(low, high) for _ in range(rng.randint(3, 7))]
    if kind == "words":
        return [_word(rng) for _ in range(rng.randint(2, 5))]
    if kind == "table":
        keys = [rng.choice((_word(rng), rng.choice("aeioustrm"))) for _ in range(rng.randint(2, 4))]
        return {key: rng.randint(1, 20) for key in keys}
    return rng.choice(
        (
            lambda: _word(rng) + _word(rng),
            lambda: " ".join(_word(rng).title() for _ in range(rng.randint(2, 3))),
            lambda: " ".join(_word(rng) for _ in range(rng.randint(2, 3))),
            lambda: _word(rng).title() + str(rng.randint(1, 99)) + _word(rng).upper(),
            lambda: rng.choice("-_,").join(_word(rng) for _ in range(3)),
            lambda: "".join(rng.choice("aAbBkKsStT019 ") for _ in range(rng.randint(5, 10))),
        )
    )()


def _word(rng: random.Random) -> str:
    return "".join(rng.choices(SYLLABLES, k=rng.choice((1, 2, 2, 3))))
