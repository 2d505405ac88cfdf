"""AlpacaEval 2.0: write outputs for `alpaca_eval` to judge, and read its result back.

The judge is a paid model behind an API, and `alpaca_eval` pins versions that conflict with ours. A
script, `alpaca_judge.sh`, is therefore copied beside the outputs and runs it in its own
environment. `alpaca_eval` computes the length-controlled win rate.
"""

import csv
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...problems import DataError
from ...store.files import write_text

_OUTPUTS, _SCRIPT, _RESULT = "model_outputs.json", "judge.sh", "judge"
_SHARES = ("length_controlled_winrate", "lc_standard_error", "win_rate", "standard_error")


def write_outputs(folder: Path, rows: Sequence[Mapping[str, Any]], generator: str) -> None:
    """Write `model_outputs.json`, from rows with their `dataset`, and the script that judges it.

    `generator` is the model's name in AlpacaEval's tables.
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
    script = Path(__file__).with_name("alpaca_judge.sh").read_text(encoding="utf-8")
    write_text(folder / _SCRIPT, script)


def judging_command(folder: Path) -> str | None:
    """Return the command that judges the outputs in `folder`; None without outputs."""
    script = folder / _SCRIPT
    return f"OPENAI_API_KEY=... bash {shlex.quote(str(script))}" if script.is_file() else None


def read_judgement(folder: Path) -> dict[str, float] | None:
    """Read AlpacaEval's result for the outputs in `folder`; None until they are judged.

    Returns:
        `length_controlled_winrate`, `win_rate`, their standard errors `lc_standard_error` and
        `standard_error` (all in percent), and `n_total`.
    """
    file = folder / _RESULT / "leaderboard.csv"
    if not file.is_file():
        return None
    outputs = json.loads((folder / _OUTPUTS).read_text(encoding="utf-8"))
    generator = outputs[0]["generator"]
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = {row.pop(""): row for row in csv.DictReader(stream)}
        result = {key: float(rows[generator][key]) for key in (*_SHARES, "n_total")}
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
