"""AlpacaEval 2.0: write outputs for `alpaca_eval` to judge, and read its result back.

The judge is a paid model behind an API, and `alpaca_eval` pins versions that conflict with ours. A
script written beside the outputs therefore runs it in its own environment. `alpaca_eval` computes
the length-controlled win rate.
"""

import csv
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...problems import DataError
from ...store.files import write_text

JUDGE = "gpt-4.1"
"""The paper's judge; AlpacaEval's own default is gpt-4-1106-preview."""

_OUTPUTS, _SCRIPT, _RESULT = "model_outputs.json", "judge.sh", "judge"
_JUDGED = (
    "length_controlled_winrate",
    "lc_standard_error",
    "win_rate",
    "standard_error",
    "n_total",
    "avg_length",
)

# datasets 4 dropped the loading scripts that alpaca_eval's data needs, setuptools 81 the
# pkg_resources it imports.
_JUDGING = """\
#!/usr/bin/env bash
# Judges {outputs} with AlpacaEval 2.0's own annotator and {judge} as the judge.
# Needs OPENAI_API_KEY (it costs money) and the Hugging Face hub. Results go to {result}/.
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
: "${{OPENAI_API_KEY:?set OPENAI_API_KEY, the judge is paid}}"
env=${{ALPACA_EVAL_ENV:-$HOME/.cache/intuitor/alpaca-eval}}
if [ ! -x "$env/bin/alpaca_eval" ]; then
    {python} -m venv "$env"
    "$env/bin/python" -m pip install --quiet alpaca-eval==0.6.6 'datasets<4' 'setuptools<81'
fi
# alpaca_eval reads a prompt beside its configuration, so both are copied and the judge's name
# is replaced. Verdicts already paid for are kept beside it.
"$env/bin/python" - <<'END'
import importlib.util, pathlib, shutil
package = pathlib.Path(importlib.util.find_spec("alpaca_eval").origin).parent
source = package / "evaluators_configs"
target = pathlib.Path("annotators")
for name in ("weighted_alpaca_eval_gpt4_turbo", "alpaca_eval_clf_gpt4_turbo"):
    shutil.copytree(source / name, target / name, dirs_exist_ok=True)
config = target / "weighted_alpaca_eval_gpt4_turbo" / "configs.yaml"
text = config.read_text()
if "gpt-4-1106-preview" not in text:
    raise SystemExit("this alpaca_eval names another judge than expected")
config.write_text(text.replace("gpt-4-1106-preview", {judge!r}))
END
"$env/bin/alpaca_eval" --model_outputs {outputs} --output_path {result} \\
    --annotators_config "$PWD/annotators/weighted_alpaca_eval_gpt4_turbo"
"""


def write_outputs(folder: Path, rows: Sequence[Mapping[str, Any]], generator: str) -> None:
    """Write `model_outputs.json` and the script that `judging_command` runs.

    Args:
        folder: the evaluation's folder.
        rows: rows with `id`, `prompt` (the instruction), `completion` and `dataset`.
        generator: the model's name in AlpacaEval's tables.
    """
    outputs = [
        {
            "dataset": row.get("dataset", ""),
            "instruction": row["prompt"],
            "output": row["completion"],
            "generator": generator,
        }
        for row in rows
    ]
    write_text(folder / _OUTPUTS, json.dumps(outputs, indent=2) + "\n")
    script = _JUDGING.format(outputs=_OUTPUTS, judge=JUDGE, result=_RESULT, python="python3")
    write_text(folder / _SCRIPT, script)


def judging_command(folder: Path) -> str | None:
    """Return the command that judges the outputs in `folder`; None without outputs."""
    script = folder / _SCRIPT
    return f"OPENAI_API_KEY=... bash {shlex.quote(str(script))}" if script.is_file() else None


def read_judgement(folder: Path) -> dict[str, float] | None:
    """Read AlpacaEval's result for the outputs in `folder`; None until they are judged.

    Returns:
        `length_controlled_winrate`, `win_rate`, their standard errors `lc_standard_error` and
        `standard_error` (all in percent), `n_total` and `avg_length` (characters).

    Raises:
        DataError: the result cannot be read, or is not for these outputs.
    """
    file = folder / _RESULT / "leaderboard.csv"
    if not file.is_file():
        return None
    outputs = json.loads((folder / _OUTPUTS).read_text(encoding="utf-8"))
    generator = outputs[0]["generator"]
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = {row.pop(""): row for row in csv.DictReader(stream)}
        result = {key: float(rows[generator][key]) for key in _JUDGED}
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{file} holds no result for {generator!r} ({error!r}): judge again with {_SCRIPT}"
        ) from error
    if result["n_total"] != len(outputs):
        raise DataError(
            f"{file} judges {result['n_total']:.0f} outputs, there are {len(outputs)}: judge "
            f"again with {_SCRIPT}"
        )
    return result
