"""Named recipes, one or more per experiment of the paper, and profiles that fit them to a machine.

Both are kept in `recipes.yaml`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .constants import RecipeError, read_yaml
from .recipe import Recipe, require_known


@dataclass(frozen=True)
class Profile:
    """A machine and the settings that fit a recipe to it.

    `verified` names the hardware on which the profile has been run; empty for none. One that
    `extends` another makes each recipe as that one does, and then changes its own settings.
    """

    name: str
    description: str
    settings: Mapping[str, Any]
    verified: str = ""
    extends: str | None = None


@dataclass(frozen=True)
class NamedRecipe:
    """Settings under a name, the result they reproduce, and changes `under` single profiles."""

    name: str
    reproduces: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    under: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_FILE = read_yaml(__file__, "recipes.yaml")

PROFILES: Mapping[str, Profile] = {
    name: Profile(name, **entry) for name, entry in _FILE["profiles"].items()
}

RECIPES: Mapping[str, NamedRecipe] = {
    name: NamedRecipe(name, **entry) for name, entry in _FILE["recipes"].items()
}

# Settings that belong to a recipe's own problems and do not apply to others.
_OWN_PROBLEMS = (*_FILE[".products"], "max_prompt_length", "max_completion_length")


def get_recipe(name: str, /, profile: str = "paper", **changes: Any) -> Recipe:
    """A named recipe under a profile, with some settings changed.

    Later values win: defaults, the recipe's settings, the profile's, the recipe's changes under
    that profile, `changes`. If `changes` names another `dataset`, the recipe's settings for its
    own problems under that profile are left out.

    Raises:
        RecipeError: an unknown name, profile or setting, or a value that cannot be trained.
    """
    if name not in RECIPES:
        raise RecipeError(f"unknown recipe {name!r}: choose from {', '.join(RECIPES)}")
    if profile not in PROFILES:
        raise RecipeError(f"unknown profile {profile!r}: choose from {', '.join(PROFILES)}")
    require_known(changes)
    named, chosen = RECIPES[name], PROFILES[profile]
    base = PROFILES[chosen.extends or profile]
    under = dict(named.under.get(base.name, {}))
    if changes.get("dataset", under.get("dataset")) != under.get("dataset"):
        under = {key: value for key, value in under.items() if key not in _OWN_PROBLEMS}
    if "eval_problems" not in {**named.settings, **under, **changes}:
        under.pop("eval_steps", None)
    more = chosen.settings if chosen.extends else {}
    settings = {**named.settings, **base.settings, **under, **more}
    return Recipe(**{"name": name, "profile": profile, **settings, **changes})
