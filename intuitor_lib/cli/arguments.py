"""Arguments that several commands share, and the recipe they describe."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation.benchmarks.sources import FOLDER_VARIABLE
from ..recipe import PROFILES, InputError, Recipe, RecipeError, get_recipe
from ..recipe.files import read_text

if TYPE_CHECKING:
    from ..report import Table


def assignment(text: str) -> tuple[str, Any]:
    """Parse KEY=VALUE; a value that is not JSON is a string."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    try:
        return key.strip(), json.loads(value)
    except json.JSONDecodeError:
        if value in ("None", "True", "False"):
            raise argparse.ArgumentTypeError(f"{text!r}: write null, true or false") from None
        return key.strip(), value


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of at least 1")
    return int(text)


ASSIGNMENTS: dict[str, Any] = {"type": assignment, "action": "append", "default": []}

SHARED: dict[str, dict[str, Any]] = {
    "--runs": {"metavar": "DIR", "help": "run store; default $INTUITOR_RUNS or runs/"},
    "--profile": {"choices": [*PROFILES], "default": "cpu", "help": "default cpu"},
    "--csv": {"metavar": "FILE", "help": "write the table there too"},
    "--benchmarks": {
        "metavar": "DIR",
        "help": f"folder of benchmark files; default ${FOLDER_VARIABLE}",
    },
    "--set": {**ASSIGNMENTS, "metavar": "KEY=VALUE", "help": "change a setting"},
}
"""Options that several commands have."""


class Command(argparse.ArgumentParser):
    """A parser that accepts options between positional arguments."""

    _intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._intermixed:  # called by parse_known_intermixed_args
            return super().parse_known_args(args, namespace)
        self._intermixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixed = False


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `read_recipe`."""
    parser.add_argument("recipe", help="a name of `intuitor recipes`, or a .json or .yaml file")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--set", **SHARED["--set"])
    parser.add_argument("--data", metavar="FILE", help="problems from a jsonl, csv or parquet file")
    parser.add_argument("--prompt-column", metavar="NAME", help="column of the problems in FILE")
    parser.add_argument("--answer-column", metavar="NAME", help="column of the answers, or 'none'")
    text = "of a named recipe; default cpu"
    parser.add_argument("--profile", **SHARED["--profile"] | {"default": None, "help": text})


def read_recipe(options: argparse.Namespace) -> Recipe:
    """Make the recipe that the arguments of `add_recipe` describe."""
    changes = dict(options.set)
    if "profile" in changes:
        raise InputError("--set profile=...: use --profile, which applies the profile's settings")
    if options.seed is not None:
        changes["seed"] = options.seed
    if options.data is not None:
        changes |= {"dataset": str(Path(options.data)), "dataset_kwargs": {}}  # ./x is x
    if options.prompt_column is not None:
        changes["prompt_column"] = options.prompt_column
    if options.answer_column is not None:
        none = options.answer_column.lower() == "none"
        changes["answer_column"] = None if none else options.answer_column
    path = Path(options.recipe)
    if path.suffix not in (".json", ".yaml", ".yml"):
        return get_recipe(options.recipe, options.profile or "cpu", **changes)
    if options.profile is not None:
        raise InputError(
            f"--profile {options.profile} with {path.name}: a profile changes named recipes, and a "
            "file has every setting of its own; change some with --set KEY=VALUE"
        )
    try:
        text = read_text(path)
    except OSError as error:
        raise RecipeError(f"recipe file {str(path)!r} cannot be read: {error}") from error
    recipe = Recipe.from_json(text) if path.suffix == ".json" else Recipe.from_yaml(text)
    return recipe.replace(**changes)


def print_table(table: Table, csv: str | None, *, markdown: bool = False) -> None:
    """Print a table; also write it to the file `csv` if there is one."""
    print(table.to_markdown() if markdown else table)
    if csv is not None:
        Path(csv).parent.mkdir(parents=True, exist_ok=True)
        Path(csv).write_text(table.to_csv(), encoding="utf-8")  # a link or a pipe stays one
