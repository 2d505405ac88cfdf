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

from .texts import read_sections

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

# `{ints}` is an expression of that type, `{!ints}` a variable in scope (the same one throughout its
# rule), `{=ints}` the variable that a statement makes and `{.}` that variable again; `{ix:v}` is an
# expression on the local `@v`, which its own rules write as `$`. A draw that raises or is trivial
# is rejected when it is executed.
RULES = {
    symbol: [rule.replace("\\n", "\n") for rule in rules]
    for symbol, rules in read_sections("program_outputs.txt").items()
}
LITERALS = (
    *("num", "small", "mod", "bit", "one", "big", "width", "length", "step", "at", "side"),
    *("ch", "pad", "sep", "chars", "cmp", "op", "isin"),
)
SLOT = re.compile(r"\{(?:([!=]?)([a-z]+)(?::([a-z]))?|\.)\}")
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
