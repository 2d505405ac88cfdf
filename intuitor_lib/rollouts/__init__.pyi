from .drawing import own_random_state as own_random_state
from .generation import generate as generate
from .sampling import Completion as Completion, sample_completions as sample_completions
