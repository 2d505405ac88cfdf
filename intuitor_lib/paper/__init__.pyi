from .checks import audit as audit
from .comparison import (
    load_records as load_records,
    missing as missing,
    paper_cells as paper_cells,
    real_cells as real_cells,
    replication_summary as replication_summary,
    side_by_side as side_by_side,
)
from .families import ARCHITECTURES as ARCHITECTURES, tiny_recipe as tiny_recipe
from .gallery import build_gallery as build_gallery
from .numbers import (
    CHECKPOINTS as CHECKPOINTS,
    CLAIMS as CLAIMS,
    FIGURES as FIGURES,
    TABLES as TABLES,
    TRAINING as TRAINING,
    get_table as get_table,
)
from .plan import (
    ARMS as ARMS,
    PLAN as PLAN,
    SEEDS as SEEDS,
    SUITES as SUITES,
    Test as Test,
    planned as planned,
)
from .results import keep as keep, result as result
from .trials import Trial as Trial, collect as collect, confidence as confidence, subject as subject
from .verdicts import (
    NO_GPU as NO_GPU,
    answer as answer,
    change as change,
    claim as claim,
    estimate as estimate,
    measured as measured,
    not_tested as not_tested,
    verdict as verdict,
)
