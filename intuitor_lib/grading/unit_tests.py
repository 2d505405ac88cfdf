"""Unit tests of programs that a model wrote, each run in the sandbox.

Three kinds of tests, as plain mappings:

    {"kind": "check", "setup": source, "test": source, "entry_point": name}
        HumanEval: `test` defines check(candidate), which raises where the candidate is wrong
    {"kind": "function", "entry_point": "name" or "Class.method", "form": "literal" or "json",
     "tests": [[arguments, expected], ...]}
        a call for each pair; literals as `1, [2]`, or JSON values one per line (LiveCodeBench)
    {"kind": "stdin", "tests": [[input, expected output], ...]}
        a run of the whole program for each pair

For the last two kinds the expected values never enter the sandbox: results are compared outside. A
check runs beside the program and must reach its end; a program that ends the process early fails,
and so does one whose result is of a class of its own.
"""

import ast
import json
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

from .cores import cores
from .sandbox.confine import Completed, run_python

SECONDS_PER_TEST = 6.0
"""Seconds for each test, as in LiveCodeBench."""

_MODULES = (
    *("bisect", "collections", "copy", "datetime", "functools", "heapq", "io", "itertools", "json"),
    *("math", "operator", "random", "re", "statistics", "string", "sys", "typing"),
)
IMPORTS = "".join(
    [
        *(f"from {name} import *\n" for name in _MODULES),
        "from builtins import *\n",  # math's pow and io's open are not those of a program
        f"import {', '.join(_MODULES)}\n",
        "sys.setrecursionlimit(50_000)\n",
    ]
)
"""What LiveCodeBench runs before a solution: the names of these modules, and room to recurse."""

_MAX_COMPARED = 10_000_000  # bytes of output; no right result is longer
_STARTUP_SECONDS = 5.0
_First = TypeVar("_First")
_Result = TypeVar("_Result")

# Both harnesses read their specification before the program runs, which then finds no input.
_CALLS = """\
import ast, functools, json, os, signal, sys
from collections import deque
from fractions import Fraction
spec = json.loads(sys.stdin.readline())
emit = os.fdopen(os.dup(1), "w")
sys.set_int_max_str_digits(0)

def late(*_):
    raise TimeoutError(f"over {spec['seconds']:g} s")

# Built-in containers and values alone: no class of the program decides what it equals.
def plain(value):
    kind = type(value)
    if issubclass(kind, dict):
        return {plain(key): plain(item) for key, item in dict.items(value)}
    for base in (list, tuple, set, frozenset, deque):
        if issubclass(kind, base):
            return base(map(plain, base.__iter__(value)))
    if not kind.__flags__ & 1 << 9:  # a type in C
        return map(plain, value) if hasattr(kind, "__next__") else value
    for base, convert in ((int, int.__int__), (float, float.__float__), (str, str.__str__)):
        if issubclass(kind, base):
            return convert(value)
    if kind is Fraction:
        return kind(value.numerator, value.denominator)
    raise TypeError(f"the result is of a class of the program: {kind.__name__}")

signal.signal(signal.SIGALRM, late)
space = {"__name__": "solution"}
exec(spec["setup"], space)
exec(compile(spec["code"], "solution.py", "exec"), space)
target = space
for part in spec["entry_point"].split("."):
    target = target[part] if isinstance(target, dict) else getattr(target(), part)
if "test" in spec:
    exec(compile(spec["test"], "test.py", "exec"), space)
    space["check"](functools.wraps(target)(lambda *given, **named: plain(target(*given, **named))))
    print("\\n" + spec["mark"], file=emit, flush=True)
for text in spec.get("arguments", ()):
    if spec["form"] == "json":
        arguments = [json.loads(line) for line in text.split("\\n") if line.strip()]
    else:
        arguments = ast.literal_eval(f"({text},)" if text.strip() else "()")
    signal.setitimer(signal.ITIMER_REAL, spec["seconds"])
    result = target(*arguments)
    signal.setitimer(signal.ITIMER_REAL, 0)
    result = dict(result) if isinstance(result, dict) else result
    print("\\n" + spec["mark"] + repr(result).replace("\\n", " "), file=emit, flush=True)
"""

# One fork per test from a started interpreter takes a millisecond. The child has no access to the
# harness's output, so it cannot fake a result.
_RUNS = """\
import json, os, sys, time
from multiprocessing import get_context
from tempfile import TemporaryFile
spec = json.loads(sys.stdin.readline())
emit = os.fdopen(os.dup(1), "w")

def child(given, said, erred):
    emit.close()
    for target, file in enumerate((given, said, erred)):
        os.dup2(file.fileno(), target)
    sys.stdin, sys.stdout, sys.stderr = (open(i, "r" if i == 0 else "w") for i in range(3))
    space = {"__name__": "__main__"}
    exec(spec["setup"], space)
    exec(compile(spec["code"], "solution.py", "exec"), space)

for text in spec["inputs"]:
    with TemporaryFile() as given, TemporaryFile() as said, TemporaryFile() as erred:
        given.write(text.encode("utf-8", "replace"))
        given.seek(0)
        process = get_context("fork").Process(target=child, args=(given, said, erred))
        process.start()
        end = time.monotonic() + spec["seconds"]
        while process.exitcode is None and time.monotonic() < end:
            time.sleep(0.001)  # join() would wait for its children, too
        late = process.exitcode is None
        process.kill()
        process.join()
        code = process.exitcode
        status = "timeout" if late else "killed" if code < 0 else "error" if code else "ok"
        said.seek(0)
        erred.seek(0)
        result = {
            "status": status,
            "out": said.read(spec["most"]).decode("utf-8", "replace"),
            "err": erred.read()[-2000:].decode("utf-8", "replace"),
        }
        print(spec["mark"] + json.dumps(result), file=emit, flush=True)
        if status != "ok":
            break
"""


def run_tests(
    code: str, tests: Mapping[str, Any], *, seconds: float = SECONDS_PER_TEST
) -> tuple[bool, str]:
    """Whether a program passes all its tests, and its first failure in a few words.

    `tests` is a mapping of one of the kinds above. `seconds` limits each test, and ten times that
    all tests together.

    Raises:
        ValueError: as `check_tests`.
        SandboxError: programs cannot be confined here; no `code` makes it raise.
    """
    check_tests(tests)
    run = {"check": _check, "function": _calls, "stdin": _runs}[tests["kind"]]
    return run(code, tests, seconds)


_TEXTS = {
    "check": ("setup", "test", "entry_point"),
    "function": ("entry_point", "form"),
    "stdin": (),
}


def check_tests(tests: Mapping[str, Any]) -> None:
    """Check that tests are of one of the kinds above.

    Raises:
        ValueError: an unknown kind, or something that its tests need is not there or no text.
    """
    kind = tests.get("kind")
    if kind not in _TEXTS:
        raise ValueError(f"tests are of kind {kind!r}: expected {', '.join(_TEXTS)}")
    for key in _TEXTS[kind]:
        if not isinstance(tests.get(key), str):
            raise ValueError(f"tests of kind {kind!r} need a text {key!r}: {tests.get(key)!r}")
    if kind == "function" and tests["form"] not in ("literal", "json"):
        raise ValueError(f"form={tests['form']!r}: expected 'literal' or 'json'")
    pairs = tests.get("tests") if kind != "check" else ()
    if not isinstance(pairs, list | tuple):
        raise ValueError(f"tests of kind {kind!r} need a list 'tests' of pairs: {pairs!r:.60}")
    for pair in pairs:
        is_pair = isinstance(pair, list | tuple) and len(pair) == 2
        if not is_pair or not all(isinstance(text, str) for text in pair):
            raise ValueError(f"a test is {pair!r:.60}: expected a pair of texts, [given, expected]")


def in_threads(work: Callable[[_First], _Result], items: Sequence[_First]) -> list[_Result]:
    """`work` on every item in as many threads as cores; after an interrupt it begins no more."""
    with ThreadPoolExecutor(cores()) as executor:
        return list(executor.map(work, items))


def _check(code: str, tests: Mapping[str, Any], seconds: float) -> tuple[bool, str]:
    spec = {key: tests[key] for key in ("setup", "test", "entry_point")}
    done, told = _harness(_CALLS, code, spec, seconds, 1)
    passed = done.status == "ok" and bool(told)
    return passed, "passed" if passed else _failure(done.status, done.stderr)


def _calls(code: str, tests: Mapping[str, Any], seconds: float) -> tuple[bool, str]:
    pairs = tests["tests"]
    spec = {
        "setup": IMPORTS,
        "entry_point": tests["entry_point"],
        "form": tests["form"],
        "arguments": [arguments for arguments, _ in pairs],
    }
    # A loop in C code is not stopped by the limit of one call, only by that of all.
    ran = _harness(_CALLS, code, spec, seconds, len(pairs))
    read = json.loads if tests["form"] == "json" else ast.literal_eval

    def fault(result: str, expected: str) -> str | None:
        return None if _same_result(result, expected, read) else "wrong result"

    return _first_failure(pairs, fault, *ran)


def _runs(code: str, tests: Mapping[str, Any], seconds: float) -> tuple[bool, str]:
    pairs = tests["tests"]
    spec = {
        "setup": IMPORTS,
        "inputs": [given for given, _ in pairs],
        "most": max([1 << 20, *(4 * len(expected) for _, expected in pairs)]),
    }
    ran = _harness(_RUNS, code, spec, seconds, len(pairs))

    def fault(line: str, expected: str) -> str | None:
        result = json.loads(line)
        if result["status"] != "ok":
            return _failure(result["status"], result["err"])
        return None if _same_output(result["out"], expected) else "wrong output"

    return _first_failure(pairs, fault, *ran)


def _first_failure(
    pairs: Sequence[Sequence[str]],
    fault: Callable[[str, str], str | None],
    done: Completed,
    results: Sequence[str],
) -> tuple[bool, str]:
    ended = _failure(done.status, done.stderr)  # before a test that has no result
    for i, (_, expected) in enumerate(pairs):
        reason = fault(results[i], expected) if i < len(results) else ended
        if reason is not None:
            return False, f"test {i + 1} of {len(pairs)}: {reason}"
    return True, "passed"


def _harness(
    harness: str, code: str, spec: Mapping[str, Any], seconds: float, n: int
) -> tuple[Completed, list[str]]:
    """How a harness with n tests ended, and its own lines among those that the program printed."""
    mark = secrets.token_hex(16)
    given = json.dumps({**spec, "code": code, "mark": mark, "seconds": seconds}) + "\n"
    limit = seconds * min(n, 10) + _STARTUP_SECONDS
    done = run_python(harness, given, timeout_s=limit, output_bytes=_MAX_COMPARED)
    lines = done.stdout.split("\n")
    return done, [line.removeprefix(mark) for line in lines if line.startswith(mark)]


def _failure(status: str, stderr: str) -> str:
    """Why a program that did not pass ended with a status of `Completed`, in a few words."""
    if status != "error":
        return "ended early" if status == "ok" else status
    last = (stderr.strip().splitlines() or ["exit status other than 0"])[-1]
    if last.startswith("TimeoutError: over"):
        return "timeout"
    return "memory" if last.startswith("MemoryError") else f"error: {last[:200]}"


def _same_result(result: str, expected: str, read: Callable[[str], Any]) -> bool:
    if result == expected:
        return True
    try:
        return _same(ast.literal_eval(result), read(expected), tuples=read is ast.literal_eval)
    # A hostile result can make the parser raise any of these.
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False


def _same(given: Any, expected: Any, *, tuples: bool) -> bool:
    """Python's ==, but floats agree to 1e-9 and a tuple is a list unless `tuples`."""
    if isinstance(given, tuple) and not tuples:
        given = list(given)
    if isinstance(given, list | tuple) and type(given) is type(expected):
        return len(given) == len(expected) and all(
            _same(g, e, tuples=tuples) for g, e in zip(given, expected, strict=True)
        )
    if isinstance(given, float) or isinstance(expected, float):
        numbers = (int, float)
        if isinstance(given, numbers) and isinstance(expected, numbers):
            return given == expected or math.isclose(given, expected, rel_tol=1e-9, abs_tol=1e-9)
    return bool(given == expected)


def _same_output(given: str, expected: str) -> bool:
    """Equal line by line, without surrounding space; numbers by value, as in LiveCodeBench."""
    ours, theirs = ([ln.strip() for ln in text.strip().split("\n")] for text in (given, expected))
    return len(ours) == len(theirs) and all(
        a == b or _same_numbers(a.split(), b.split()) for a, b in zip(ours, theirs, strict=True)
    )


def _same_numbers(given: Sequence[str], expected: Sequence[str]) -> bool:
    if len(given) != len(expected):
        return False
    try:
        return all(Decimal(g) == Decimal(e) for g, e in zip(given, expected, strict=True))
    except InvalidOperation:
        return False
