from .predictors import (
    against_the_gain as against_the_gain,
    base_samples as base_samples,
    foretold as foretold,
    foretold_table as foretold_table,
    outcomes as outcomes,
    outcomes_table as outcomes_table,
    predictors_table as predictors_table,
    tasks_table as tasks_table,
)
from .stopping import stopping_table as stopping_table, ways_of as ways_of
