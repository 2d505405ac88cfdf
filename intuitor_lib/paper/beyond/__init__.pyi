from .foretelling import (
    against_the_gain as against_the_gain,
    foretold as foretold,
    foretold_table as foretold_table,
    in_words as in_words,
    predictors_table as predictors_table,
)
from .outcomes import (
    outcomes as outcomes,
    outcomes_table as outcomes_table,
    steps_table as steps_table,
    tasks_table as tasks_table,
)
from .predictors import base_samples as base_samples
from .stopping import stopping_table as stopping_table, ways_of as ways_of
