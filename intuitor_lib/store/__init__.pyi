from .evaluations import EvaluationRecord as EvaluationRecord
from .run_store import (
    RunStore as RunStore,
    data_folder as data_folder,
    project_root as project_root,
)
from .runs import Run as Run
from .stored import DamagedError as DamagedError, environment as environment
