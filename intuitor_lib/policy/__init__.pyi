from .adapters import reference_policy as reference_policy
from .embedded import embedded_model_folder as embedded_model_folder
from .loading import (
    Policy as Policy,
    compute_dtype as compute_dtype,
    describe_policy as describe_policy,
    load_model as load_model,
    load_policy as load_policy,
    load_run as load_run,
)
