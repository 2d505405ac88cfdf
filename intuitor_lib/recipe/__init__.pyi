from .constants import (
    EMBEDDED_MODEL as EMBEDDED_MODEL,
    REWARDS as REWARDS,
    SYSTEM_PROMPTS as SYSTEM_PROMPTS,
    InputError as InputError,
    RecipeError as RecipeError,
)
from .profiles import PROFILES as PROFILES, Profile as Profile
from .recipe import Recipe as Recipe
from .recipes import RECIPES as RECIPES, NamedRecipe as NamedRecipe, get_recipe as get_recipe
