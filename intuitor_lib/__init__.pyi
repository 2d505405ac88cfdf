__version__: str
from .certainty import score_completions as score_completions, self_certainty as self_certainty
from .evaluation import BENCHMARKS as BENCHMARKS, evaluate as evaluate
from .grading import extract_answer as extract_answer, is_correct as is_correct
from .lab import start as start, watch as watch
from .policy import load_policy as load_policy
from .problems import load_problems as load_problems
from .recipe import (
    PROFILES as PROFILES,
    RECIPES as RECIPES,
    Recipe as Recipe,
    RecipeError as RecipeError,
    get_recipe as get_recipe,
)
from .sharing import export_run as export_run
from .store import Run as Run, RunStore as RunStore
from .training import (
    IntuitorTrainer as IntuitorTrainer,
    SelfCertaintyReward as SelfCertaintyReward,
    train as train,
)
