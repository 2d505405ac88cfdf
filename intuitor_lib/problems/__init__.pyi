from .problems import (
    Problem as Problem,
    Problems as Problems,
    gold_answer as gold_answer,
    load_problems as load_problems,
)
from .prompts import (
    control_tokens as control_tokens,
    conversation as conversation,
    fit_prompts as fit_prompts,
    prompt_date as prompt_date,
    prompt_token_ids as prompt_token_ids,
    to_dataset as to_dataset,
)
from .tables import DataError as DataError, read_table as read_table
