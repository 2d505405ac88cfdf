"""LiveCodeBench's raw files: problems and their packed tests.

`datasets` runs no loading scripts, so the jsonl files of `livecodebench/code_generation_lite` are
read directly. Each holds over a gigabyte of tests, so a problem keeps the offset of its line and
its tests are read when it is graded. The private tests are base64 of zlib of a pickled JSON text;
the unpickler used here refuses every class.
"""

import base64
import hashlib
import io
import json
import pickle
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...problems import DataError

MAX_UNPACKED = 1 << 30  # bytes; release_v6 stays far below


class _TextOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}; only text is read")


def unpack_tests(packed: str) -> list[dict[str, Any]]:
    """Read test cases (`input`, `output`, `testtype`) from their JSON text, packed or not."""
    try:
        if packed.lstrip().startswith("["):
            cases = json.loads(packed)
        else:
            inflate = zlib.decompressobj()
            data = inflate.decompress(base64.b64decode(packed, validate=True), MAX_UNPACKED)
            if not inflate.eof:
                raise ValueError(f"over {MAX_UNPACKED} bytes unpacked, or cut off")
            text = _TextOnly(io.BytesIO(data)).load()
            cases = json.loads(text)
    except Exception as error:  # a pickle can raise any
        raise DataError(
            f"test cases cannot be unpacked ({type(error).__name__}: {error}): take the file "
            "from the hub again"
        ) from error
    if not isinstance(cases, list) or not all(
        isinstance(case, dict) and {"input", "output"} <= case.keys() for case in cases
    ):
        raise DataError("test cases are no list of {input, output, testtype}")
    return cases


def read_problems(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a raw file, without the private tests.

    They have `file` and `offset`, their place, and `tests`, the SHA-256 of all tests.
    """
    offset = 0
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    row = _parse(line, file, number)
                    tests = row["public_test_cases"] + row.pop("private_test_cases")
                    digest = hashlib.sha256(tests.encode("utf-8", "surrogatepass")).hexdigest()
                    yield row | {"file": str(file), "offset": offset, "tests": digest}
                offset += len(line)
    except OSError as error:
        raise DataError(f"cannot read {file} ({error.strerror})") from error


def _parse(line: bytes, file: Path, number: int) -> dict[str, Any]:
    needed = ("question_id", "question_content", "public_test_cases", "private_test_cases")
    try:
        row = json.loads(line)
        missing = [key for key in needed if not isinstance(row[key], str)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{file}, line {number}: no LiveCodeBench problem ({error!r})") from error
    if missing:
        raise DataError(f"{file}, line {number}: {missing[0]} is no text")
    return row


def unit_tests_of(problem: Mapping[str, Any]) -> dict[str, Any]:
    """Read all tests of a problem from `read_problems`, in the form of `unit_tests.run_tests`."""
    with Path(problem["file"]).open("rb") as stream:
        stream.seek(problem["offset"])
        row = json.loads(stream.readline())
    cases = [*unpack_tests(row["public_test_cases"]), *unpack_tests(row["private_test_cases"])]
    pairs = [[case["input"], case["output"]] for case in cases]
    name = entry_point(row)
    if name is None:
        return {"kind": "stdin", "tests": pairs}
    return {"kind": "function", "form": "json", "entry_point": name, "tests": pairs}


def entry_point(row: Mapping[str, Any]) -> str | None:
    """`Solution.method` of a problem that wants a method, None of one that reads stdin."""
    name = json.loads(row.get("metadata") or "{}").get("func_name")
    return f"Solution.{name}" if name else None
