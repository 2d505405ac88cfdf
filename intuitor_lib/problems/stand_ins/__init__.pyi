from .instructions import instructions as instructions, violations as violations
from .program_outputs import output_questions as output_questions
from .programming import programming_problems as programming_problems
