from .constants import (
    EMBEDDED_MODELS as EMBEDDED_MODELS,
    QWEN_CODER as QWEN_CODER,
    REWARDS as REWARDS,
    SMOLLM2 as SMOLLM2,
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
