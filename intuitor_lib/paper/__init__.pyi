from .comparison import (
    accuracy_table as accuracy_table,
    claims_table as claims_table,
    load_records as load_records,
    paper_cells as paper_cells,
    paper_table as paper_table,
    questions_table as questions_table,
    save as save,
    verdicts_table as verdicts_table,
)
from .families import (
    ARCHITECTURES as ARCHITECTURES,
    evaluate_checkpoints as evaluate_checkpoints,
    tiny_recipe as tiny_recipe,
)
from .gallery import build_gallery as build_gallery
from .numbers import (
    CHECKPOINTS as CHECKPOINTS,
    CLAIMS as CLAIMS,
    FIGURES as FIGURES,
    TABLES as TABLES,
    TRAINING as TRAINING,
)
from .plan import (
    ARMS as ARMS,
    PLAN as PLAN,
    SEEDS as SEEDS,
    SUITES as SUITES,
    Test as Test,
    asked as asked,
    planned as planned,
    snapshot_steps as snapshot_steps,
)
from .results import result as result
from .separation import (
    figure_8 as figure_8,
    separation_answer as separation_answer,
    signals_table as signals_table,
)
from .trials import Trial as Trial, collect as collect, confidence as confidence
from .verdicts import (
    QUESTIONS as QUESTIONS,
    answers_table as answers_table,
    ask as ask,
    change as change,
    conclude as conclude,
    estimate as estimate,
)
from .views import (
    completions_table as completions_table,
    contrasts as contrasts,
    curves as curves,
    describe as describe,
    forms_table as forms_table,
    gains_table as gains_table,
    kept_without_labels as kept_without_labels,
    levels as levels,
    levels_over_steps as levels_over_steps,
    on_task as on_task,
    one_update as one_update,
    token_examples as token_examples,
    update_table as update_table,
)
