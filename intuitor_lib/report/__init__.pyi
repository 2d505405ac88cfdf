from .comparisons import (
    compare_methods as compare_methods,
    confidence_histograms as confidence_histograms,
    estimates_against as estimates_against,
    token_text as token_text,
)
from .curves import (
    estimates_over as estimates_over,
    seed_curves as seed_curves,
    training_curves as training_curves,
)
from .intervals import (
    Estimate as Estimate,
    by_problem as by_problem,
    combination_over_seeds as combination_over_seeds,
    difference_over_problems as difference_over_problems,
    mcnemar as mcnemar,
    mean_over_problems as mean_over_problems,
    mean_over_seeds as mean_over_seeds,
    pass_at_k as pass_at_k,
    proportion as proportion,
    summarize as summarize,
)
from .progress import (
    LiveTraining as LiveTraining,
    quiet_transformers as quiet_transformers,
    track as track,
    watch as watch,
)
from .ranks import (
    alignment as alignment,
    auc_within_groups as auc_within_groups,
    mann_whitney as mann_whitney,
    separation as separation,
    separation_change as separation_change,
    spearman as spearman,
)
from .records import load_record as load_record, save_record as save_record
from .style import METHODS as METHODS
from .tables import Table as Table, training_summary as training_summary
