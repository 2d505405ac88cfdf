"""How long each notebook takes at `smoke`, held against what was measured.

    python tests/notebook_seconds.py

reads the run store (`INTUITOR_RUNS`) where `intuitor reproduce --profile smoke --jobs 2` executed
all of them. Whoever adds a notebook adds its seconds. Exit status 1: a notebook takes more than
`CAP` times its seconds, or has none here.
"""

import sys

import nbformat

from intuitor_lib import RunStore

SECONDS = {
    "00_quickstart": 58,
    "01_self_certainty": 102,
    "02_main_results": 139,
    "03_early_learning": 50,
    "04_transfer": 42,
    "05_emergent_reasoning": 146,
    "06_online_vs_offline": 135,
    "07_kl_penalty": 97,
    "08_model_families": 30,
    "09_reward_controls": 100,
    "10_your_own_task": 80,
    "11_mixed_rewards": 150,
    "12_when_does_it_work": 110,
}
"""On two cores of an AMD EPYC without AVX-512, two notebooks at a time, one thread each."""

CAP = 3.0
"""Other machines are slower, and two notebooks wait for a training that they share."""


def main() -> int:
    """Print the table; 1 if a notebook is over its cap or has no entry."""
    folder = RunStore().root / "notebooks" / "smoke"
    failed = 0
    for name in sorted({*SECONDS, *(path.stem for path in folder.glob("*.ipynb"))}):
        file, taken = folder / f"{name}.ipynb", float("inf")
        if file.is_file():
            taken = nbformat.read(file, as_version=4).metadata["papermill"]["duration"] or taken
        cap = max(60.0, CAP * SECONDS[name]) if name in SECONDS else 0.0
        failed += taken > cap
        verdict = "" if taken <= cap else "  over its cap"
        print(f"{name:<24} {taken:6.0f} s, cap {cap:4.0f} s{verdict}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
