from .confine import (
    Completed as Completed,
    SandboxError as SandboxError,
    protections as protections,
    run_python as run_python,
)
