from .constants import (
    EMBEDDED_MODEL as EMBEDDED_MODEL,
    REWARDS as REWARDS,
    SYSTEM_PROMPTS as SYSTEM_PROMPTS,
    InputError as InputError,
    RecipeError as RecipeError,
)
from .recipe import Recipe as Recipe
from .recipes import (
    PROFILES as PROFILES,
    RECIPES as RECIPES,
    NamedRecipe as NamedRecipe,
    Profile as Profile,
    get_recipe as get_recipe,
)
