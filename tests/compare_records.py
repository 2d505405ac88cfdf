"""Compare the notebooks' records of two folders: every number, verdict and table cell.

    python tests/compare_records.py data/records runs/records

Environments are left out: they name machine and versions. Exit status 1 where anything differs.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def differences(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Where two JSON values differ: `values.claims.rises.value: 0.1 -> 0.2`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            inner = f"{place}.{key}" if place else str(key)
            yield from differences(before.get(key), after.get(key), inner)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, f"{place}[{i}]")
    elif before != after:
        yield f"{place}: {before!r} -> {after!r}"


def main() -> int:
    """Print every difference, and how many records are equal."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", type=Path, help="a folder of records")
    parser.add_argument("after", type=Path, help="another one")
    options = parser.parse_args()
    equal = 0
    files = sorted(options.before.glob("*.json"))
    for file in files:
        other = options.after / file.name
        if not other.is_file():
            print(f"{file.name}: not in {options.after}")
            continue
        records = [json.loads(f.read_text(encoding="utf-8")) for f in (file, other)]
        found = [*differences(*({**record, "environment": None} for record in records))]
        equal += not found
        for line in found:
            print(f"{file.name}: {line}")
    print(f"{equal} of {len(files)} records are equal")
    return int(equal < len(files) or not files)


if __name__ == "__main__":
    sys.exit(main())
