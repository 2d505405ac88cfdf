"""The arguments of the commands (`commands.yaml`), and the recipe that some describe."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..evaluation.benchmarks.sources import FOLDER_VARIABLE
from ..grading import EXTRACTIONS
from ..recipe import (
    EMBEDDED_MODELS,
    PROFILES,
    SYSTEM_PROMPTS,
    InputError,
    Recipe,
    RecipeError,
    get_recipe,
)
from ..recipe.files import read_text
from ..store.files import write_text

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
        return key.strip(), value


_TYPES: Mapping[str, Any] = {"int": int, "float": float, "assignment": assignment}
_NAMES: Mapping[str, Sequence[str]] = {
    "profiles": [*PROFILES],
    "models": [*EMBEDDED_MODELS],
    "prompts": [*SYSTEM_PROMPTS],
    "extractions": EXTRACTIONS,
    "folder": [FOLDER_VARIABLE],
}


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


def add_commands(commands: Any, functions: Mapping[str, Callable[..., int]]) -> None:
    """Add the parsers of `commands.yaml`, each with the function of its name as `command`."""
    shown = {name: ", ".join(names) for name, names in _NAMES.items()}
    text = Path(__file__).with_name("commands.yaml").read_text(encoding="utf-8")
    for name, about in yaml.safe_load(text).items():
        if name.startswith("."):
            continue
        verb = commands.add_parser(name, help=about["help"], description=about["help"])
        verb.set_defaults(command=functions[name])
        for flags, settings in about["arguments"].items():
            if "help" in settings:
                settings = settings | {"help": settings["help"].format_map(shown)}
            if "type" in settings:
                settings = settings | {"type": _TYPES[settings["type"]]}
            if isinstance(settings.get("choices"), str):
                settings = settings | {"choices": _NAMES[settings["choices"]]}
            verb.add_argument(*flags.split(), **settings)


def read_recipe(options: argparse.Namespace) -> Recipe:
    """Make the recipe that the arguments of `train` describe."""
    changes = dict(options.set)
    if "profile" in changes:
        raise InputError("--set profile=...: use --profile, which applies the profile's settings")
    if options.seed is not None:
        changes["seed"] = options.seed
    if options.data is not None:
        changes |= {"dataset": options.data, "dataset_kwargs": {}}
    if options.prompt_column is not None:
        changes["prompt_column"] = options.prompt_column
    if options.answer_column is not None:
        none = options.answer_column.lower() == "none"
        changes["answer_column"] = None if none else options.answer_column
    path = Path(options.recipe)
    if path.suffix not in (".json", ".yaml", ".yml"):
        return get_recipe(options.recipe, options.profile, **changes)
    try:
        text = read_text(path)
    except OSError as error:
        raise RecipeError(f"recipe file {str(path)!r} cannot be read: {error}") from error
    recipe = Recipe.from_json(text) if path.suffix == ".json" else Recipe.from_yaml(text)
    return recipe.replace(**changes)


def print_table(table: Table, csv: str | None) -> None:
    """Print a table; also write it to the file `csv` if there is one."""
    print(table)
    if csv is not None:
        write_text(Path(csv), table.to_csv())
