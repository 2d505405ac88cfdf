from .run_store import (
    RunStore as RunStore,
    data_folder as data_folder,
    project_root as project_root,
)
from .runs import Run as Run
from .stored import (
    FORMAT as FORMAT,
    DamagedError as DamagedError,
    EvaluationRecord as EvaluationRecord,
    environment as environment,
    require_readable as require_readable,
)
