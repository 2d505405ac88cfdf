"""AlpacaEval's files: outputs as it reads them, its verdict as it writes it."""

import json
import shutil
import subprocess

import pytest

from intuitor_lib.evaluation.benchmarks.alpaca import judging_command, read_judgement, write_outputs
from intuitor_lib.problems.tables import DataError

ROWS = [
    {"prompt": "Say hi.", "completion": "Hi!", "dataset": "helpful_base"},
    {"prompt": "Say bye.", "completion": "Bye.", "dataset": "koala"},
]
# A row as alpaca_eval 0.6.6 writes it.
HEADER = (
    ",win_rate,standard_error,n_wins,n_wins_base,n_draws,n_total,discrete_win_rate,mode,"
    "avg_length,length_controlled_winrate,lc_standard_error"
)
ROW = "tiny,12.5,1.25,1,1,0,2,50.0,community,3,10.25,0.5"


def judge(folder, *lines):
    (folder / "judge").mkdir(exist_ok=True)
    (folder / "judge" / "leaderboard.csv").write_text("\n".join([HEADER, *lines]) + "\n")


def test_outputs_are_as_alpaca_eval_reads_them(tmp_path):
    assert judging_command(tmp_path) is None
    write_outputs(tmp_path, ROWS, "tiny")
    command = judging_command(tmp_path)
    outputs = json.loads((tmp_path / "model_outputs.json").read_text())
    assert outputs[0] == {
        "dataset": "helpful_base",
        "instruction": "Say hi.",
        "output": "Hi!",
        "generator": "tiny",
    }
    assert len(outputs) == 2
    assert str(tmp_path / "judge.sh") in command
    assert read_judgement(tmp_path) is None


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_is_shell_and_asks_for_the_key_first(tmp_path):
    write_outputs(tmp_path, ROWS, "tiny")
    script = tmp_path / "judge.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    done = subprocess.run(
        ["bash", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "OPENAI_API_KEY" in done.stderr
    assert "'gpt-4.1'" in script.read_text()


def test_the_verdict_is_read_back(tmp_path):
    write_outputs(tmp_path, ROWS, "tiny")
    judge(tmp_path, "other,50,1,1,1,0,805,50,community,9,60,1", ROW)
    found = read_judgement(tmp_path)
    assert found["length_controlled_winrate"] == 10.25
    assert found["lc_standard_error"] == 0.5
    assert found["win_rate"] == 12.5
    assert found["n_total"] == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (ROW.replace("tiny", "other"), "no result for 'tiny'"),
        (ROW.replace("10.25", "many"), "no result for 'tiny'"),
        (ROW.replace(",2,50.0", ",805,50.0"), "judges 805 outputs, there are 2"),
    ],
)
def test_a_verdict_on_something_else_is_refused(line, message, tmp_path):
    write_outputs(tmp_path, ROWS, "tiny")
    judge(tmp_path, line)
    with pytest.raises(DataError, match=message):
        read_judgement(tmp_path)
