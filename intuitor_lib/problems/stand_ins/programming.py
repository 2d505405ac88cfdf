"""Small programming problems with tests: an embedded stand-in for LiveCodeBench.

Problems combine parts (which values to keep, what to do to each, what to return) that come with
their English and their Python; expected values come from running the solution.
"""

from __future__ import annotations

import ast
import functools
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from .texts import read_sections

__all__ = [
    "START_FROM",
    "WRITE_FUNCTION",
    "WRITE_PROGRAM",
    "ProgrammingProblem",
    "programming_problems",
]

START_FROM = "Start from:\n\n"
WRITE_FUNCTION = "Reply with the whole function in a Python code block."
WRITE_PROGRAM = (
    "Write a Python program that reads standard input and prints the answer to standard output. "
    "Reply with the whole program in a Python code block."
)

SPLITS = {"train": 440, "test": 220}
# Problems drawn of each form, before those that repeat a behaviour are dropped.
DRAWN = {"numbers": 340, "words": 210, "text": 190, "number": 130, "grid": 70}
TESTS, EXAMPLES, INPUTS = 8, 2, 60
# Results that are poor examples.
EMPTY = ("0", "-1", "1", "[]", "''", "{}")
STDIN_SHARE = 0.4


@dataclass(frozen=True)
class ProgrammingProblem:
    """A problem statement with its tests and a correct program.

    `kind` is "function" (tests are a list of arguments as literals, and repr of the value that
    `entry_point` returns for them) or "stdin" (input text and expected output text).
    """

    id: str
    kind: str
    prompt: str
    entry_point: str | None
    starter_code: str | None
    tests: tuple[tuple[str, str], ...]
    solution: str

    @property
    def request(self) -> str:
        """The message to a model: the problem, its starter code, the form of the reply."""
        start = f"\n\n{START_FROM}```python\n{self.starter_code}\n```" if self.starter_code else ""
        how = WRITE_FUNCTION if self.kind == "function" else WRITE_PROGRAM
        return f"{self.prompt}{start}\n\n{how}"

    @property
    def unit_tests(self) -> dict[str, Any]:
        """The tests as `unit_tests.run_tests` takes them."""
        return {
            "kind": self.kind,
            "form": "literal",
            "entry_point": self.entry_point,
            "tests": [list(pair) for pair in self.tests],
        }


class _Task(NamedTuple):
    """The task of a problem, to be solved by a function or by a program.

    `request` follows "Return" or "Print"; `body` is that of a function.
    """

    name: str
    shape: str
    steps: str
    request: str
    body: str


class _Shape(NamedTuple):
    """A form of input: parameters, their description, code that reads them, a random draw."""

    parameters: str
    function: str
    stdin: str
    read: str
    draw: Callable[[random.Random], tuple[Any, ...]]
    edge: tuple[Any, ...]


# The length of words cut to one letter is always 1; for results of two characters each, "the last
# three" could mean characters.
UNCLEAR = {
    **dict.fromkeys(
        ("initials", "final_letters"), ("letters", "longest", "shortest", "lengths", "by_size")
    ),
    **dict.fromkeys(
        ("doubled", "starred"),
        ("backwards", "count", "unique", "alternate", "edges", "tail"),
    ),
}
WORDS = (
    "apple river stone cat level area bee noon igloo mint otter tree sun onion eve panda dance "
    "kiwi oak tent echo rope window banana anna unit ice maple drum sea"
)
NUMBER_LINE = "a list of integers on one line, separated by single spaces; the line may be empty"
ITEMS = "Print the items of a list on one line, separated by single spaces."


def _numbers(rng: random.Random) -> list[int]:
    low, high = rng.choice(((-12, 20), (0, 9), (-9, 9), (-30, 120), (1, 30)))
    return [rng.randint(low, high) for _ in range(rng.randint(1, 9))]


def _text(rng: random.Random) -> str:
    words = rng.choices(WORDS.split(), k=rng.randint(1, 3))
    words = [rng.choice((word, word.title(), word.upper())) for word in words]
    return " ".join(words + [str(rng.randint(0, 999))] * rng.randint(0, 1))


def _grid(rng: random.Random) -> list[list[int]]:
    columns = rng.randint(1, 4)
    return [[rng.randint(-3, 12) for _ in range(columns)] for _ in range(rng.randint(1, 4))]


SHAPES = {
    "numbers": _Shape(
        "numbers",
        "takes `numbers`, a list of integers",
        NUMBER_LINE,
        "[int(part) for part in input().split()]",
        lambda rng: (_numbers(rng),),
        ([],),
    ),
    "lists": _Shape(
        "left, right",
        "takes two lists of integers, `left` (the first list) and `right` (the second)",
        "two lines, the first list and the second, each of integers separated by single spaces; "
        "a line may be empty",
        "[int(part) for part in input().split()], [int(part) for part in input().split()]",
        lambda rng: (_small_list(rng), _small_list(rng)),
        ([], []),
    ),
    "words": _Shape(
        "words",
        "takes `words`, a list of words made of small letters",
        "a list of words made of small letters on one line, separated by single spaces; the line "
        "may be empty",
        "input().split()",
        lambda rng: (rng.choices(WORDS.split(), k=rng.randint(1, 7)),),
        ([],),
    ),
    "text": _Shape(
        "text", "takes a string `text`", "", "input()", lambda rng: (_text(rng),), ("",)
    ),
    "moves": _Shape(
        "moves",
        "takes `moves`, a string of the letters U, D, L and R",
        "one line of the letters U, D, L and R; the line may be empty",
        "input().strip()",
        lambda rng: ("".join(rng.choices("UUDLR", k=rng.randint(2, 14))),),
        ("",),
    ),
    "number": _Shape(
        "number",
        "takes an integer `number` that is 0 or more",
        "one line with an integer, the number, that is 0 or more",
        "int(input())",
        lambda rng: (rng.randint(0, 10 ** rng.randint(1, 6)),),
        (0,),
    ),
    "table": _Shape(
        "table",
        "takes `table`, a dictionary from strings of small letters to integers",
        "",
        "",
        lambda rng: (
            {word: rng.randint(0, 16) for word in rng.sample(WORDS.split(), rng.randint(1, 6))},
        ),
        ({},),
    ),
    "grid": _Shape(
        "grid",
        "takes `grid`, a list of rows, each a list of integers; there is at least one row, and "
        "all rows have the same length of at least 1",
        "",
        "",
        lambda rng: (_grid(rng),),
        ([[4]],),
    ),
}


def _small_list(rng: random.Random) -> list[int]:
    return [rng.randint(-3, 9) for _ in range(rng.randint(1, 6))]


def programming_problems(split: str, n: int | None = None) -> list[ProgrammingProblem]:
    """The first `n` (by default all) problems of "train" or "test", always the same ones.

    No two problems ask for the same behaviour, in one split or across them, and no solution
    passes the tests of another problem.

    Raises:
        ValueError: another split, or an `n` that the split cannot give.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: expected one of {', '.join(SPLITS)}")
    problems = _pools()[split]
    if n is not None and not 0 <= n <= len(problems):
        raise ValueError(f"n={n}: {split} has {len(problems)} problems")
    return list(problems[:n])


@functools.cache
def _tables() -> dict[str, list[str]]:
    return read_sections("program_items.txt")


def _rows(name: str) -> list[list[str]]:
    """Cells of a table of `program_items.txt`."""
    return [
        [re.sub(r" *\\n", "\n", cell.strip()) for cell in re.split(r"(?<!\S)::(?!\S)", row)]
        for row in _tables()[name]
    ]


def _tasks() -> Iterator[_Task]:
    """All tasks that can be drawn, pipelines first, in the order of the tables."""
    for shape, noun, source, tables in (
        ("numbers", "numbers", "numbers", "NUMBERS"),
        ("words", "words", "words", "WORDS"),
        ("text", "characters", "text", "CHARACTERS"),
        ("number", "digits", "[int(c) for c in str(number)]", "DIGITS"),
    ):
        kept, done, made = (_rows(f"{part}_{tables}") for part in ("KEPT", "DONE_TO", "FROM"))
        for k in kept:
            for d in done:
                for m in made:
                    if m[0] in UNCLEAR.get(d[0], ()) and shape in ("words", "text"):
                        continue
                    yield _pipeline(shape, noun, source, k, d, m)
    for line, lines in (("row", "grid"), ("column", "zip(*grid)")):
        for name, value, code in _rows("PER_LINE"):
            for way, request, end in _rows("FROM_LINES"):
                order = "from top to bottom" if line == "row" else "from left to right"
                steps = f"For each {line} of the grid, {order}, find {value}. "
                body = f"values = [{code} for line in {lines}]\nreturn {end}"
                yield _Task(f"{way}_of_{line}_{name}", "grid", steps, request, body)
    for cells in _rows("WHOLE"):
        for variant in cells[2].split():
            filled = [cell.format(k=variant) for cell in cells]
            yield _Task(filled[0], filled[1], "", filled[3], filled[4])


def _pipeline(
    shape: str, noun: str, source: str, kept: list[str], done: list[str], made: list[str]
) -> _Task:
    """Keep some values, change each, return something of the results."""
    request, empty = made[1].split("|")
    origin = {"text": "text", "number": "number"}.get(shape, "list")
    steps = f"From the {origin}, take {kept[1]}. " if kept[2] else ""
    them = f"{noun} taken" if kept[2] else f"{noun} of the {origin}"
    if done[1]:
        steps = f"From the {origin}, take {kept[1]}, and {done[1]}. "
        them = "results"
    condition = f" if {kept[2]}" if kept[2] else ""
    body = f"values = [{done[2] or 'x'} for x in {source}{condition}]\nreturn {made[2]}"
    wanted = request.format(them=them)
    if kept[2]:
        wanted += f". If none can be taken, return {empty}"
    elif shape != "number":
        wanted += f". If the {origin} is empty, return {empty}"
    name = "_".join(filter(None, (made[0], "of", kept[0], noun, done[0])))
    return _Task(name, shape, steps, wanted, body)


@functools.cache
def _pools() -> dict[str, tuple[ProgrammingProblem, ...]]:
    """Both splits: distinct behaviours in a fixed random order, cut in two."""
    rng = random.Random("programming problems")
    every = {shape: [t for t in _tasks() if t.shape == shape] for shape in SHAPES}
    chosen: list[tuple[_Task, list[str]]] = []
    inputs = {
        name: list({repr(x): x for x in [shape.edge, *map(shape.draw, [rng] * INPUTS)]}.values())
        for name, shape in SHAPES.items()
    }
    for shape, tasks in every.items():
        whole = [t for t in tasks if not t.steps and "values = [" not in t.body]
        parts = [t for t in tasks if t not in whole]
        drawn = whole + rng.sample(parts, min(len(parts), DRAWN.get(shape, 0)))
        seen: set[tuple[str, ...]] = set()
        for task in drawn:
            outputs = _outputs(task, inputs[shape])
            if tuple(outputs) in seen or _is_generic(outputs, inputs[shape]):
                continue
            if any(_outputs(t, inputs[shape]) == outputs for t in _shorter(task)):
                continue
            seen.add(tuple(outputs))
            chosen.append((task, outputs))
    rng.shuffle(chosen)
    columns = {s: [outputs for task, outputs in chosen if task.shape == s] for s in SHAPES}
    problems: list[ProgrammingProblem] = []
    for task, outputs in chosen[: sum(SPLITS.values())]:
        stdin = bool(SHAPES[task.shape].stdin) and rng.random() < STDIN_SHARE
        split = "train" if len(problems) < SPLITS["train"] else "test"
        number = len(problems) - (SPLITS["train"] if split == "test" else 0)
        tests = _telling(rng, outputs, columns[task.shape])
        shown = _shown(rng, outputs, tests)
        problems.append(
            _problem(f"{split}-{number}", task, stdin, inputs[task.shape], outputs, tests, shown)
        )
    cut = SPLITS["train"]
    return {"train": tuple(problems[:cut]), "test": tuple(problems[cut:])}


def _shorter(task: _Task) -> Iterator[_Task]:
    """The task without the change of each value, and without the choice of values."""
    pipeline = re.fullmatch(r"values = \[(.+?) for x in (.+?)( if .+)?\]\n(.+)", task.body)
    if pipeline and task.shape != "grid":
        done, source, kept, end = pipeline.groups(default="")
        if done != "x":
            yield task._replace(body=f"values = [x for x in {source}{kept}]\n{end}")
        if kept:
            yield task._replace(body=f"values = [{done} for x in {source}]\n{end}")


def _outputs(task: _Task, inputs: list[tuple[Any, ...]]) -> list[str]:
    """repr of the solution's return value for each input."""
    namespace: dict[str, Any] = {}
    exec(_function("solve", task), namespace)
    return [repr(namespace["solve"](*arguments)) for arguments in inputs]


def _function(name: str, task: _Task) -> str:
    body = "".join(f"    {line}\n" for line in task.body.split("\n"))
    needed = "import math\n\n\n" if "math." in body else ""
    return f"{needed}def {name}({SHAPES[task.shape].parameters}):\n{body}"


def _is_generic(outputs: list[str], inputs: list[tuple[Any, ...]]) -> bool:
    """Whether a program that ignores the task passes more than half of its tests."""
    rivals = [[repr(given[0]) for given in inputs]]
    rivals.append([repr(len(g[0])) if hasattr(g[0], "__len__") else "1" for g in inputs])
    rivals += [[value] * len(inputs) for value in dict.fromkeys(outputs)]
    return any(
        sum(a == b for a, b in zip(outputs, rival, strict=True)) > len(outputs) / 2
        for rival in rivals
    )


def _telling(rng: random.Random, outputs: list[str], others: list[list[str]]) -> list[int]:
    """Indices of inputs that distinguish a task from all others of its shape, edge case first."""
    order = rng.sample(range(1, len(outputs)), len(outputs) - 1)
    left = [other for other in others if other != outputs and other[0] == outputs[0]]
    tests = [0]
    while len(tests) < TESTS or (left and order):
        best = max(order, key=lambda i: sum(other[i] != outputs[i] for other in left))
        order.remove(best)
        tests.append(best)
        left = [other for other in left if other[best] == outputs[best]]
    return tests


def _shown(rng: random.Random, outputs: list[str], tests: list[int]) -> list[int]:
    """Indices of the examples of the statement: not among the tests, with telling results."""
    free = [i for i in rng.sample(range(len(outputs)), len(outputs)) if i not in tests]
    first: dict[str, int] = {}
    for i in free:
        first.setdefault(outputs[i], i)
    # Sorting is stable: poor examples come last.
    return sorted(first.values(), key=lambda i: outputs[i] in EMPTY)[:EXAMPLES]


def _problem(
    id: str,
    task: _Task,
    stdin: bool,
    inputs: list[tuple[Any, ...]],
    outputs: list[str],
    tests: list[int],
    shown: list[int],
) -> ProgrammingProblem:
    shape = SHAPES[task.shape]
    if not stdin:
        cases = [(", ".join(map(repr, g)), o) for g, o in zip(inputs, outputs, strict=True)]
        examples = "".join(f"\n`{task.name}({cases[i][0]})` returns `{cases[i][1]}`" for i in shown)
        text = f"{task.steps}Return {task.request}."
        prompt = (
            f"Write a Python function `{task.name}({shape.parameters})` that {shape.function}. "
            f"{text}\n\nExamples:{examples}"
        )
        starter = f"def {task.name}({shape.parameters}):\n"
        kept = tuple(cases[i] for i in tests)
        return ProgrammingProblem(
            id, "function", prompt, task.name, starter, kept, _function(task.name, task)
        )
    cases = [(_typed(g), _printed(o)) for g, o in zip(inputs, outputs, strict=True)]
    examples = "\n".join(f"Input:\n{cases[i][0]}Output:\n{cases[i][1]}" for i in shown)
    request = task.request.replace("return ", "print ")
    listed = any(o.startswith("[") for o in outputs)
    if listed:
        request = request.replace("an empty list for an empty list", "an empty line for no numbers")
        request = request.replace("an empty list", "an empty line").replace("[0] for", "0 for")
    request = request.replace("an empty string", "an empty line")
    prompt = (
        f"Write a Python program that reads standard input: {shape.stdin}. {task.steps}"
        f"Print {request}.{' ' + ITEMS if listed else ''}\n\nExamples:\n\n{examples.rstrip()}"
    )
    printed = "print(*solve(" if listed else "print(solve("
    solution = f"{_function('solve', task)}\n\n{printed}{shape.read}))\n"
    return ProgrammingProblem(
        id, "stdin", prompt, None, None, tuple(cases[i] for i in tests), solution
    )


def _typed(arguments: tuple[Any, ...]) -> str:
    """Arguments as the lines of standard input."""
    lines = [" ".join(map(str, a)) if isinstance(a, list) else str(a) for a in arguments]
    return "".join(f"{line}\n" for line in lines)


def _printed(output: str) -> str:
    """The output of a program for a value given by its repr."""
    value = ast.literal_eval(output)
    return (" ".join(map(str, value)) if isinstance(value, list) else str(value)) + "\n"
