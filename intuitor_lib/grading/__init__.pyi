from .answers import (
    EXTRACTIONS as EXTRACTIONS,
    clusters as clusters,
    describe_doubts as describe_doubts,
    doubtful as doubtful,
    echoed as echoed,
    extract_answer as extract_answer,
    extract_answers as extract_answers,
    grade as grade,
    grade_labelled as grade_labelled,
    in_plurality as in_plurality,
    is_correct as is_correct,
    plurality as plurality,
)
from .choices import extract_choice as extract_choice
from .equivalence import equivalent as equivalent
from .forms import (
    code_answer_type as code_answer_type,
    extract_code as extract_code,
    extract_field as extract_field,
    reasons_before_json as reasons_before_json,
    same_value as same_value,
)
from .unit_tests import run_tests as run_tests
