"""Progress: bars on a terminal, or drawn for a batch runner."""

from intuitor_lib.report.progress import VARIABLE, LiveTraining, track, watch

ROW = {"step": 1, "rewards/self_certainty/mean": 9.5, "completions/mean_length": 12.0}


def test_a_bar_goes_to_standard_error(capsys, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert list(track(range(3), total=3, label="count")) == [0, 1, 2]
    live = LiveTraining("train x", 2)
    live.update([ROW])
    live.close("done")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "train x:  50%" in captured.err
    assert "self-certainty 9.5" in captured.err


def test_in_batch_bars_are_drawn_into_a_file_and_shown(tmp_path, monkeypatch, capsys):
    file = tmp_path / "progress.txt"
    monkeypatch.setenv(VARIABLE, str(file))
    with watch(file, note=lambda: "  2 of 9 left"):
        list(track("ab", total=2, label="generate"))
        live = LiveTraining("train y", 4)
        live.update([ROW])
        live.update([{**ROW, "step": 4}])
        live.close("done")
    drawn = file.read_text(encoding="utf-8")
    assert "loading the policy" in drawn
    assert "1 of 4" in drawn
    # One line for each stage, of which its last state stays.
    states = [line.rpartition("\r")[2] for line in capsys.readouterr().err.split("\n")]
    lines = [state.split() for state in states if state.strip()]
    # The note stands after the stages that have ended.
    assert [line[0] for line in lines] == ["generate", "2", "train"]
    assert lines[0][1:4] == ["2", "of", "2"]
    assert lines[2][1:5] == ["y", "4", "of", "4"]
