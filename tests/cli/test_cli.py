"""The console script: exit status, last line, messages."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from intuitor_lib import get_recipe
from intuitor_lib.cli.arguments import Command, add_recipe, print_table, read_recipe
from intuitor_lib.cli.script import _parser, main
from intuitor_lib.recipe import SMOLLM2
from intuitor_lib.report import Table

MATH = Path(__file__).parents[3] / "shared" / "data" / "math_train.jsonl"


@pytest.fixture
def recipe_file(tiny_recipe, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe.to_dict()), encoding="utf-8")
    return str(path)


def test_train_prints_the_runs_folder_last(recipe_file, tmp_path, capsys):
    runs = str(tmp_path / "runs")
    assert main(["train", recipe_file, "--runs", runs, "--seed", "3", "--set", "beta=1e-2"]) == 0
    captured = capsys.readouterr()
    assert "on cpu (CPU): weights nf4, computing in float32" in captured.err
    folder = Path(captured.out.splitlines()[-1])
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    recipe = json.loads((folder / "recipe.json").read_text())
    assert (recipe["seed"], recipe["beta"]) == (3, 0.01)

    assert main(["runs", "--runs", runs, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["state"], row["steps"]) == (folder.name, "finished", 2)
    assert main(["runs", "--runs", runs]) == 0
    assert "finished  2/2 steps" in capsys.readouterr().out
    csv = tmp_path / "table.csv"
    figure = tmp_path / "curves.png"
    asked = [folder.name, "--runs", runs, "--csv", str(csv), "--figure", str(figure)]
    assert main(["report", *asked, "--markdown"]) == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "| self_certainty |" in capsys.readouterr().out
    assert main(["report", folder.name, "--runs", runs, "--figure", "curves.xyz"]) == 2
    assert "--figure curves.xyz: Format 'xyz'" in capsys.readouterr().err
    header, row = csv.read_text(encoding="utf-8").splitlines()
    assert header.startswith("recipe,reward,seed,steps,")
    assert row.startswith("tiny,self_certainty,3,2/2,")


def test_train_on_a_file_of_ones_own(recipe_file, tmp_path, capsys):
    data = tmp_path / "own.csv"
    data.write_text("q,a\n" + "".join(f"{i}+1=,{i + 1}\n" for i in range(8)), encoding="utf-8")
    columns = ["--data", str(data), "--prompt-column", "q"]
    runs = ["--runs", str(tmp_path / "runs")]
    assert main(["train", recipe_file, *columns, "--answer-column", "a", *runs]) == 0
    labelled = Path(capsys.readouterr().out.splitlines()[-1])
    assert "accuracy" in (labelled / "completions.jsonl").read_text()
    assert main(["train", recipe_file, *columns, "--answer-column", "none", *runs]) == 0
    unlabelled = Path(capsys.readouterr().out.splitlines()[-1])
    assert "accuracy" not in (unlabelled / "completions.jsonl").read_text()


def test_too_little_memory_is_a_fault_of_the_preflight(recipe_file, monkeypatch, capsys):
    monkeypatch.setattr("intuitor_lib.training.memory_advice.available_memory", lambda device: 1)
    assert main(["preflight", recipe_file]) == 1
    assert "fault    memory      training" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("gib", "status", "told"),
    [(None, 0, "name one's memory by --gpu-gb N"), (0.5, 1, "does not fit in 0.50 GiB")],
)
def test_memory_is_compared_with_the_machines_gpu(gib, status, told, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gib is not None)
    if gib is not None:
        free = {"cuda": int(gib * 2**30)}
        monkeypatch.setattr("intuitor_lib.training.memory_advice.available_memory", free.get)
    recipe = ["intuitor", "--profile", "gpu-12gb", "--set", "dtype=bfloat16"]
    assert main(["memory", *recipe]) == status
    assert told in capsys.readouterr().out


def test_one_file_of_problems_has_one_name():
    parser = Command()
    add_recipe(parser)
    ways = ("own.csv", "./own.csv")
    one, same = (read_recipe(parser.parse_args(["quickstart", "--data", way])) for way in ways)
    assert one.digest == same.digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "no-such"], "unknown recipe 'no-such': choose from quickstart"),
        (["train", "no-such.yaml"], "cannot be read"),
        (["train", "quickstart", "--profile", "phone"], "invalid choice: 'phone'"),
        (["train", "quickstart", "--set", "num_generation=4"], "did you mean 'num_generations'?"),
        (["train", "quickstart", "--set", "num_generations=1"], "at least 2 completions"),
        (["train", "quickstart", "--set", "beta"], "'beta' is not of the form KEY=VALUE"),
        (["train", "quickstart", "--set", "model_revision=None"], "write null, true or false"),
        (["train", "intuitor", "--data", "missing.jsonl"], "missing.jsonl"),
        (["train", "quickstart", "--set", "dataset=reasoning-gym:chain_sums"], "chain_sum"),
        (["reproduce", "99_nothing"], "no notebook '99_nothing'"),
        (["reproduce", "00_quickstart", "-p", "sed=1"], "no parameter 'sed'"),
        (["reproduce", "--plan", "evening", "--profile", "cpu"], "leave --profile cpu out"),
        (["plan", "--plan", "evening", "--profile", "cpu"], "is of the profile gpu-evening"),
        (["reproduce", "--jobs", "0"], "'0': give a whole number of at least 1"),
        (["runs", "show", "nothing"], "no run 'nothing'"),
        (["runs", "verify", "nothing"], "no run 'nothing'"),
        (["report", "nothing"], "no run 'nothing'"),
        (["report", "nothing", "--short"], "are of the notebooks' findings: name no run"),
        (["report", "--short", "--profile", "cpu"], "--short is of all profiles"),
        (["export", "nothing", "folder", "--public"], "name it with --push OWNER/NAME"),
        (["export", "nothing", "folder"], "no run 'nothing'"),
        (["recipes", "nothing"], "unknown recipe 'nothing'"),
        (["evaluate", "tiny", "-b", "gsm9k"], "unknown benchmark 'gsm9k': choose from gsm8k"),
        (["evaluate", "tiny", "-b", "gsm8k", "--base"], "no run 'tiny'"),
        (["evaluate", "tiny", "-b", "gsm8k", "--batch-size", "-3"], "'-3': give a whole number"),
        (["compare", "a", "b"], "no evaluation of 'a'"),
        (["evaluations", "nothing"], "no evaluation of 'nothing'"),
    ],
)
def test_bad_input_exits_2_with_its_message(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("INTUITOR_RUNS", str(tmp_path))
    try:
        status = main(arguments)
    except SystemExit as ended:  # of argparse
        status = ended.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["train", "memory", "preflight"])
def test_a_profile_is_of_a_named_recipe(command, recipe_file, capsys):
    assert main([command, recipe_file, "--profile", "smoke"]) == 2
    assert "--profile smoke with tiny.yaml" in capsys.readouterr().err


def test_a_table_is_written_through_a_link(tmp_path, capsys):
    (tmp_path / "link.csv").symlink_to(tmp_path / "table.csv")
    print_table(Table(["a"], [["1"]], ""), str(tmp_path / "link.csv"))
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines() == ["a", "1"]


@pytest.mark.parametrize(
    "arguments", [["09", "--profile", "smoke"], ["--profile", "smoke", "09"], ["09"]]
)
def test_options_may_stand_between_names(arguments):
    options = _parser().parse_args(["reproduce", "08", *arguments])
    assert options.notebooks == ["08", "09"]
    assert options.profile == ("smoke" if "smoke" in arguments else None)


def test_malformed_problems_are_told_by_line_before_torch_is_imported(tmp_path):
    data = tmp_path / "bad.jsonl"
    data.write_text('{"problem": "1+1="}\nnot json\n{"problem": ""}\n', encoding="utf-8")
    code = (
        "import sys; from intuitor_lib.cli.script import main;"
        "status = main(sys.argv[1:]); print(status, 'torch' in sys.modules)"
    )
    arguments = ["train", "intuitor", "--profile", "cpu", "--data", str(data)]
    arguments += ["--answer-column", "none"]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["2", "False"]
    assert "line 2" in result.stderr
    assert "line 3" in result.stderr


def test_recipes_prints_sources(capsys):
    assert main(["recipes"]) == 0
    assert "quickstart" in capsys.readouterr().out
    assert main(["recipes", "intuitor", "--profile", "paper"]) == 0
    out = capsys.readouterr().out
    assert "num_generations: 7  # default: paper Table 7: group size G" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["report"],
        ["report", "--markdown"],
        ["recipes"],
        ["recipes", "quickstart"],
        ["runs"],
        ["benchmarks"],
        ["evaluations"],
        ["train", "\N{GREEK SMALL LETTER BETA}"],
        ["reproduce", "\N{RIGHTWARDS ARROW}"],
    ],
)
def test_a_console_without_unicode_shows_replacements(arguments, monkeypatch, tmp_path):
    monkeypatch.setenv("INTUITOR_RUNS", str(tmp_path))
    streams = {name: io.TextIOWrapper(io.BytesIO(), "ascii") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    status = main(arguments)
    shown = ""
    for stream in streams.values():
        stream.flush()
        shown += stream.buffer.getvalue().decode("ascii")
    assert status in (0, 1, 2)
    assert shown
    assert "?" in shown or arguments[0] not in ("report", "reproduce")


def test_evaluate_then_compare(recipe_file, tiny_model, tmp_path, capsys):
    runs = ["--runs", str(tmp_path / "runs")]
    assert main(["train", recipe_file, *runs]) == 0
    run = Path(capsys.readouterr().out.splitlines()[-1]).name
    asked = ["-b", "chain_sum", "--n", "3", "--max-new-tokens", "4", *runs]
    csv = tmp_path / "table.csv"
    assert main(["evaluate", run, *asked, "--csv", str(csv)]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    spec = json.loads((folder / "evaluation.json").read_text())
    assert (spec["policy"]["run"], spec["benchmark"]["name"]) == (run, "chain_sum")
    assert len(csv.read_text(encoding="utf-8").splitlines()) == 2
    assert main(["evaluate", run, "--base", *asked]) == 0
    base = f"{tiny_model.name}-nf4"
    assert base in capsys.readouterr().out

    assert main(["compare", base, run, *runs, "--csv", str(csv)]) == 0
    out = capsys.readouterr().out
    assert "McNemar p" in out
    assert out.count("chain_sum") == 1
    assert main(["evaluations", *runs]) == 0
    assert capsys.readouterr().out.count("greedy, <= 4") == 2


def test_benchmarks_are_listed(capsys):
    assert main(["benchmarks"]) == 0
    out = capsys.readouterr().out
    assert "GSM8K (Table 1, GSM8K)" in out
    assert "gsm_symbolic (stands in for GSM8K)" in out
    assert "openai/gsm8k (test) at 740312ad, or gsm8k_test.jsonl" in out


def test_a_failure_exits_1(recipe_file, tmp_path, monkeypatch, capsys):
    def broken(recipe):
        raise RuntimeError("the disk caught fire")

    monkeypatch.setattr("intuitor_lib.training.training.load_policy", broken)
    assert main(["train", recipe_file, "--runs", str(tmp_path / "runs")]) == 1
    assert "the disk caught fire" in capsys.readouterr().err


def test_the_module_is_the_script():
    result = subprocess.run(
        [sys.executable, "-m", "intuitor_lib", "--help"], capture_output=True, text=True, check=True
    )
    for verb in ("train", "evaluate", "compare", "reproduce", "recipes", "runs"):
        assert verb in result.stdout
    assert "intuitor" in result.stdout.splitlines()[0]


@pytest.mark.slow
@pytest.mark.skipif(not MATH.is_file(), reason=f"needs {MATH.name}, which is not in the project")
def test_the_papers_math_recipe_runs_two_steps_on_the_real_problems(tmp_path, capsys):
    arguments = ["train", "intuitor", "--profile", "cpu", "--data", str(MATH)]
    arguments += ["--prompt-column", "problem", "--answer-column", "answer"]
    arguments += ["--set", "max_steps=2", "--set", "max_completion_length=8"]
    arguments += ["--set", "num_generations=2", "--set", "per_device_train_batch_size=2"]
    arguments += ["--set", "preflight_problems=2", "--set", f"model={SMOLLM2}"]
    assert main([*arguments, "--runs", str(tmp_path)]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["rewards/self_certainty/mean"] > 0 for row in rows)
    problems = json.loads((folder / "problems.json").read_text())
    assert problems["train"] > 7000
    assert os.path.isdir(folder / "adapter")


@pytest.fixture
def store(recipe_file, tmp_path, capsys):
    """A store with one finished run: its arguments and the run's folder."""
    runs = ["--runs", str(tmp_path / "runs")]
    assert main(["train", recipe_file, *runs]) == 0
    return runs, Path(capsys.readouterr().out.strip())


def test_runs_are_shown_and_verified(store, capsys):
    runs, folder = store
    assert main(["runs", "show", folder.name, *runs]) == 0
    shown = capsys.readouterr().out
    assert "state: finished" in shown
    assert "max_completion_length: 6" in shown
    assert main(["runs", "show", "--json", *runs]) == 0
    details = json.loads(capsys.readouterr().out)[folder.name]
    assert details["settings that are not the defaults"]["max_completion_length"] == 6
    assert main(["runs", "verify", *runs]) == 0
    assert f"{folder.name}  whole  finished" in capsys.readouterr().out

    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write("{}\n")
    assert main(["runs", "verify", folder.name, *runs]) == 1
    out = capsys.readouterr().out
    assert "DAMAGED" in out
    assert "metrics.jsonl: changed" in out
    assert main(["runs", "verify", "--json", *runs]) == 1
    assert json.loads(capsys.readouterr().out)[folder.name].keys() == {"metrics.jsonl"}
    assert main(["runs", *runs]) == 0  # and the list goes on
    assert "damaged" in capsys.readouterr().out


def test_a_run_is_named_and_a_profile_is_chosen_by_its_option(capsys):
    assert get_recipe("quickstart", "smoke", name="mine").name == "mine"
    assert main(["train", "quickstart", "--set", "profile=smoke"]) == 2
    assert "--profile" in capsys.readouterr().err
