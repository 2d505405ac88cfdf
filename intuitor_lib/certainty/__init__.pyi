from .completions import (
    completion_log_probs as completion_log_probs,
    score_completions as score_completions,
    token_confidence as token_confidence,
    token_entropy as token_entropy,
    token_self_certainty as token_self_certainty,
)
from .tokens import (
    entropy as entropy,
    self_certainty as self_certainty,
    token_log_probs as token_log_probs,
)
