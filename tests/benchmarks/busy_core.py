"""Seconds of a quickstart step with idle cores and with one kept busy, threads spinning or passive.

    python tests/benchmarks/busy_core.py

Threads of OpenMP spin by default while they wait for the slowest one, and take from other work the
core on which that one could run. Each case trains three steps in fp32; five to seven minutes.
"""

import os
import subprocess
import sys
import tempfile

TRAIN = """
import sys, warnings
warnings.simplefilter("ignore")
from intuitor_lib import get_recipe, train
settings = {"max_steps": 3, "preflight_problems": 0, "eval_steps": None, "dtype": "float32"}
run = train(get_recipe("quickstart", "cpu", **settings), runs=sys.argv[1])
print(*(f"{row['step_time']:.1f}" for row in run.metrics))
"""


def step_seconds(policy: str, *, busy: bool) -> str:
    """Seconds of three steps under a wait policy of OpenMP, beside a process that never waits."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        with tempfile.TemporaryDirectory() as runs:
            environment = {**os.environ, "OMP_WAIT_POLICY": policy}
            if policy == "default":
                del environment["OMP_WAIT_POLICY"]
            done = subprocess.run(
                [sys.executable, "-c", TRAIN, runs],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
    finally:
        if other is not None:
            other.kill()
    return done.stdout.splitlines()[-1]


if __name__ == "__main__":
    for busy in (False, True):
        for policy in ("default", "PASSIVE"):
            cores = "one core busy" if busy else "idle"
            print(f"{cores:<14} {policy:<8} {step_seconds(policy, busy=busy)} s", flush=True)
